"""Make the part of docs/benchmarks.md that holds plans against runs that others recorded."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

GIB = 1 << 30
HEAD = """\
## Recorded by others

```
python benchmarks/recorded.py --half held-out
```

plans runs that others recorded on GPUs, from what their files and scripts state, with peftkit's
own planner; [which runs, and why](../benchmarks/recorded/README.md) was fixed before. One
half was looked at while terms of the planner were worked on, the other was scored once, afterwards.
Memory is what their script read: for PEFT's runs the most that torch's allocator had reserved.
"""
SETS = {
    "first": "looked at, before any term was touched",
    "looked-at": "looked at, now",
    "held-out": "held out, scored once",
}


def load_recorded(folder: Path) -> dict[str, dict[str, Any]]:
    """Read the results that there are, in the order of `SETS`."""
    files = {name: folder / f"{name}.json" for name in SETS}
    return {
        name: json.loads(file.read_text(encoding="utf-8"))
        for name, file in files.items()
        if file.is_file()
    }


def recorded_section(found: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Lay out summaries, every run of the last results, and what was left out."""
    lines = [HEAD, *_summaries(found), ""]
    lines += ["![Planned over recorded](images/planned-and-recorded.png)", ""]
    lines += ["| run | | planned | recorded | error | planned tokens/s | recorded | error |"]
    lines += ["| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |"]
    for name, half in (("looked-at", ""), ("held-out", "held out")):
        cells = found.get(name, {}).get("cells", ())
        lines += [_row(cell, half) for cell in cells]
    left_out = {
        run: reason
        for name in ("looked-at", "held-out")
        for run, reason in found.get(name, {}).get("left_out", {}).items()
    }
    if left_out:
        lines += ["", "Left out by the rule:", ""]
        lines += [f"- {run}: {reason}" for run, reason in left_out.items()]
    return [*lines, ""]


def _summaries(found: Mapping[str, Mapping[str, Any]]) -> list[str]:
    lines = [
        "| runs | | memory, mean of absolute errors | worst | below by more than 2 % | speed, mean"
        " of absolute errors |",
        "| ---: | --- | ---: | ---: | ---: | ---: |",
    ]
    for name, content in found.items():
        s = content["summary"]
        lines.append(
            f"| {s['num_runs']} | {SETS[name]} | {s['memory_mean_absolute']:.2%} |"
            f" {s['memory_worst']:+.2%} | {s['num_below_by_2_percent']} |"
            f" {s['speed_mean_absolute']:.1%} |"
        )
    return lines


def _row(cell: Mapping[str, Any], half: str) -> str:
    planned, recorded = cell["planned_tokens_per_second"], cell["recorded_tokens_per_second"]
    return (
        f"| {cell['source'].split('-')[0]}: {cell['name']} | {half} |"
        f" {cell['planned_bytes'] / GIB:.2f} GiB | {cell['recorded_bytes'] / GIB:.2f} GiB |"
        f" {cell['error']:+.2%} | {planned:,.0f} | {recorded:,.0f} |"
        f" {planned / recorded - 1:+.0%} |"
    )


def plot_recorded(found: Mapping[str, Mapping[str, Any]], file: Path) -> None:
    """Plot recorded over planned memory, and tokens a second, one point a run."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, (memory, speed) = plt.subplots(1, 2, figsize=(9.5, 4.6), layout="constrained")
    for name, marker in (("looked-at", "o"), ("held-out", "^")):
        cells = found.get(name, {}).get("cells", ())
        _points(memory, [(c["planned_bytes"] / GIB, c["recorded_bytes"] / GIB) for c in cells],
                marker, SETS[name])  # fmt: skip
        pairs = [(c["planned_tokens_per_second"], c["recorded_tokens_per_second"]) for c in cells]
        _points(speed, pairs, marker, SETS[name])
    memory.set(xlabel="planned, GiB", ylabel="recorded, GiB", xscale="log", yscale="log")
    memory.xaxis.set_major_formatter("{x:g}")
    memory.yaxis.set_major_formatter("{x:g}")
    ticks = [20, 25, 30, 40, 50, 70]
    memory.set_xticks(ticks, minor=False)
    memory.set_yticks(ticks, minor=False)
    memory.minorticks_off()
    speed.set(xlabel="predicted, tokens a second", ylabel="recorded, tokens a second")
    for axes in (memory, speed):
        low, high = axes.get_xlim()
        axes.axline((low, low), (high, high), color="0.6", linewidth=1, zorder=0)
        axes.legend(frameon=False, fontsize=8)
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=120)
    plt.close(figure)


def _points(
    axes: Any, pairs: Sequence[tuple[float | None, float | None]], marker: str, label: str
) -> None:
    known = [pair for pair in pairs if None not in pair]
    if known:
        axes.scatter(*zip(*known, strict=True), s=18, marker=marker, label=label, alpha=0.8)
