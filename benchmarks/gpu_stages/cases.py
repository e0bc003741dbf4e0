"""What is trained on the card: models of real families with random weights, rows from a seed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peftkit.benching.grid import Cell

if TYPE_CHECKING:
    from datasets import Dataset

    from gpu_stages.bench import Setting
    from peftkit.plugins import Machine
    from peftkit.recipe.build import Built
    from peftkit.recipe.schema import Recipe

MODELS: Mapping[str, str] = {
    "0.5b": "Qwen/Qwen2.5-0.5B",
    "1b": "meta-llama/Llama-3.2-1B",
    "3b": "meta-llama/Llama-3.2-3B",
    "8b": "meta-llama/Llama-3.1-8B",
}
"""A size -> whose shapes are taken; smallest first."""
TINY: Mapping[str, Any] = {
    "model_type": "llama", "dtype": "float32", "vocab_size": 8192, "hidden_size": 64,
    "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 4096, "tie_word_embeddings": False,
}  # fmt: skip
"""What a dry run takes for every one of them."""

_LORA = {"lora": {"r": 16, "lora_alpha": 32, "target_modules": "all-linear"}}
_DORA = {"lora": {**_LORA["lora"], "use_dora": True}}
_KEPT: Mapping[str, Any] = {"activation_checkpointing": False}


def _nf4(computed: str, *, double: bool = True) -> dict[str, Any]:
    return {
        "bitsandbytes": {
            "load_in_4bit": True,
            "bnb_4bit_quant_type": "nf4",
            "bnb_4bit_use_double_quant": double,
            "bnb_4bit_compute_dtype": computed,
        }
    }


def sections(
    adapter: Any = _LORA, *, quantize: Mapping[str, Any] | None = None, **sft: Any
) -> dict[str, Any]:
    """Write the sections of a method: bfloat16, activations recomputed as trl has it by default."""
    model = {"dtype": "bfloat16", **({"quantize": dict(quantize)} if quantize else {})}
    return {"model": model, "adapter": adapter, "method": {"sft": sft}}


METHODS: Mapping[str, Mapping[str, Any]] = {
    "lora": sections(),
    "lora-kept": sections(**_KEPT),
    "lora-kept-packed": sections(packing=True, **_KEPT),
    "lora-packed": sections(packing=True),
    "dora": sections(_DORA),
    "qlora": sections(quantize=_nf4("bfloat16")),
    "qlora-kept": sections(quantize=_nf4("bfloat16"), **_KEPT),
    "qlora-kept-packed": sections(quantize=_nf4("bfloat16"), packing=True, **_KEPT),
    "qlora-float32-kept-packed": sections(quantize=_nf4("float32"), packing=True, **_KEPT),
    "qlora-paged": sections(quantize=_nf4("bfloat16"), optim="paged_adamw_8bit"),
    "lora-int8": sections(quantize={"bitsandbytes": {"load_in_8bit": True}}),
    "full": sections("full"),
    "full-kept-packed": sections("full", packing=True, optim="adamw_torch_fused", **_KEPT),
    "full-8bit": sections("full", optim="adamw_8bit"),
    "full-paged": sections("full", optim="paged_adamw_8bit"),
}
"""A name -> what of a recipe it stands for; `kept` recomputes no activations."""


@dataclass(frozen=True)
class Case:
    """Hold one training to plan and to measure."""

    model: str
    """A key of `MODELS`, or `tiny`."""
    method: str
    """A key of `METHODS`."""
    length: int
    """Tokens a row, or of a block that documents are packed into."""
    micro_batch: int = 1
    num_steps: int = 3
    """Steps that are measured, after one that warms up."""
    overrides: tuple[str, ...] = field(default=())
    """`a.b=value` each, as on the command line."""

    @property
    def name(self) -> str:
        """Name the case, and its files."""
        return f"{self.model}_{self.method}_{self.length}x{self.micro_batch}"

    @property
    def packs(self) -> bool:
        """Tell whether rows are blocks of documents."""
        return bool(METHODS[self.method]["method"]["sft"].get("packing"))

    def to_json(self) -> dict[str, Any]:
        """Return plain data that `from_json` reads."""
        return asdict(self)

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Case:
        """Undo `to_json`."""
        return cls(**{**content, "overrides": tuple(content["overrides"])})

    @property
    def cell(self) -> Cell:
        """Return what `peftkit.benching` trains."""
        return Cell(
            grid="gpu",
            model=self.model,
            method=self.method,
            config=config_of(self.model),
            sections=METHODS[self.method],
            length=self.length,
            micro_batch=self.micro_batch,
            gpu_gib=None,
            edge=None,
            num_steps=self.num_steps,
            seed=0,
        )


def config_of(model: str) -> dict[str, Any]:
    """Return a model's `config.json`."""
    from peftkit.memory import catalogue

    if model == "tiny":
        return dict(TINY)
    found = catalogue.find(MODELS[model])
    if found is None:
        raise ValueError(f"{MODELS[model]} is not in the catalogue")
    return found


