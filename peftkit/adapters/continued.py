"""Going on with an adapter from disk, which may come from anywhere and is not believed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING

from peftkit.adapters.base import task_type, upstream_notices_ignored
from peftkit.adapters.fused import ask_for_fused, tie
from peftkit.adapters.peft_types import adapter_class
from peftkit.errors import ArtefactError, first_line
from peftkit.rundir.paths import RunDir
from peftkit.rundir.whole import check_weights
from peftkit.system.checkpoint_files import PEFT_PREFIX, check_safetensors, read_header, read_json
from peftkit.system.foreign_fields import REDIRECTING, check_adapter_fields
from peftkit.system.weight_folders import check_companions, check_links, check_trained

if TYPE_CHECKING:
    from peft import PeftConfig, PeftModel
    from torch import Tensor
    from transformers import PreTrainedModel

_CONFIG = "adapter_config.json"
_WEIGHTS = "adapter_model.safetensors"
_NOT_FOLLOWED = (
    *REDIRECTING,
    "base_model_name_or_path",  # redirects to another base; the recipe names its own
    "inference_mode",
    "loftq_config",  # would quantize the base again
    "peft_type",
    "peft_version",
    "revision",
    "task_type",
    "tokenizer_name_or_path",
)
"""Fields of a foreign config that redirect, import or run; what they decide is decided here."""

_SIZES = ("r", "init_r", "num_virtual_tokens", "encoder_hidden_size", "n_frequency")
"""Options that allocate at least so many numbers, which the file must then hold."""
_HEADS = {
    "SEQ_CLS": ("classifier", "score"),
    "TOKEN_CLS": ("classifier", "score"),
    "QUESTION_ANS": ("qa_outputs",),
}
"""Task type -> how the modules end that PEFT's wrapper of the task trains whole."""
_TWO_ADAPTERS = "the config and the weights come from different adapters"


def adapter_folder(path: Path) -> Path:
    """Return the folder of an adapter, given it or the run that wrote it.

    Raises:
        ArtefactError: there is no adapter, or only pickled weights.
    """
    folder = path / "adapter" if (path / "adapter" / _CONFIG).is_file() else path
    if folder != path:
        check_weights(RunDir(path))
    if not (folder / _CONFIG).is_file():
        raise ArtefactError(
            f"{path} holds no adapter: {_CONFIG} is missing",
            hint="name an adapter folder, or the directory of a finished run",
        )
    if not (folder / _WEIGHTS).is_file():
        if (folder / "adapter_model.bin").is_file():
            raise ArtefactError(
                f"{folder} has only adapter_model.bin, a pickle, which can run code",
                hint=(
                    'if you trust it, convert it once: python -c "import torch,'
                    " safetensors.torch as s; s.save_file(torch.load('adapter_model.bin',"
                    f" weights_only=True), '{_WEIGHTS}')\""
                ),
            )
        raise ArtefactError(f"{folder} lacks {_WEIGHTS}", hint="copy the whole adapter folder")
    check_adapter_fields(read_json(folder / _CONFIG), str(folder / _CONFIG))
    check_links(folder)
    check_companions(folder)
    check_trained(folder)
    check_safetensors(folder / _WEIGHTS)
    return folder


def brought_by(path: Path) -> frozenset[str]:
    """Name the parameters of the model that an adapter's file brings, so that a base may lack them.

    Args:
        path: an adapter folder, or a run directory.

    Raises:
        ArtefactError: there is no adapter, or its file is torn.
    """
    header, _ = read_header(adapter_folder(path) / _WEIGHTS)
    return _parameters(header)


