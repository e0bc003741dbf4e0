"""vLLM: an adapter that its server loads and applies as it was trained."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peftkit.adapters.continued import adapter_folder, load_adapter
from peftkit.errors import ArtefactError
from peftkit.exporters.low_rank import Factors, factor
from peftkit.exporters.model_folder import (
    copy_companions,
    load_model,
    load_tokenizer,
    stop_ids,
)
from peftkit.exporters.vllm_lint import CONFIG, WEIGHTS, Finding, Rank, lint
from peftkit.merging.adapter import OpenedAdapter, open_adapter
from peftkit.merging.folder import model_config
from peftkit.merging.weights_io import open_checkpoint
from peftkit.models.logit_parity import compare, head_outputs, token_rows
from peftkit.plugins import Exporter
from peftkit.plugins.exported import Exported, Proof, Trained
from peftkit.system.checkpoint_files import PEFT_PREFIX

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

_EMBEDDINGS = ("embed_tokens", "wte", "word_embeddings")
_LARGEST_LOADED = 1 << 30
"""Bytes of a base's weights up to which logits are compared."""
_EXACT = 1e-5
"""What rounding to float32 may make of an exact conversion, relative."""


@dataclass(frozen=True)
class VllmOptions:
    """Describe the server, and how close the adapter must stay."""

    max_lora_rank: Rank = 16
    """The server's `--max-lora-rank`."""
    max_error: float = 0.05
    """Largest loss of an adapter that is factored by SVD, relative to its whole change (RMS)."""


@dataclass(frozen=True)
class _Layer:
    """Hold one layer's factors, and how far their product is from the trained change."""

    module: str
    factors: Factors
    squared_error: float
    squared_size: float
    is_embedding: bool
    is_factored: bool
    """Whether the factors are not the trained ones."""

    def tensors(self, rank: int) -> dict[str, Tensor]:
        """Return the layer's tensors as PEFT names them, filled up to a rank."""
        factors, name = self.factors.padded(rank), f"{PEFT_PREFIX}{self.module}"
        if self.is_embedding:  # its factors are those of the transposed weight
            return {
                f"{name}.lora_embedding_A": factors.left.T.contiguous(),
                f"{name}.lora_embedding_B": factors.right.T.contiguous(),
            }
        return {
            f"{name}.lora_A.weight": factors.right.contiguous(),
            f"{name}.lora_B.weight": factors.left.contiguous(),
        }


class Vllm(Exporter):
    """Write adapter_config.json and adapter_model.safetensors as vLLM takes them."""

    Config = VllmOptions
    reads = "adapter"

    def export(self, trained: Trained, out: Path) -> Exported:
        """Look for what vLLM refuses or ignores, and write the adapter without it."""
        folder, base = adapter_folder(trained.folder), Path(trained.base or "")
        config = model_config(base)
        opened = open_adapter(folder, open_checkpoint(base), model_config=config)
        findings = self._lint(opened, config)
        layers = [self._layer(opened, name) for name in opened.changes]
        rank = max(layer.factors.rank for layer in layers)
        _write(out, layers, rank, opened.config)
        copy_companions(folder, out)
        is_lossy = any(layer.is_factored for layer in layers)
        tolerance = self.config.max_error if is_lossy else _EXACT
        proofs = [_loss(layers, tolerance)]
        notes = [str(finding) for finding in findings]
        if opened.base.num_bytes <= _LARGEST_LOADED:
            proofs.append(_compare_logits(base, folder, out, trained.texts, tolerance))
        else:
            notes.append("the base is above 1 GiB: logits were not compared, only the weights")
        notes.append(
            f"vllm serve BASE --enable-lora --max-lora-rank {self.config.max_lora_rank}"
            f" --lora-modules {trained.name}=DIR"
        )
        notes += _ends(folder, base)
        return Exported(tuple(sorted(out.iterdir())), tuple(proofs), tuple(notes))

    def _lint(self, opened: OpenedAdapter, base_config: Mapping[str, Any]) -> list[Finding]:
        """Return what is written differently; refuse what cannot be served, all at once."""
        shapes = {name: tensor.shape for name, tensor in opened.tensors.items()}
        findings = lint(
            opened.config,
            shapes,
            replaced=[name for name in opened.replaced if _differs(opened, name)],
            max_lora_rank=self.config.max_lora_rank,
            is_encoder_decoder=bool(base_config.get("is_encoder_decoder")),
        )
        refusals = [finding for finding in findings if finding.is_refusal]
        refusals += [
            Finding(WEIGHTS, name, "vLLM has LoRA for matrices only", "--to safetensors", True)
            for name in opened.changes
            if len(opened.base.tensors[name].shape) != 2
        ]
        if not opened.changes:
            raise ArtefactError(
                f"{opened.folder}: no layer's weight is changed, so vLLM would serve the base"
            )
        if refusals:
            lines = "\n".join(f"  {finding}" for finding in refusals)
            raise ArtefactError(
                f"{opened.folder}: vLLM cannot serve this adapter\n{lines}",
                hint="peftkit export RUN --to safetensors, and serve the whole model",
            )
        return findings

    def _layer(self, opened: OpenedAdapter, name: str) -> _Layer:
        """Take a layer's own factors where they are its change and fit; factor its change else."""
        import torch

        module = name.removesuffix(".weight")
        change = torch.from_numpy(opened.delta(name))
        size = float((change**2).sum())
        factors = _own_factors(opened, module)
        error = factors.squared_error(change) if factors is not None else float("inf")
        fits = factors is not None and factors.rank <= self.config.max_lora_rank
        is_factored = not fits or error > size * _EXACT**2
        if factors is None or is_factored:
            factors = factor(change, self.config.max_lora_rank)
            error = factors.squared_error(change)
        is_embedding = module.rpartition(".")[2] in _EMBEDDINGS
        return _Layer(module, factors, error, size, is_embedding, is_factored)


