"""From a recipe's `model` section to a configuration and a base model."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peftkit.errors import ArtefactError, UsageError
from peftkit.models.load_errors import check_loading_report, explain_load_error
from peftkit.models.new_model import new_config
from peftkit.plugins import ModelKind
from peftkit.system.checkpoint_files import check_base_folder, check_config_fields, read_json
from peftkit.system.hub_errors import explain_hub_error
from peftkit.system.quiet import quiet_stack
from peftkit.system.weights_digest import BaseIdentity, identify

if TYPE_CHECKING:
    from collections.abc import Mapping, Set

    from transformers import PretrainedConfig, PreTrainedModel

    from peftkit.plugins.quantizer import Quantizer
    from peftkit.recipe.schema import ModelSection

_HUB_ID = re.compile(r"[\w][\w.-]*(/[\w][\w.-]*)?")
_COMMIT = re.compile(r"/snapshots/([0-9a-f]{40})/")
_HUB_TIMEOUT_SECONDS = 10.0


@dataclass(frozen=True)
class ResolvedModel:
    """Say where a base model's files really come from."""

    path_or_id: str
    """A folder, or a Hub id."""
    revision: str | None
    """The commit that the recipe's revision stands for today; None for a folder."""
    is_local: bool
    subfolder: str = ""

    def location(self) -> dict[str, Any]:
        """Return the keywords that every `from_pretrained` needs to find these files."""
        keywords: dict[str, Any] = {"pretrained_model_name_or_path": self.path_or_id}
        if not self.is_local:
            keywords["revision"] = self.revision
        if self.subfolder:
            keywords["subfolder"] = self.subfolder
        return keywords


def resolve(model: ModelSection) -> ResolvedModel:
    """Find the base model: one that ships with peftkit, a folder, or a commit on the Hub.

    Raises:
        ArtefactError: no such folder, or not a base model in safetensors.
        NetworkError: the Hub has no such model, wants a licence accepted, or is out of reach.
    """
    if model.path is None:
        raise UsageError(
            "this recipe builds a new model, so there is no base to load",
            hint="name a base under model.path",
        )
    subfolder = model.subfolder or ""
    if model.path.startswith("embedded:"):
        from peftkit.embedded import model_path

        return ResolvedModel(str(model_path(model.path.removeprefix("embedded:"))), None, True)
    folder = Path(model.path).expanduser()
    if folder.is_dir():
        check_base_folder(folder / subfolder)
        return ResolvedModel(str(folder), None, True, subfolder)
    if folder.exists():
        raise ArtefactError(
            f"model.path {model.path!r} is a file, not a folder",
            hint="name the folder that holds config.json",
        )
    if not _HUB_ID.fullmatch(model.path):
        raise ArtefactError(
            f"model.path {model.path!r}: no such folder", hint="check the path, or name a Hub id"
        )
    return _resolve_on_hub(model.path, model.revision, subfolder)


def identify_base(model: ModelSection) -> BaseIdentity:
    """Tell which weights a recipe's base has; of the Hub by its commit, until they are here."""
    found = resolve(model)
    if found.is_local:
        return identify(Path(found.path_or_id) / found.subfolder)
    from huggingface_hub import try_to_load_from_cache

    name = f"{found.subfolder}/config.json" if found.subfolder else "config.json"
    file = try_to_load_from_cache(found.path_or_id, name, revision=found.revision)
    if not isinstance(file, str):
        return BaseIdentity((), found.revision)
    return identify(Path(file).parent, found.revision)


def load_config(model: ModelSection, found: ResolvedModel | None = None) -> PretrainedConfig:
    """Read the base model's configuration, e.g. for its longest position.

    Raises:
        ArtefactError: this transformers does not know the architecture, or it is custom code.
    """
    quiet_stack()
    from transformers import AutoConfig

    if model.config is not None:
        return new_config(model.config)
    found = found or resolve(model)
    if found.is_local and not model.trust_remote_code:
        file = Path(found.path_or_id) / found.subfolder / "config.json"
        check_config_fields(read_json(file), str(file))
    try:
        config = AutoConfig.from_pretrained(
            **found.location(), trust_remote_code=model.trust_remote_code
        )
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise explain_load_error(error, found.path_or_id, is_local=found.is_local) from error
    if not model.trust_remote_code:
        check_config_fields(config.to_dict(), f"{found.path_or_id} config.json")
    return config


