"""What vLLM does with each field and tensor of an adapter: serves it, ignores it, or refuses it.

Source: vLLM's `lora/peft_helper.py`, `config/lora.py` and `lora/lora_model.py`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from peftkit.adapters.lora_starts import moved_by

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
Rank = Literal[1, 8, 16, 32, 64, 128, 256, 320, 512]
"""What `--max-lora-rank` may be."""
_LORA = (".lora_A.weight", ".lora_B.weight", ".lora_embedding_A", ".lora_embedding_B")
_VOCABULARY = ("embed_tokens", "lm_head")


@dataclass(frozen=True)
class Finding:
    """Say what is wrong with one field or tensor for vLLM."""

    file: str
    field: str
    problem: str
    remedy: str
    is_refusal: bool
    """Whether nothing but another model helps; otherwise the export writes it differently."""

    def __str__(self) -> str:
        return f"{self.file}  {self.field}  {self.problem}; {self.remedy}"


def lint(
    config: Mapping[str, Any],
    shapes: Mapping[str, tuple[int, ...]],
    *,
    replaced: Sequence[str],
    max_lora_rank: int,
    is_encoder_decoder: bool = False,
) -> list[Finding]:
    """Name everything that vLLM would refuse, or ignore without a word.

    Args:
        config: `adapter_config.json`.
        shapes: the adapter's tensors.
        replaced: base tensors that the adapter replaces as a whole, and that really differ.
        max_lora_rank: of the server.
        is_encoder_decoder: what the base is, whatever task the adapter names.
    """
    return [
        *([_NO_ENCODERS] if is_encoder_decoder else []),
        *_fields(config),
        *_replaced(config, replaced),
        *_ranks(config, shapes, max_lora_rank),
    ]


def _fields(config: Mapping[str, Any]) -> Iterator[Finding]:
    method = config.get("peft_type")
    if method != "LORA":
        yield _mend("peft_type", f"vLLM serves LORA only, not {method}", "factored by SVD")
        return
    if config.get("use_dora"):
        yield _mend("use_dora", "vLLM serves no DoRA", "factored by SVD")
    if config.get("use_rslora"):
        yield _mend("use_rslora", "the scale depends on the rank", "the scale goes into lora_B")
    for field in ("rank_pattern", "alpha_pattern"):
        if config.get(field):
            yield _mend(
                field, "vLLM ignores it and scales every layer alike", "the scale goes into lora_B"
            )
    if (option := moved_by(config)) is not None:
        yield _mend(
            option, "its start took a part of the base's own weights",
            "the change from the base is factored by SVD",
        )  # fmt: skip
    if config.get("fan_in_fan_out"):
        yield _refuse("fan_in_fan_out", "vLLM has no LoRA for layers that store (in, out)")
    if config.get("target_parameters"):
        yield _refuse("target_parameters", "a LoRA on stacked parameters has no form in vLLM")
    if config.get("trainable_token_indices"):
        yield _refuse("trainable_token_indices", "vLLM has no place for single tokens' embeddings")


def _replaced(config: Mapping[str, Any], replaced: Sequence[str]) -> Iterator[Finding]:
    modules = [str(name) for name in config.get("modules_to_save") or ()]
    told: set[str] = set()
    for name in replaced:
        module = name.rpartition(".")[0]
        if any(module.endswith(saved) for saved in modules):
            if module not in told:
                yield _refuse("modules_to_save", f"vLLM serves no whole module ({module})")
            told.add(module)
        elif name.endswith(".bias"):
            field = "lora_bias" if config.get("lora_bias") else "bias"
            yield _refuse(field, f"vLLM serves no trained bias ({name})")
        elif any(part in module for part in _VOCABULARY):
            yield _refuse(
                "vocabulary", f"vLLM serves no resized or replaced vocabulary ({name})", WEIGHTS
            )
        else:
            yield _refuse(name, "vLLM serves no whole tensor of an adapter", WEIGHTS)
    if modules and not replaced:
        yield _mend(
            "modules_to_save", f"vLLM refuses the field; {modules} are the base's", "left out"
        )


def _ranks(
    config: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]], max_lora_rank: int
) -> Iterator[Finding]:
    found = {rank for name, shape in shapes.items() if (rank := rank_of(name, shape)) is not None}
    rank = max(found, default=0)
    if config.get("peft_type") == "LORA" and rank > max_lora_rank:
        yield _mend(
            "r",
            f"rank {rank} is above the server's --max-lora-rank {max_lora_rank}",
            f"factored to rank {max_lora_rank} by SVD; max_lora_rank={_fitting(rank)} has room",
        )
    ends = sorted({part for name in shapes for part in _VOCABULARY if f".{part}.lora_" in name})
    if ends:
        yield _mend(
            "target_modules",
            f"vLLM takes a LoRA on {' and '.join(ends)} from some architectures only"
            " (those with embedding_modules)",
            "written as it is",
        )


def rank_of(name: str, shape: tuple[int, ...]) -> int | None:
    """Return the rank of a LoRA's first factor; None for any other tensor."""
    return shape[0] if name.endswith((_LORA[0], _LORA[2])) else None


def _fitting(rank: int) -> int:
    allowed = (1, 8, 16, 32, 64, 128, 256, 320, 512)
    return next((size for size in allowed if size >= rank), allowed[-1])


def _mend(field: str, problem: str, remedy: str) -> Finding:
    return Finding(CONFIG, field, problem, remedy, is_refusal=False)


def _refuse(field: str, problem: str, file: str = CONFIG) -> Finding:
    remedy = "serve the whole model: --to safetensors"
    return Finding(file, field, problem, remedy, is_refusal=True)


_NO_ENCODERS = _refuse(
    "is_encoder_decoder", "vLLM has no LoRA for encoder-decoders", "the base's config.json"
)
