"""Compare the embedded model with `xz -9` on text that neither has seen: bits per byte.

    python benchmarks/bits_per_byte.py            score the shipped text, write the result
    python benchmarks/bits_per_byte.py build RECIPE FOLDER
                                                  write that text from the recipe's test packages

The text is an even choice of documents, at most 100 kB from each test package, each document
followed by one NUL byte. The model reads the NUL as its end-of-text token and pays for it.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import lzma
import math
import os
import platform
import sys
import time
from collections import defaultdict
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peftkit import embedded

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

HERE = Path(__file__).parent
TEXT = HERE / "data" / "docstring-test.txt.gz"
RESULT = HERE / "results" / "bits_per_byte.json"
END = "\0"
MAX_BYTES_PER_PACKAGE = 100_000
WINDOW = 512
STRIDE = 256
"""Every token but the first 256 is predicted from at least 256 before it."""


def choose(texts: list[str], max_bytes: int) -> list[str]:
    """Choose documents at an even stride, in their order, up to a size in bytes."""
    total = sum(len(text.encode()) + 1 for text in texts)
    stride = math.ceil(total / max_bytes)
    return texts[::stride]


def build(recipe: Path, folder: str) -> str:
    """Choose the held-out text from the test packages of a pretraining recipe.

    Args:
        folder: where the recipe's packages were put.
    """
    import yaml

    from peftkit.sources.docstrings import DocstringsConfig, DocstringsSource

    native = yaml.safe_load(recipe.read_text(encoding="utf-8"))["data"]["source"]["docstrings"]
    by_package: dict[str, list[str]] = defaultdict(list)
    source = DocstringsSource(replace(DocstringsConfig(**native), folder=folder))
    for row in source.load("test"):
        by_package[row["package"]].append(row["text"].replace(END, ""))
    chosen = [choose(texts, MAX_BYTES_PER_PACKAGE) for texts in by_package.values()]
    return "".join(text + END for texts in chosen for text in texts)


def score(model: PreTrainedModel, ids: torch.Tensor, *, stride: int) -> float:
    """Sum the information of a token sequence under a causal model, in bits.

    The window slides by `stride`; each token is counted once, in the first window that holds it.

    Args:
        ids: shape (tokens,). A token with nothing before it costs log2(vocabulary).
    """
    import torch

    num_bits, scored = 0.0, 0
    with torch.inference_mode():
        for start in range(0, len(ids), stride):
            window = ids[start : start + WINDOW]
            new = start + len(window) - scored
            if new == len(window):
                num_bits += math.log2(model.config.vocab_size)
                scored += 1
                new -= 1
            if new > 0:
                logits = model(window[None]).logits[0, -new - 1 : -1].float()
                nats = torch.nn.functional.cross_entropy(logits, window[-new:], reduction="sum")
                num_bits += nats.item() / math.log(2)
                scored += new
    return num_bits


def measure(text: str) -> dict[str, Any]:
    """Measure the model and xz on the same bytes."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = embedded.model_path("docstring-lm")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    # float32 holds the saved bf16 weights exactly, and the result then depends on no CPU's bf16.
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    marked = text.replace(END, tokenizer.eos_token)
    ids = tokenizer(marked, add_special_tokens=False, return_tensors="pt", verbose=False)
    ids = ids["input_ids"][0]
    data = text.encode()
    num_bits = {
        "model": score(model, ids, stride=STRIDE),
        "model_separate_blocks": score(model, ids, stride=WINDOW),
        "xz_9": 8 * len(lzma.compress(data, preset=9)),
        "xz_9_extreme": 8 * len(lzma.compress(data, preset=9 | lzma.PRESET_EXTREME)),
    }
    bits_per_byte = {name: round(bits / len(data), 4) for name, bits in num_bits.items()}
    return {
        "bits_per_byte": bits_per_byte,
        "model_over_xz_9": round(bits_per_byte["model"] / bits_per_byte["xz_9"], 4),
        "window": WINDOW,
        "stride": STRIDE,
        "num_bytes": len(data),
        "num_tokens": len(ids),
        "text_sha256": hashlib.sha256(data).hexdigest(),
        "weights_sha256": _sha256(folder / "model.safetensors"),
    }


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def main(arguments: list[str]) -> None:
    """Build the text, or score it and write the result."""
    if arguments[:1] == ["build"]:
        TEXT.parent.mkdir(exist_ok=True)
        text = build(Path(arguments[1]), arguments[2])
        TEXT.write_bytes(gzip.compress(text.encode(), 9, mtime=0))
        return
    began, clock = time.strftime("%Y-%m-%dT%H:%M:%S%z"), time.perf_counter()
    result = {
        "schema_version": 1,
        "command": "python benchmarks/bits_per_byte.py",
        **measure(gzip.decompress(TEXT.read_bytes()).decode()),
        "versions": {name: version(name) for name in ("torch", "transformers", "tokenizers")},
        "device": f"{os.cpu_count()} CPU cores, {platform.machine()}",
        "began": began,
        "seconds": round(time.perf_counter() - clock, 1),
    }
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    sys.stdout.write(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
