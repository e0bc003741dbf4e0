"""What GGUF calls each architecture's tensors and sizes, and how it lays the tensors out.

Source: the GGUF specification and llama.cpp's loaders (`src/models`), which say what each
architecture computes; what they cannot compute is refused here by name.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from peftkit.errors import ArtefactError

if TYPE_CHECKING:
    from torch import Tensor

    from peftkit.exporters.model_folder import ModelFolder


@dataclass(frozen=True)
class Family:
    """Describe one architecture of transformers in GGUF's terms."""

    arch: str
    """GGUF's name, a member of `gguf.MODEL_ARCH`."""
    activations: tuple[str, ...]
    """What the loader computes between the projections of the feed-forward layer."""
    is_permuted: bool = False
    """Whether query and key rows are interleaved: pairs (2i, 2i+1) are rotated, not (i, i+d/2)."""
    shifts_norms: bool = False
    """Whether norms multiply by 1 + weight in transformers and by weight in GGUF."""
    has_head: bool = True
    """Whether an output matrix of its own can be stored."""
    dropped: tuple[str, ...] = ()
    """Prefixes of tensors that the format has no place for."""
    note: str = ""


_BERT_NOTE = (
    "llama.cpp reads a BERT for embeddings: the pretraining heads (masked words, next sentence)"
    " are not in the file"
)
FAMILIES = {
    "llama": Family("LLAMA", ("silu",), is_permuted=True),
    "mistral": Family("LLAMA", ("silu",), is_permuted=True),
    "qwen2": Family("QWEN2", ("silu",)),
    "qwen3": Family("QWEN3", ("silu",)),
    "gemma": Family("GEMMA", ("gelu_pytorch_tanh",), shifts_norms=True, has_head=False),
    "gemma2": Family("GEMMA2", ("gelu_pytorch_tanh",), shifts_norms=True, has_head=False),
    "gemma3_text": Family("GEMMA3", ("gelu_pytorch_tanh",), shifts_norms=True),
    "gpt2": Family("GPT2", ("gelu_new", "gelu_pytorch_tanh")),
    "bert": Family("BERT", ("gelu",), dropped=("cls.", "pooler."), note=_BERT_NOTE),
}
_CONV1D = (".c_attn.weight", ".c_proj.weight", ".c_fc.weight")
"""GPT-2's layers that store a weight as (in, out)."""
_BUFFERS = (".attn.bias", ".attn.masked_bias", ".rotary_emb.inv_freq", "embeddings.position_ids")
Transform = Callable[["Tensor"], "Tensor"]


@dataclass(frozen=True)
class PlannedTensor:
    """Say which tensor of the model becomes which of the file, and how."""

    name: str
    source: str
    transform: Transform
    shape: tuple[int, ...]
    """After the transform."""

    @property
    def is_transposed(self) -> bool:
        """Tell whether the model stores the weight as (in, out)."""
        return self.transform is _transpose


def family_of(model: ModelFolder) -> Family:
    """Return the family of a model.

    Raises:
        ArtefactError: this exporter knows no such architecture.
    """
    family = FAMILIES.get(model.model_type)
    if family is None:
        raise ArtefactError(
            f"{model.path}: gguf export does not know {model.model_type or 'a nameless'!r} models",
            hint=f"it knows {', '.join(FAMILIES)}; use llama.cpp's convert_hf_to_gguf.py",
        )
    return family


def plan_tensors(model: ModelFolder, config: Any) -> list[PlannedTensor]:
    """Give every tensor of a model its name, its layout and its place.

    Args:
        config: the model's `PretrainedConfig`.

    Raises:
        ArtefactError: a tensor has no place in the format.
    """
    import gguf

    family = family_of(model)
    num_layers = config.num_hidden_layers
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH[family.arch], num_layers)
    planned: list[PlannedTensor] = []
    homeless = []
    for source, shape in model.shapes.items():
        bare = source.removeprefix("bert.")
        if _is_left_out(model, family, config, source):
            continue
        if bare.partition(".")[0] in ("classifier", "score"):  # an encoder's, a decoder's
            raise ArtefactError(
                f"{source} is a classifier, which gguf cannot carry",
                hint="export a classifier with --to onnx",
            )
        name = names.get_name(bare, try_suffixes=(".weight", ".bias"))
        if name is None and model.model_type == "gpt2":
            name = names.get_name(f"transformer.{bare}", try_suffixes=(".weight", ".bias"))
        if name is None:
            homeless.append(source)
            continue
        transform, new_shape = _layout(family, config, source, shape)
        planned.append(PlannedTensor(name, source, transform, new_shape))
    if homeless:
        more = f" and {len(homeless) - 3} more" if len(homeless) > 3 else ""
        raise ArtefactError(
            f"GGUF's {family.arch} has no place for {', '.join(homeless[:3])}{more}",
            hint="export with --to safetensors or --to onnx",
        )
    return planned