def write_recipe(case: Case, folder: Path) -> Recipe:
    """Write a case's recipe and its model's config into a folder, and load it."""
    from peftkit.recipe.load import load_recipe

    folder.mkdir(parents=True, exist_ok=True)
    cell, file = case.cell, folder / "recipe.yaml"
    (folder / "config.json").write_text(json.dumps(dict(cell.config)), encoding="utf-8")
    file.write_text(cell.recipe_text(folder), encoding="utf-8")
    return load_recipe(file, case.overrides)


def document_lengths(case: Case) -> list[int]:
    """Return the tokens of every document or row that a case's steps need."""
    num_rows = case.micro_batch * (case.num_steps + 1)
    if not case.packs:
        return [case.length] * num_rows
    import numpy as np

    # A block more than needed: packed first-fit, the last ones are not full.
    draw, wanted = np.random.default_rng(1), case.length * (num_rows + 1)
    drawn = draw.integers(max(2, case.length // 16), case.length // 2, size=32 * (num_rows + 1))
    needed = int(np.searchsorted(np.cumsum(drawn), wanted)) + 1
    return [int(length) for length in drawn[:needed]]


def rows_of(case: Case, built: Built) -> Dataset:
    """Draw a case's rows, every token trained, packed by the method itself where it packs."""
    import numpy as np
    from datasets import Dataset

    draw, vocabulary = np.random.default_rng(0), int(case.cell.config["vocab_size"])
    ids = [draw.integers(vocabulary, size=n).tolist() for n in document_lengths(case)]
    rows = Dataset.from_dict({"input_ids": ids, "labels": ids})
    if not case.packs:
        return rows
    packed = built.method.arrange(rows, _tokenizer())
    num_rows = case.micro_batch * (case.num_steps + 1)
    # The fullest blocks: a step on the rest of the documents would take less than was planned.
    fullest = sorted(range(len(packed)), key=lambda at: -len(packed[at]["input_ids"]))
    return packed.select(sorted(fullest[:num_rows]))


def build_base(built: Built, machine: Machine, folder: Path) -> Any:
    """Build a recipe's base on the device, random and quantized, with nothing attached yet."""
    from transformers import AutoConfig

    from peftkit.benching.random_weights import fill_with_random
    from peftkit.memory.fake import build_skeleton

    skeleton = build_skeleton(
        AutoConfig.from_pretrained(str(folder)),
        built.recipe.model,
        kind=built.method.kind,
        quantizer=built.quantizer,
        adapter=None,
    )
    fill_with_random(skeleton.model, device=machine.device, seed=0, storage=skeleton.storage)
    return skeleton.model


def draw_adapter(model: Any) -> None:
    """Draw what an adapter trains from each tensor's own name, so that two programs begin alike."""
    import zlib

    import torch

    for name, parameter in model.named_parameters():
        if parameter.requires_grad and "lora_" in name and parameter.dim() == 2:
            seed = zlib.crc32(name.encode())
            draw = torch.Generator(parameter.device).manual_seed(seed)
            with torch.no_grad():
                parameter.normal_(std=0.02, generator=draw)


def _tokenizer() -> Any:
    from transformers import AutoTokenizer

    from peftkit.embedded import model_path

    return AutoTokenizer.from_pretrained(str(model_path("docstring-lm")))


def largest_that_fits(setting: Setting, peaks: Mapping[str, int]) -> str | None:
    """Return the largest model whose planned peak is free on the card; None where none is.

    Args:
        peaks: a size of `MODELS` -> the planned peak.
    """
    fitting = [size for size in MODELS if peaks.get(size, 1 << 62) <= setting.machine.free_bytes]
    return fitting[-1] if fitting else None
