"""Time `peftkit --help` and `peftkit check` on a warm cache: medians of ten runs each.

    python benchmarks/startup.py

Wall-clock seconds count, on a quiet machine; the processor's seconds beside them hardly depend on
what else runs. Writes benchmarks/results/startup.json.
"""

from __future__ import annotations

import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
peftkit = Path(sys.executable).with_name("peftkit")
COMMANDS = {
    "help": [str(peftkit), "--help"],
    "check": [str(peftkit), "check", str(ROOT / "recipes" / "summarize-lora.yaml")],
}
RUNS = 10


def timed(command: list[str]) -> tuple[float, resource.struct_rusage]:
    """Run a command and return its wall-clock seconds and what it used."""
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    wall = time.perf_counter() - start
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    return wall, usage


def seconds(command: list[str]) -> tuple[float, float]:
    """Run a command and return its wall-clock and its processor seconds."""
    wall, usage = timed(command)
    return wall, usage.ru_utime + usage.ru_stime


def write_results(
    name: str, runs: int, packages: Sequence[str], results: Mapping[str, object]
) -> None:
    """Write a JSON with what ran, where and how often, and what it took."""
    content = {
        "schema_version": 1,
        "runs": runs,
        "versions": {
            "python": platform.python_version(),
            **{package: version(package) for package in packages},
        },
        "device": f"{os.cpu_count()} CPU cores, {platform.machine()}",
        "load_average": [round(load, 2) for load in os.getloadavg()],
        **results,
    }
    out = ROOT / "benchmarks" / "results" / f"{name}.json"
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def main() -> None:
    """Time every command, print the medians and write them."""
    results = {}
    for name, command in COMMANDS.items():
        seconds(command)  # warms the caches
        walls, processors = zip(*(seconds(command) for _ in range(RUNS)), strict=True)
        results[name] = {
            "median_seconds": round(statistics.median(walls), 3),
            "min_seconds": round(min(walls), 3),
            "max_seconds": round(max(walls), 3),
            "median_cpu_seconds": round(statistics.median(processors), 3),
        }
        found = results[name]
        print(
            f"{name:6} median {found['median_seconds']:.3f} s of {RUNS}"
            f" (processor {found['median_cpu_seconds']:.3f} s)"
        )
    write_results("startup", RUNS, ("peftkit", "typer", "PyYAML"), results)


if __name__ == "__main__":
    main()
