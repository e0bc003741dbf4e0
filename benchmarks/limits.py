"""Say which share of the machine's own matrix rate each run of benchmarks/peers reached.

    python benchmarks/limits.py                       # of benchmarks/results/peers_cpu.json

LoRA trains by two products with every frozen matrix: one forward and one for the input's gradient,
of 2 operations a weight and token each. So a run of T real tokens with N weights in its products,
head and all, does at least 4 N T operations, plus 6 P T for the P weights of the adapter, plus what
attention takes: 12 d L (sum of squared row lengths) / 2 for L layers of width d (products with
keys and with values, forward and twice backward, the half that is causal). The head counts only
where it must: at trained positions, so that whoever makes all logits is not credited for them.
Share = operations / (loop seconds x rate). The rate is the best of several large products in the
dtype used, the bandwidth that of a copy (read and write). Writes benchmarks/results/limits.json.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results"
sys.path.insert(0, str(HERE / "peers"))

import material  # noqa: E402

COPY_BYTES = 1 << 28
EDGES = (256, 2048)
TOO_SLOW_SECONDS = 0.01


def best_seconds(step: Callable[[], object], repeats: int) -> float:
    """Return the shortest of several timings, after one that is not counted."""
    step()
    found = []
    for _ in range(repeats):
        began = time.perf_counter()
        step()
        found.append(time.perf_counter() - began)
    return min(found)


def measure(threads: int) -> dict[str, float]:
    """Measure this machine: products in float32 and bfloat16, and a copy."""
    import torch

    torch.set_num_threads(threads)
    rates: dict[str, float] = {}
    for name in ("float32", "bfloat16"):
        for edge in EDGES:
            left = torch.randn(edge, edge).to(getattr(torch, name))
            right, into = left.t().contiguous(), torch.empty_like(left)
            seconds = best_seconds(partial(torch.mm, left, right, out=into), 7)
            key = f"{name}_flops_per_second"
            rates[key] = max(rates.get(key, 0.0), 2 * edge**3 / seconds)
            if seconds > TOO_SLOW_SECONDS:  # bfloat16 without instructions for it
                break
    source = torch.ones(COPY_BYTES, dtype=torch.uint8)
    target = torch.empty_like(source)
    copied = best_seconds(lambda: target.copy_(source), 7)
    return {**rates, "copy_bytes_per_second": 2 * COPY_BYTES / copied}


def adapter_weights(size: Mapping[str, int], rank: int) -> int:
    """Count the weights of a LoRA on every linear layer but the head."""
    hidden, inner = size["hidden_size"], size["intermediate_size"]
    keys = hidden // size["num_attention_heads"] * size["num_key_value_heads"]
    pairs = [(hidden, hidden)] * 2 + [(hidden, keys)] * 2 + [(hidden, inner)] * 3
    return size["num_hidden_layers"] * rank * sum(a + b for a, b in pairs)


def operations(setting: Mapping[str, Any]) -> float:
    """Return what the steps of a setting cannot do without."""
    size = material.SIZES[setting["size"]]
    head = size["vocab_size"] * size["hidden_size"]
    layers = setting["num_matmul_weights"] - head
    attention = 12 * size["hidden_size"] * size["num_hidden_layers"] / 2
    products: float = (
        4 * layers * setting["num_tokens"]
        + 4 * head * setting["num_trained_tokens"]
        + 6 * adapter_weights(size, setting["rank"]) * setting["num_tokens"]
        + attention * setting["sum_squared_lengths"]
    )
    return products


def shares(setting: Mapping[str, Any], rates: Mapping[str, float]) -> dict[str, float]:
    """Return each run's share of the machine's rate."""
    dtype = "bfloat16" if setting["bf16"] else "float32"
    least = operations(setting) / rates[f"{dtype}_flops_per_second"]
    return {
        name: round(least / entry["loop_seconds"]["median"], 4)
        for name, entry in setting["peers"].items()
    }


def main() -> None:
    """Measure the machine and write every run's share of it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--peers", type=Path, default=RESULTS / "peers_cpu.json")
    parser.add_argument("--out", type=Path, default=RESULTS / "limits.json")
    given = parser.parse_args()
    settings = json.loads(given.peers.read_text(encoding="utf-8"))["settings"]
    rates = measure(settings[0]["threads"])
    for name, rate in rates.items():
        print(f"{name:28} {rate / 1e9:8.1f} G")
    found = []
    for setting in settings:
        label = {key: setting[key] for key in ("size", "lengths", "best")}
        reached = shares(setting, rates)
        found.append({**label, "operations": operations(setting), "shares": reached})
        print(", ".join(f"{key} {value}" for key, value in label.items()))
        for name, share in reached.items():
            print(f"  {name:13} {share:6.1%}")
    content = {"schema_version": 1, "device": settings[0]["device"], **rates, "settings": found}
    given.out.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
