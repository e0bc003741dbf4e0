"""Load a base model's weights, with rows for the tokens that a recipe adds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from peftkit.models.finite import check_base_finite
from peftkit.models.load import load_config, resolve
from peftkit.models.load_errors import check_loading_report, load_explained
from peftkit.models.new_tokens import grow_embeddings
from peftkit.models.tokenizer import read_tokenizer
from peftkit.plugins import ModelKind
from peftkit.system.quiet import quiet_stack

if TYPE_CHECKING:
    from collections.abc import Mapping, Set

    from transformers import PreTrainedModel

    from peftkit.plugins.quantizer import Quantizer
    from peftkit.recipe.schema import ModelSection


def load_base(  # noqa: PLR0913 - what is loaded, as what, where to, and what may be missing
    model: ModelSection,
    *,
    kind: ModelKind,
    quantizer: Quantizer | None = None,
    device: str = "cpu",
    config_options: Mapping[str, Any] | None = None,
    brought: Set[str] | None = None,
) -> PreTrainedModel:
    """Load the base model's weights, all of them, from safetensors.

    Args:
        kind: what it is loaded as.
        config_options: what its configuration must say, e.g. a classifier's `id2label`.
        brought: parameters that an adapter brings afterwards, so that the files may lack them; a
            whole new head when None.
        device: where the whole base goes, unless `model.device_map` spreads it.

    Raises:
        ArtefactError: weights are torn, missing or left over.
        ResourceError: a package or the memory for it is missing.
    """
    quiet_stack()
    import transformers

    found = resolve(model)
    config = load_config(model, found)
    config.update({**kind.head_options, **(config_options or {})})
    keywords = _load_keywords(model, quantizer, device)
    if quantizer is not None and getattr(config, "quantization_config", None) is None:
        quantizer.check(device=device)
    transformers.utils.logging.disable_progress_bar()
    loader = getattr(transformers, kind.auto_class)
    with load_explained(found.path_or_id, is_local=found.is_local):
        base, report = loader.from_pretrained(
            **found.location(), config=config, output_loading_info=True, **keywords
        )
    check_loading_report(base, report, found.path_or_id, kind=kind, brought=brought)
    check_base_finite(base, found.path_or_id)
    if model.changes_tokens:
        grow_embeddings(base, read_tokenizer(model).new)
    if quantizer is not None:
        # Nothing else prepares it: PEFT freezes the base, trl lets gradients into checkpointed
        # layers, and float32 copies of norms and head are no longer part of trl's path (1.16).
        quantizer.prepare(base)
    return base


def _load_keywords(model: ModelSection, quantizer: Quantizer | None, device: str) -> dict[str, Any]:
    """Collect what `from_pretrained` takes beside the place of the files."""
    keywords: dict[str, Any] = {
        "dtype": model.dtype,
        "use_safetensors": True,
        "ignore_mismatched_sizes": True,  # so that the report names them, which is then refused
        "trust_remote_code": model.trust_remote_code,
    }
    if model.attn_implementation is not None:
        keywords["attn_implementation"] = model.attn_implementation
    if quantizer is not None and quantizer.native is not None:
        keywords["quantization_config"] = quantizer.native
    if model.device_map is not None:
        keywords["device_map"] = model.device_map
    elif device != "cpu" or quantizer is not None:
        # Not a bare string: quantizers compare the values with "cpu", and no torch.device is that.
        keywords["device_map"] = {"": 0 if device in ("cuda", "xpu") else device}
    return keywords