def load_adapter(
    model: PreTrainedModel, path: Path, *, is_trainable: bool, is_fused: bool = False
) -> PeftModel:
    """Attach an adapter from disk to the base that the recipe names.

    Args:
        path: an adapter folder, or a run directory.
        is_trainable: whether its parameters take gradients.
        is_fused: whether LoRA layers are those of `peftkit.kernels`, where they can be.

    Raises:
        ArtefactError: the adapter is pickled, torn, not finite, or made for another base.
    """
    from peft import get_peft_model, set_peft_model_state_dict
    from safetensors.torch import load_file

    folder = adapter_folder(path)
    config = read_peft_config(folder, is_trainable=is_trainable)
    weights = load_file(folder / _WEIGHTS)
    _check_weights(weights, config, folder)
    config.task_type = _wrapper(model, config, _parameters(weights))
    _make_room(model, config)
    is_fused = is_fused and str(config.peft_type.value) == "LORA"
    if is_fused:
        ask_for_fused(config, model)
    try:
        with upstream_notices_ignored():
            attached = get_peft_model(model, config, autocast_adapter_dtype=True)
            _check_fit(attached, weights, folder)
            set_peft_model_state_dict(attached, weights)
    except (ValueError, TypeError, KeyError, AttributeError, RuntimeError) as error:
        if isinstance(error, ArtefactError):
            raise
        raise ArtefactError(
            f"{folder} does not fit {type(model).__name__}: {first_line(error)}",
            hint="name the base model that this adapter was trained on",
        ) from error
    if is_fused:
        tie(attached)
    return attached if is_trainable else attached.eval()


def _make_room(model: PreTrainedModel, config: PeftConfig) -> None:
    """Give a base the rows of tokens that its training added, which the adapter all brings."""
    stated = getattr(config, "trainable_token_indices", None) or ()
    lists = stated.values() if isinstance(stated, Mapping) else [stated]
    wanted = {index for one in lists for index in one}
    num_rows = model.get_input_embeddings().weight.shape[0]
    needed = 1 + max(wanted, default=-1)
    is_brought = needed - num_rows <= len(wanted) and set(range(num_rows, needed)) <= wanted
    if needed > num_rows and is_brought:
        model.resize_token_embeddings(needed, mean_resizing=False)


def _parameters(keys: Iterable[str]) -> frozenset[str]:
    """Return an adapter's keys as the model names its own parameters; a tuner's match none."""
    return frozenset(key.removeprefix(PEFT_PREFIX) for key in keys)


def _wrapper(model: PreTrainedModel, config: PeftConfig, brought: Set[str]) -> str | None:
    """Return the task type whose PEFT wrapper fits what an adapter's file brings.

    A classifier's wrapper takes the head into the adapter. Where the file has no head, it stays the
    base's; prompts need the wrapper's forward all the same.
    """
    kind = task_type(model)
    if kind not in _HEADS or config.is_prompt_learning:
        return kind
    head = {
        name
        for name, _ in model.named_parameters()
        if any(part.endswith(_HEADS[kind]) for part in name.split("."))
    }
    return kind if head <= brought else None


def read_peft_config(folder: Path, *, is_trainable: bool) -> PeftConfig:
    """Build the native config from the fields that only describe the adapter.

    Raises:
        ArtefactError: peft has no such method or field, or the method is refused here.
    """
    import peft
    from peft import PEFT_TYPE_TO_CONFIG_MAPPING

    stored = read_json(folder / _CONFIG)
    classes = {kind.value: cls for kind, cls in PEFT_TYPE_TO_CONFIG_MAPPING.items()}
    kind = stored.get("peft_type")
    if kind not in classes:
        raise ArtefactError(
            f"{folder / _CONFIG}: peft {peft.__version__} has no method {kind!r}",
            hint="pip install --upgrade peft",
        )
    method = adapter_class(classes[kind].__name__)
    if method.refused is not None:
        raise ArtefactError(f"{folder / _CONFIG}: {method.refused}", hint=method.way_out)
    known = {field.name for field in fields(classes[kind])}
    options = {key: value for key, value in stored.items() if key not in _NOT_FOLLOWED}
    unknown = sorted(key for key in options if key not in known)
    if unknown:
        raise ArtefactError(
            f"{folder / _CONFIG}: {classes[kind].__name__} of peft {peft.__version__} has no"
            f" {', '.join(unknown)} (saved by peft {stored.get('peft_version', '?')})",
            hint="pip install --upgrade peft",
        )
    if is_trainable and (kind == "P_TUNING" or options.get("prefix_projection")):
        raise ArtefactError(
            f"{folder / _CONFIG}: peft saves the prompt that an encoder computed, without the"
            " encoder, so training cannot go on from it",
            hint="train prompt_tuning, or prefix_tuning without prefix_projection, to go on later",
        )
    if options.get("prompt_tuning_init"):
        # The prompt is in the file; its first text, and the tokenizer for it, are not needed.
        options["prompt_tuning_init"] = "RANDOM"
    try:
        return classes[kind](**options, inference_mode=not is_trainable)
    except (TypeError, ValueError, ImportError) as error:
        raise ArtefactError(f"{folder / _CONFIG}: {error}") from error


