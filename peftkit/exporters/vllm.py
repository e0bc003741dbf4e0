"""vLLM: an adapter that its server loads and applies as it was trained."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peftkit.adapters.continued import adapter_folder, load_adapter
from peftkit.errors import ArtefactError
from peftkit.exporters.adapter_factors import (
    EXACT,
    LayerFactors,
    brought_whole,
    layer_factors,
    lost,
)
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

_LARGEST_LOADED = 1 << 30
"""Bytes of a base's weights up to which logits are compared."""


@dataclass(frozen=True)
class VllmOptions:
    """Describe the server, and how close the adapter must stay."""

    max_lora_rank: Rank = 16
    """The server's `--max-lora-rank`."""
    max_error: float = 0.05
    """Largest loss of an adapter that is factored by SVD, relative to its whole change (RMS)."""


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
        most = self.config.max_lora_rank
        layers = [layer_factors(opened, name, most) for name in opened.changes]
        rank = max(layer.factors.rank for layer in layers)
        _write(out, layers, rank, opened.config)
        copy_companions(folder, out)
        is_lossy = any(layer.is_factored for layer in layers)
        tolerance = self.config.max_error if is_lossy else EXACT
        proofs = [lost(layers, tolerance)]
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
            replaced=brought_whole(opened),
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


def _tensors(layer: LayerFactors, rank: int) -> dict[str, Tensor]:
    """Return a layer's tensors as PEFT names them, filled up to a rank."""
    factors, name = layer.factors.padded(rank), f"{PEFT_PREFIX}{layer.module}"
    if layer.is_embedding:  # its factors are those of the transposed weight
        return {
            f"{name}.lora_embedding_A": factors.left.T.contiguous(),
            f"{name}.lora_embedding_B": factors.right.T.contiguous(),
        }
    return {
        f"{name}.lora_A.weight": factors.right.contiguous(),
        f"{name}.lora_B.weight": factors.left.contiguous(),
    }


def _write(out: Path, layers: Sequence[LayerFactors], rank: int, config: Mapping[str, Any]) -> None:
    """Write a LoRA of one rank and scale 1, which is all that vLLM reads."""
    from safetensors.torch import save_file

    weights = {name: some for layer in layers for name, some in _tensors(layer, rank).items()}
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