def max_positions(config: PretrainedConfig) -> int | None:
    """Return the longest sequence that a configuration's positions reach; None when unbounded."""
    found = getattr(config.get_text_config(), "max_position_embeddings", None)
    return int(found) if isinstance(found, int) and found > 0 else None


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
    from safetensors import SafetensorError

    found = resolve(model)
    config = load_config(model, found)
    config.update({**kind.head_options, **(config_options or {})})
    keywords = _load_keywords(model, quantizer, device)
    if quantizer is not None and getattr(config, "quantization_config", None) is None:
        quantizer.check(device=device)
    transformers.utils.logging.disable_progress_bar()
    loader = getattr(transformers, kind.auto_class)
    try:
        base, report = loader.from_pretrained(
            **found.location(), config=config, output_loading_info=True, **keywords
        )
    except SafetensorError as error:
        raise ArtefactError(
            f"{found.path_or_id}: weights are torn: {error}", hint="copy or download them again"
        ) from None
    except (OSError, ValueError, KeyError, ImportError, RuntimeError) as error:
        raise explain_load_error(error, found.path_or_id, is_local=found.is_local) from error
    check_loading_report(base, report, found.path_or_id, kind=kind, brought=brought)
    if quantizer is not None:
        # Nothing else prepares it: PEFT freezes the base, trl lets gradients into checkpointed
        # layers, and float32 copies of norms and head are no longer part of trl's path (1.16).
        quantizer.prepare(base)
    return base


@cache
def _resolve_on_hub(repo_id: str, revision: str | None, subfolder: str) -> ResolvedModel:
    """Fetch a Hub model's configuration, and read from where it landed which commit this is.

    Asked once a process, so that a tokenizer and its weights are of one commit. The list of
    files comes first because it fails at once where the Hub is out of reach; a download is
    retried for half a minute.
    """
    quiet_stack()
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, HTTPError

    place: dict[str, Any] = {"revision": revision, "subfolder": subfolder or None}
    failure: Exception | None = None
    try:
        names, failure = _list_files(repo_id, revision)
        prefix = f"{subfolder}/" if subfolder else ""
        # transformers follows an adapter_config.json to its base; a recipe names its own.
        if f"{prefix}adapter_config.json" in names:
            raise ArtefactError(
                f"the Hub's {repo_id!r} holds an adapter, not a base model",
                hint="name its base model under model.path",
            )
        place["local_files_only"] = failure is not None
        file = hf_hub_download(repo_id, "config.json", **place)
    except (HTTPError, EntryNotFoundError, OSError, ValueError) as error:
        if isinstance(error, ArtefactError):
            raise
        raise explain_hub_error(failure or error, repo_id) from error
    commit = _COMMIT.search(Path(file).as_posix())
    if commit is None:
        raise ArtefactError(f"the Hub cache holds {repo_id!r} without its commit: {file}")
    return ResolvedModel(repo_id, commit.group(1), False, subfolder)


def _list_files(repo_id: str, revision: str | None) -> tuple[frozenset[str], Exception | None]:
    """List a Hub model's files; nothing, and why, where the Hub itself is out of reach."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HTTPError, OfflineModeIsEnabled

    try:
        info = HfApi().model_info(repo_id, revision=revision, timeout=_HUB_TIMEOUT_SECONDS)
    except HfHubHTTPError as error:
        if error.response.status_code < 500:
            raise
        return frozenset(), error
    except (HTTPError, OfflineModeIsEnabled, ConnectionError) as error:
        return frozenset(), error
    return frozenset(entry.rfilename for entry in info.siblings or ()), None


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
