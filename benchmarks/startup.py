"""Time `peftkit --help` and `peftkit check` on a warm cache: medians of ten runs each.

    python benchmarks/startup.py

Writes benchmarks/results/startup.json.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PEFTKIT = Path(sys.executable).with_name("peftkit")
COMMANDS = {
    "help": [str(PEFTKIT), "--help"],
    "check": [str(PEFTKIT), "check", str(ROOT / "recipes" / "summarize-lora.yaml")],
}
RUNS = 10


def seconds(command: list[str]) -> list[float]:
    """Time a command, in seconds, RUNS times after one run that warms the caches."""
    subprocess.run(command, check=True, capture_output=True)
    times = []
    for _ in range(RUNS):
        start = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True)
        times.append(time.perf_counter() - start)
    return times


def main() -> None:
    """Time every command, print the medians and write them."""
    results = {}
    for name, command in COMMANDS.items():
        times = seconds(command)
        results[name] = {
            "median_seconds": round(statistics.median(times), 3),
            "min_seconds": round(min(times), 3),
            "max_seconds": round(max(times), 3),
        }
        print(f"{name:6} median {results[name]['median_seconds']:.3f} s of {RUNS}")
    content = {
        "schema_version": 1,
        "runs": RUNS,
        "python": platform.python_version(),
        "cores": os.cpu_count(),
        **results,
    }
    out = ROOT / "benchmarks" / "results" / "startup.json"
    out.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
