"""Make an embedded model of a finished pretraining run: weights, card, receipt.

    python tools/build_model.py runs/pretrain-lm peftkit/embedded/docstring-lm
    python tools/build_model.py runs/pretrain-bert peftkit/embedded/docstring-bert
    python tools/build_model.py runs/pretrain-seq2seq peftkit/embedded/catalogue-seq2seq

A decoder's weights are rounded to bfloat16; those of an encoder alone, which are few, stay float32.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import yaml

from peftkit.rundir.metrics import read_metrics
from peftkit.rundir.paths import RunDir, write_atomically, write_json

KEPT = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja")
DOCSTRINGS = "docstrings of Python packages"
TAGS = {"ForCausalLM": "text-generation", "ForConditionalGeneration": "translation"}
"""How the name of a class ends -> what the model does."""
NUM_POINTS = 50
"""Points of the loss curve that the receipt keeps."""

HEAD = """\
---
license: apache-2.0
library_name: transformers
pipeline_tag: {pipeline_tag}
language: {language}
tags: [peftkit, {model_type}]
---

# {name}

A {model_type} of {num_parameters:,} parameters for trying things out with no network and no GPU. It
was pretrained from random weights by `recipes/{recipe}.yaml` on {texts}
under permissive licences, which NOTICE names, and knows nothing else: {knows}

- Trained on {num_tokens:,} tokens in {hours:.1f} h on {device}; final loss {final_loss:.3f}.
"""
TAIL = """
The texts are what people wrote in public code; nothing was filtered for bias or accuracy.
"""
DECODER = """\
- Loss on packages that it never saw: {validation}.
- Context {context} tokens, byte-level BPE of {vocab_size:,} tokens, weights in bfloat16.
- Chat template: one turn per role token; only the assistant's words are trained on.
- `receipt.json` holds versions, data fingerprint, loss curve and the sha256 of the weights;
  `benchmarks/bits_per_byte.py` compares it with `xz -9` on text of packages never seen.
"""
SEQ2SEQ = """\
- Loss on messages that it never saw in that language: {validation}.
- Context {context} tokens, byte-level BPE of {vocab_size:,} tokens, weights in bfloat16.
- No chat template: the source is `Translate to es.`, an empty line and the text.
- `receipt.json` holds versions, data fingerprint, loss curve and the sha256 of the weights.
"""
ENCODER = """\
- On {num_rows:,} texts of packages that it never saw: masked words {mlm_accuracy:.3f} right (loss
  {mlm_loss:.3f} nats), next sentences {nsp_accuracy:.3f}.
{notes}
- Context {context} tokens, WordPiece of {vocab_size:,} tokens in lower case, weights in float32.
- `receipt.json` holds versions, data fingerprint, loss curve, scores and the sha256 of the weights.
"""
KNOWS = {
    "text-generation": "it continues documentation,\n"
    "and a fine-tuning of seconds teaches it to do something with it. It is no use as an"
    " assistant.",
    "translation": "it turns\n"
    "an English message of a web program into Spanish, Brazilian Portuguese or Catalan, roughly.\n"
    "A fine-tuning of a minute teaches it another language, or another kind of text.",
    "fill-mask": "it fills in masked\n"
    "words and tells whether a sentence follows. A fine-tuning makes it a classifier or a reader.",
}


def build(run: RunDir, folder: Path) -> dict[str, Any]:
    """Write the model's folder and return its receipt.

    Raises:
        ArtefactError: the run has no trained model, or no measurement of it.
    """
    import torch
    import transformers

    measured = run.read_json(run.measured)
    folder.mkdir(parents=True, exist_ok=True)
    (architecture,) = transformers.AutoConfig.from_pretrained(run.model).architectures
    is_small = architecture.endswith(("ForCausalLM", "ForConditionalGeneration"))
    dtype = torch.bfloat16 if is_small else torch.float32
    model = getattr(transformers, architecture).from_pretrained(run.model, dtype=dtype)
    model.save_pretrained(folder)
    (folder / "model.safetensors").chmod(0o644)  # safetensors lets nobody else read it
    for name in KEPT:
        if (run.model / name).is_file():
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
        "recipe_sha256": recipe_digest(run.recipe),
        "data_fingerprint": run.read_json(run.data)["fingerprint"],
        "weights_sha256": hashlib.sha256(weights.read_bytes()).hexdigest(),
        "versions": {"python": versions["python"], **versions["packages"]},
        "measured": {k: v for k, v in measured.items() if k != "schema_version"},
        "validation_loss": validation[-1] if validation else None,
        **({"scores": run.read_json(run.scores)} if run.scores.is_file() else {}),
        "losses": losses[:: max(1, len(losses) // NUM_POINTS)],
    }


def recipe_digest(recipe: Path) -> str:
    """Return the sha256 of what a recipe says, whatever its name and its comments."""
    content = yaml.safe_load(recipe.read_text(encoding="utf-8"))
    del content["name"]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _card(folder: Path, measured: dict[str, Any], receipt: dict[str, Any]) -> str:
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    architecture = config["architectures"][0]
    tag = next((tag for end, tag in TAGS.items() if architecture.endswith(end)), "fill-mask")
    validation, scores = receipt["validation_loss"], receipt.get("scores", {})
    notes = "\n".join(f"- {note}" for note in scores.get("notes", ()))
    measures = {"text-generation": DECODER, "translation": SEQ2SEQ, "fill-mask": ENCODER}[tag]
    is_catalogue = tag == "translation"
    return (HEAD + measures + TAIL).format(
        texts="message catalogues of web programs" if is_catalogue else DOCSTRINGS,
        language="[en, es, pt, ca]" if is_catalogue else "en",
        name=folder.name,
        pipeline_tag=tag,
        knows=KNOWS[tag],
        recipe=f"pretrain-{folder.name.rpartition('-')[2]}",
        model_type=config["model_type"],
        num_parameters=measured["num_parameters"],
        num_tokens=measured["num_tokens"],
        hours=measured["train_seconds"] / 3600,
        device=measured["device"],
        final_loss=measured["final_loss"],
        validation="not measured" if validation is None else f"{validation:.3f} nats a token",
        context=config["max_position_embeddings"],
        vocab_size=config["vocab_size"],
        num_rows=scores.get("num_rows", 0),
        notes=notes,
        **scores.get("tuned", {}),
    )


if __name__ == "__main__":
    build(RunDir(Path(sys.argv[1])), Path(sys.argv[2]))