def _ends(folder: Path, base: Path) -> list[str]:
    """Say how the server learns where answers end, which it reads from the base alone."""
    if not (folder / "tokenizer_config.json").is_file():
        return []
    taught = stop_ids(folder, load_tokenizer(folder))
    missing = set(taught) - set(stop_ids(base, load_tokenizer(base)))
    if not missing:
        return []
    return [
        f"the base does not stop at the tokens {', '.join(map(str, sorted(missing)))}, where this"
        " adapter's answers end: add --generation-config DIR, or stop_token_ids to each request"
    ]


def _differs(opened: OpenedAdapter, name: str) -> bool:
    """Tell whether a tensor that the adapter brings whole is another one than the base's."""
    old, new = opened.base.tensors.get(name), opened.replaced[name]
    return old is None or old.shape != new.shape or bool((opened.delta(name) != 0).any())


def _own_factors(opened: OpenedAdapter, module: str) -> Factors | None:
    """Return a LoRA layer's factors, its scale folded into one; None where it has none."""
    named = {name.removeprefix(PEFT_PREFIX): tensor.name for name, tensor in opened.tensors.items()}
    plain = [named.get(f"{module}.lora_{part}.weight") for part in "AB"]
    embedded = [named.get(f"{module}.lora_embedding_{part}") for part in "AB"]
    first, second = plain if plain[0] else embedded
    if first is None or second is None:
        return None
    right, left = _read(opened, first), _read(opened, second)
    left = left * _scale(opened.config, module, right.shape[0])
    return Factors(right, left) if plain[0] else Factors(left.T, right.T)


def _scale(config: Mapping[str, Any], module: str, rank: int) -> float:
    """Return what PEFT multiplies a layer's product with."""
    patterns: Mapping[str, Any] = config.get("alpha_pattern") or {}
    matching = (key for key in patterns if re.match(rf"(.*\.)?({key})$", module))
    alpha = float(patterns.get(next(matching, ""), config.get("lora_alpha", 8)))
    return alpha / (rank**0.5 if config.get("use_rslora") else rank)


def _read(opened: OpenedAdapter, name: str) -> Tensor:
    from safetensors import safe_open

    with safe_open(opened.tensors[name].file, framework="pt") as stream:
        tensor: Tensor = stream.get_tensor(name)
    return tensor.float()


def _write(out: Path, layers: list[_Layer], rank: int, config: Mapping[str, Any]) -> None:
    """Write a LoRA of one rank and scale 1, which is all that vLLM reads."""
    from safetensors.torch import save_file

    weights = {name: some for layer in layers for name, some in layer.tensors(rank).items()}
    save_file(weights, out / WEIGHTS, metadata={"format": "pt"})
    content = {
        "peft_type": "LORA",
        "task_type": config.get("task_type"),
        "base_model_name_or_path": config.get("base_model_name_or_path"),
        "revision": config.get("revision"),
        "r": rank,
        "lora_alpha": rank,
        "target_modules": sorted({layer.module for layer in layers}),
        "bias": "none",
        "inference_mode": True,
    }
    (out / CONFIG).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _loss(layers: list[_Layer], tolerance: float) -> Proof:
    lost = sum(layer.squared_error for layer in layers)
    whole = sum(layer.squared_size for layer in layers)
    ratios = {
        layer.module: (layer.squared_error / layer.squared_size) ** 0.5
        for layer in layers
        if layer.squared_size
    }
    worst = max(ratios, key=lambda module: ratios[module], default="")
    detail = (
        f"lost of the change of {len(layers)} layers, relative (RMS); most in {worst}:"
        f" {ratios.get(worst, 0.0):.3g}"
    )
    return Proof("weights", (lost / whole) ** 0.5 if whole else float("inf"), tolerance, detail)


def _compare_logits(
    base: Path, trained: Path, out: Path, texts: tuple[str, ...], tolerance: float
) -> Proof:
    """Compare base + adapter with base + what was written, both by plain PEFT."""
    reference = load_model(base, dtype="float32")
    tokenizer = load_tokenizer(trained if (trained / "tokenizer.json").is_file() else base)
    rows = token_rows(tokenizer, texts, vocab_size=reference.get_input_embeddings().num_embeddings)
    wanted = _logits(load_adapter(reference, trained, is_trainable=False), rows)
    found = _logits(load_adapter(load_model(base, dtype="float32"), out, is_trainable=False), rows)
    gap = compare(wanted, found)
    detail = f"error over logits (RMS), against base + adapter: {gap}"
    return Proof("logits", gap.relative_rms, max(tolerance, 1e-4), detail)


def _logits(model: PreTrainedModel, rows: list[list[int]]) -> list[Tensor]:
    return [values for row in rows for values in head_outputs(model, row)]
