"""Time the phases of `peftkit run recipes/summarize-lora.yaml`, of several checkouts in turns.

    python benchmarks/quickstart.py . ../other-checkout --repeats 3

A phase ends where the run says so on its screen. Wall-clock seconds count on a quiet machine; the
processor's beside them hardly depend on what else runs. With several checkouts, the ratio of each
later one to the first is given repeat by repeat. `--set KEY=VALUE` overrides the recipe for all
(`method.sft.max_steps=12`), `--env NAME=VALUE` sets a variable for a second turn of each checkout,
which stands beside the plain one (`THP_MEM_ALLOC_ENABLE=0`). Writes
benchmarks/results/quickstart.json.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from startup import ROOT, write_results

PHASES = {
    "imports and recipe": "  decided ",
    "data": "  data     test",
    "plan": "  plan ",
    "model": "  model ",
    "longest batch": "  probed ",
    "training": "  trained ",
    "evaluation": "  wrote ",
    "report": None,
}
"""Phase -> how the line begins that ends it; the last one ends with the command."""
Seconds = dict[str, tuple[float, float]]
"""Phase -> seconds by the clock and of the processor."""


def processor_seconds(pid: int) -> float:
    """Return what a process has taken of the processors so far, from /proc (Linux)."""
    fields = Path(f"/proc/{pid}/stat").read_text("utf-8").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def timed(checkout: Path, settings: Sequence[str], variables: dict[str, str]) -> Seconds:
    """Run the quickstart of a checkout once."""
    environment = {**os.environ, "PYTHONPATH": str(checkout), "PYTHONUNBUFFERED": "1", **variables}
    found: Seconds = {}
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "peftkit", "run", "recipes/summarize-lora.yaml"]
        began, before = time.perf_counter(), 0.0
        process = subprocess.Popen(
            [*command, "--out", f"{folder}/run", *settings], cwd=checkout, env=environment,
            stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        waiting = [(name, sign) for name, sign in PHASES.items() if sign]
        for line in process.stdout or ():
            for place, (name, sign) in enumerate(waiting):
                if line.startswith(sign):
                    now, used = time.perf_counter(), processor_seconds(process.pid)
                    found[name] = (now - began, used - before)
                    began, before = now, used
                    waiting = waiting[place + 1 :]
                    break
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    total = usage.ru_utime + usage.ru_stime
    found["report"] = (time.perf_counter() - began, total - before)
    walls = [wall for wall, _ in found.values()]
    return {**found, "whole command": (sum(walls), total)}


def spread(values: Sequence[float]) -> str:
    """Write the median, with the extremes where there are several."""
    middle = statistics.median(values)
    extremes = f" ({min(values):.2f} to {max(values):.2f})" if len(values) > 1 else ""
    return f"{middle:.2f}{extremes}"


def main() -> None:
    """Time every checkout in turns, print medians and ratios, and write all of it."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("checkouts", nargs="*", type=Path, default=[ROOT])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--set", action="append", default=[], dest="settings")
    parser.add_argument("--env", action="append", default=[], dest="variables")
    given = parser.parse_args()
    variables = dict(one.split("=", 1) for one in given.variables)
    plain: list[tuple[str, Path, dict[str, str]]] = []
    for checkout in given.checkouts:
        plain.append((str(checkout), checkout.resolve(), {}))
        if variables:
            plain.append((f"{checkout} {' '.join(given.variables)}", checkout.resolve(), variables))
    runs: dict[str, list[Seconds]] = {name: [] for name, *_ in plain}
    for _ in range(given.repeats):
        for name, checkout, extra in plain:
            runs[name].append(timed(checkout, given.settings, extra))
    first = plain[0][0]
    for name, found in runs.items():
        print(f"\n{name}: seconds by the clock | of the processor | processor, ratio to {first}")
        for phase in found[0]:
            walls, used = zip(*(one[phase] for one in found), strict=True)
            ratios = [
                mine[phase][1] / max(theirs[phase][1], 0.01)
                for mine, theirs in zip(found, runs[first], strict=True)
            ]
            print(f"  {phase:20} {spread(walls):24} | {spread(used):24} | {spread(ratios)}")
    write_results(
        "quickstart", given.repeats, ("peftkit", "torch", "transformers"), {"found": runs}
    )


if __name__ == "__main__":
    main()
