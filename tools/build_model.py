"""Make an embedded model of a finished pretraining run: weights in bfloat16, card, receipt.

python tools/build_model.py runs/pretrain-docstring-lm peftkit/embedded/docstring-lm
"""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
from pathlib import Path
from typing import Any

from peftkit.rundir.checkpoints import read_metrics
from peftkit.rundir.paths import RunDir, write_atomically, write_json

KEPT = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja")
NUM_POINTS = 50
"""Points of the loss curve that the receipt keeps."""

CARD = """\
---
license: apache-2.0
library_name: transformers
pipeline_tag: text-generation
language: en
tags: [peftkit, {model_type}]
---

# {name}

A {model_type} of {num_parameters:,} parameters for trying things out with no network and no GPU. It
was pretrained from random weights by `recipes/{recipe}.yaml` on docstrings of Python packages
under permissive licences, which NOTICE names, and knows nothing else: it continues documentation,
and a fine-tuning of seconds teaches it to do something with it. It is no use as an assistant.

- Trained on {num_tokens:,} tokens in {hours:.1f} h on {device}; final loss {final_loss:.3f}.
- Loss on packages that it never saw: {validation}.
- Context {context} tokens, byte-level BPE of {vocab_size:,} tokens, weights in bfloat16.
- Chat template: one turn per role token; only the assistant's words are trained on.
- `receipt.json` holds versions, data fingerprint, loss curve and the sha256 of the weights;
  `benchmarks/bits_per_byte.py` compares it with `xz -9` on text of packages never seen.

The docstrings are what people wrote in public code; nothing was filtered for bias or accuracy.
"""


def build(run: RunDir, folder: Path) -> dict[str, Any]:
    """Write the model's folder and return its receipt.

    Raises:
        ArtefactError: the run has no trained model, or no measurement of it.
    """
    import torch
    from transformers import AutoModelForCausalLM

    measured = run.read_json(run.measured)
    folder.mkdir(parents=True, exist_ok=True)
    model = AutoModelForCausalLM.from_pretrained(run.model, dtype=torch.bfloat16)
    model.save_pretrained(folder)
    for name in KEPT:
        shutil.copyfile(run.model / name, folder / name)
    receipt = _receipt(run, measured, folder / "model.safetensors")
    write_json(folder / "receipt.json", receipt)
    write_atomically(folder / "README.md", _card(folder, measured, receipt))
    return receipt


def _receipt(run: RunDir, measured: dict[str, Any], weights: Path) -> dict[str, Any]:
    """Gather what proves where the weights come from."""
    lines = read_metrics(run.metrics)
    losses = [(line["step"], round(line["loss"], 4)) for line in lines if "loss" in line]
    validation = [line["eval_loss"] for line in lines if "eval_loss" in line]
    versions = run.read_json(run.versions)
    return {
        "recipe_sha256": hashlib.sha256(run.recipe.read_bytes()).hexdigest(),
        "data_fingerprint": run.read_json(run.data)["fingerprint"],
        "weights_sha256": hashlib.sha256(weights.read_bytes()).hexdigest(),
        "versions": {"python": versions["python"], **versions["packages"]},
        "measured": {k: v for k, v in measured.items() if k != "schema_version"},
        "validation_loss": validation[-1] if validation else None,
        "losses": losses[:: max(1, len(losses) // NUM_POINTS)],
    }


def _card(folder: Path, measured: dict[str, Any], receipt: dict[str, Any]) -> str:
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    validation = receipt["validation_loss"]
    return CARD.format(
        name=folder.name,
        recipe=f"pretrain-{folder.name}",
        model_type=config["model_type"],
        num_parameters=measured["num_parameters"],
        num_tokens=measured["num_tokens"],
        hours=measured["train_seconds"] / 3600,
        device=measured["device"],
        final_loss=measured["final_loss"],
        validation="not measured" if validation is None else f"{validation:.3f} nats a token",
        context=config["max_position_embeddings"],
        vocab_size=config["vocab_size"],
    )


if __name__ == "__main__":
    build(RunDir(Path(sys.argv[1])), Path(sys.argv[2]))