def _is_left_out(model: ModelFolder, family: Family, config: Any, source: str) -> bool:
    """Tell whether a tensor need not be in the file: a buffer, a dropped head, a tied output."""
    if source.endswith(_BUFFERS) or source.removeprefix("bert.").startswith(family.dropped or "\0"):
        return True
    if source != "lm_head.weight":
        return False
    if config.tie_word_embeddings:
        # An untied head under a config that ties: transformers would tie it, as the loader does.
        return True
    if family.has_head:
        return False
    raise ArtefactError(
        f"{model.path}: its output matrix is not tied to the embedding, which GGUF's"
        f" {family.arch} cannot store",
        hint="train without lm_head and embed_tokens among the targets, or --to safetensors",
    )


def _layout(
    family: Family, config: Any, source: str, shape: tuple[int, ...]
) -> tuple[Transform, tuple[int, ...]]:
    if family.is_permuted and ".q_proj." in source:
        return _interleave(config.num_attention_heads), shape
    if family.is_permuted and ".k_proj." in source:
        return _interleave(config.num_key_value_heads), shape
    if family.shifts_norms and source.endswith("norm.weight"):
        return _plus_one, shape
    if family.arch == "GPT2" and source.endswith(_CONV1D):
        return _transpose, shape[::-1]
    return _same, shape


def _same(tensor: Tensor) -> Tensor:
    return tensor


def _plus_one(tensor: Tensor) -> Tensor:
    return tensor.float() + 1.0


def _transpose(tensor: Tensor) -> Tensor:
    return tensor.T.contiguous()