def _check_weights(weights: Mapping[str, Tensor], config: PeftConfig, folder: Path) -> None:
    """Refuse numbers that are not finite, and a rank that the file does not have.

    The rank is checked against the file before anything is allocated, so that a config cannot
    ask for more memory than its own weights.
    """
    for name, tensor in weights.items():
        if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
            raise ArtefactError(
                f"{folder / _WEIGHTS}: {name} holds NaN or infinity",
                hint="use an earlier checkpoint of that training",
            )
    num_stored = sum(tensor.numel() for tensor in weights.values())
    for key in _SIZES:
        size = getattr(config, key, None)
        if isinstance(size, int) and size > num_stored:
            raise ArtefactError(
                f"{folder / _CONFIG} asks for {key}: {size}, but its weights hold {num_stored}"
                " numbers in all",
                hint=_TWO_ADAPTERS,
            )
    # Bare parameters hold all experts' ranks in one factor; `_check_fit` compares their shapes.
    if config.peft_type == "LORA" and not config.target_parameters:
        _check_lora_ranks(weights, config, folder)


def _check_lora_ranks(weights: Mapping[str, Tensor], config: PeftConfig, folder: Path) -> None:
    """Compare the ranks that the config promises with those of the weights."""
    ranks = {
        tensor.shape[0]
        for name, tensor in weights.items()
        if ".lora_A." in name or ".lora_embedding_A" in name
    }
    promised = {config.r, *(config.rank_pattern or {}).values()}
    if ranks and not (ranks <= promised and max(promised) <= 2 * max(ranks)):
        raise ArtefactError(
            f"{folder / _CONFIG} promises ranks {sorted(promised)}, its weights have"
            f" {sorted(ranks)}",
            hint=_TWO_ADAPTERS,
        )


def _check_fit(attached: PeftModel, weights: Mapping[str, Tensor], folder: Path) -> None:
    """Compare the file's tensors with those this base needs: names both ways, then shapes."""
    from peft import get_peft_model_state_dict

    wanted = get_peft_model_state_dict(attached, save_embedding_layers=False)
    saved = set(weights)
    if saved - set(wanted):
        wanted |= {
            key: tensor
            for key, tensor in get_peft_model_state_dict(
                attached, save_embedding_layers=True
            ).items()
            if key in saved
        }
    problems = [f"lacks {key}" for key in sorted(set(wanted) - saved)]
    problems += [
        f"has {key}, which the base has no place for" for key in sorted(saved - set(wanted))
    ]
    # AdaLoRA saves only the ranks it kept, and resizes on load.
    if attached.peft_config["default"].peft_type != "ADALORA":
        problems += [
            f"has {key} of shape {tuple(weights[key].shape)}, not {tuple(wanted[key].shape)}"
            for key in sorted(saved & set(wanted))
            if weights[key].shape != wanted[key].shape
        ]
    if problems:
        more = f"; and {len(problems) - 3} more" if len(problems) > 3 else ""
        raise ArtefactError(
            f"{folder} was made for another base: it {'; it '.join(problems[:3])}{more}",
            hint="name the base model that this adapter was trained on",
        )