def _interleave(num_heads: int) -> Transform:
    """Make rows i and i + d/2 of each head neighbours, as the loader rotates them."""

    def permute(tensor: Tensor) -> Tensor:
        halves = tensor.reshape(num_heads, 2, tensor.shape[0] // num_heads // 2, *tensor.shape[1:])
        return halves.transpose(1, 2).reshape(tensor.shape).contiguous()

    return permute


def rope_factors(config: Any) -> list[float] | None:
    """Return what each rotary frequency is divided by under Llama 3's scaling; None without it.

    Source: Llama 3.1's reference implementation; wavelengths above the original context are
    stretched by the factor, those far below it are kept, and between the two it is interpolated.
    """
    rope = _rope(config)
    if rope.get("rope_type") != "llama3":
        return None
    factor, original = rope["factor"], rope["original_max_position_embeddings"]
    low, high = rope["low_freq_factor"], rope["high_freq_factor"]
    found = []
    for index in range(0, config.head_dim, 2):
        turns = original / (2 * math.pi * rope["rope_theta"] ** (index / config.head_dim))
        smooth = min(1.0, max(0.0, (turns - low) / (high - low)))
        found.append(1.0 / ((1.0 - smooth) / factor + smooth))
    return found


def hyperparameters(model: ModelFolder, config: Any) -> Iterator[tuple[str, Any]]:
    """Give the `GGUFWriter.add_*` calls that describe a model, as (what, value).

    Raises:
        ArtefactError: the model computes something that the format cannot say.
    """
    family = family_of(model)
    problems = list(_inexpressible(family, config, model.config))
    if problems:
        raise ArtefactError(
            f"{model.path}: GGUF's {family.arch} cannot say {'; '.join(problems)}",
            hint="export with --to safetensors or --to onnx",
        )
    yield "vocab_size", config.vocab_size
    yield "block_count", config.num_hidden_layers
    yield "context_length", config.max_position_embeddings
    yield "embedding_length", config.hidden_size
    inner = getattr(config, "intermediate_size", None) or getattr(config, "n_inner", None)
    yield "feed_forward_length", inner or 4 * config.hidden_size
    yield "head_count", config.num_attention_heads
    if family.arch in ("GPT2", "BERT"):
        epsilon = config.layer_norm_epsilon if family.arch == "GPT2" else config.layer_norm_eps
        yield "layer_norm_eps", epsilon
    else:
        yield from _decoder_parameters(config)
    if family.arch == "BERT":
        yield "causal_attention", False
        yield "token_type_count", config.type_vocab_size


def _decoder_parameters(config: Any) -> Iterator[tuple[str, Any]]:
    import gguf

    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    yield "head_count_kv", config.num_key_value_heads
    yield "layer_norm_rms_eps", config.rms_norm_eps
    yield "key_length", head_dim
    yield "value_length", head_dim
    yield "rope_dimension_count", head_dim
    rope = _rope(config)
    yield "rope_freq_base", float(rope["rope_theta"])
    local = (config.rope_parameters or {}).get("sliding_attention")
    if local:
        yield "rope_freq_base_swa", float(local["rope_theta"])
    scalings = {"linear": gguf.RopeScalingType.LINEAR, "yarn": gguf.RopeScalingType.YARN}
    if rope["rope_type"] in scalings:
        yield "rope_scaling_type", scalings[rope["rope_type"]]
        yield "rope_scaling_factor", float(rope["factor"])
    if rope["rope_type"] == "yarn":
        original = rope.get("original_max_position_embeddings") or config.max_position_embeddings
        yield "rope_scaling_orig_ctx_len", int(original)
    if _slides(config):
        yield "sliding_window", config.sliding_window
    for key in ("attn_logit_softcapping", "final_logit_softcapping"):
        if getattr(config, key, None):
            yield key, getattr(config, key)


def _inexpressible(family: Family, config: Any, stated: Mapping[str, Any]) -> Iterator[str]:
    """Name what the loader of an architecture would compute otherwise than transformers."""
    named = ("hidden_activation", "hidden_act", "activation_function")
    activation = next((found for key in named if (found := getattr(config, key, None))), None)
    if activation not in family.activations:
        yield f"the activation {activation!r}"
    if stated.get("quantization_config"):
        yield "quantized weights (merge with `--onto full` or `--onto dequantized` first)"
    switches = ("scale_attn_by_inverse_layer_idx", "reorder_and_upcast_attn", "is_decoder")
    for key in (*switches, "use_bidirectional_attention"):
        if getattr(config, key, False):
            yield f"{key}: true"
    if family.arch not in ("GPT2", "BERT"):
        yield from _inexpressible_rope(family, _rope(config))
        yield from _inexpressible_attention(family, config)


def _inexpressible_rope(family: Family, rope: Mapping[str, Any]) -> Iterator[str]:
    kind = rope["rope_type"]
    known = ("default", "linear", "yarn", *(("llama3",) if family.arch == "LLAMA" else ()))
    if kind not in known:
        yield f"rope_type {kind!r}"
    if kind == "yarn" and rope.keys() & {"mscale", "mscale_all_dim"}:
        yield "rope mscale"
    if rope.get("partial_rotary_factor", 1.0) != 1.0:
        yield f"partial_rotary_factor {rope['partial_rotary_factor']}"


def _inexpressible_attention(family: Family, config: Any) -> Iterator[str]:
    head_dim = getattr(config, "head_dim", None)
    scalar = getattr(config, "query_pre_attn_scalar", None)
    if scalar is not None:
        is_27b = config.num_hidden_layers == (46 if family.arch == "GEMMA2" else 62)
        expected = config.hidden_size // config.num_attention_heads if is_27b else head_dim
        if scalar != expected:
            yield f"query_pre_attn_scalar {scalar} (the loader takes {expected})"
    every = {"GEMMA2": 2, "GEMMA3": 6}.get(family.arch)
    kinds = getattr(config, "layer_types", None)
    if every and kinds:
        expected_kinds = [
            "full_attention" if (index + 1) % every == 0 else "sliding_attention"
            for index in range(len(kinds))
        ]
        if kinds != expected_kinds:
            yield f"layer_types other than one full_attention in {every}"
    elif kinds and "sliding_attention" in kinds and config.model_type.startswith("qwen"):
        yield "use_sliding_window: true"


def _slides(config: Any) -> bool:
    return bool(getattr(config, "sliding_window", None)) and config.model_type.startswith("gemma")


def limits(model: ModelFolder, config: Any) -> list[str]:
    """Say what the loader leaves out without harm to most uses."""
    notes = [family_of(model).note] if family_of(model).note else []
    window = getattr(config, "sliding_window", None)
    if model.model_type == "mistral" and window and window < config.max_position_embeddings:
        notes.append(
            f"beyond {window} tokens llama.cpp attends to all of them, not to a window of {window}"
        )
    return notes


def _rope(config: Any) -> dict[str, Any]:
    """Return the rotary settings of full attention, which newer configs keep per kind of layer."""
    parameters = getattr(config, "rope_parameters", None) or {}
    rope: dict[str, Any] = parameters.get("full_attention", parameters)
    return {"rope_type": "default", **rope}
