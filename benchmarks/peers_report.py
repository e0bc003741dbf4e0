"""Make a section of docs/benchmarks.md, rows of README and a picture of what `peers` measured."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

BEGIN, END = "<!-- peers: by benchmarks/report.py -->", "<!-- /peers -->"
IMAGE = "peers-speed.png"
COMMAND = "python benchmarks/peers/compare.py"
Setting = Mapping[str, Any]


def load(results: Path) -> list[dict[str, Any]]:
    """Read the settings that were measured, none if none was."""
    file = results / "peers_cpu.json"
    if not file.exists():
        return []
    settings: list[dict[str, Any]] = json.loads(file.read_text(encoding="utf-8"))["settings"]
    return settings


def title(setting: Setting) -> str:
    """Name a setting in a few words."""
    kind = "each tool at its best" if setting["best"] else "float32, rows in order"
    return f"{setting['size']} parameters, {setting['lengths']} lengths, {kind}"


def make_section(settings: Sequence[Setting], shares: Mapping[str, Any] | None) -> list[str]:
    """Write the section, a table a setting."""
    lines = ["## Beside other tools, on the CPU", ""]
    if not settings:
        return [
            *lines,
            f"`{COMMAND}` trains the same rows with peftkit and its peers. Not run yet.",
        ]
    first = settings[0]
    lines += [
        f"`{COMMAND}` trains the same LoRA (rank {first['rank']}, every linear layer) of the same",
        f"random Llama on the same rows, {first['steps']} steps of {first['batch']}, in turns on",
        f"{first['threads']} threads of {first['device']['name']}: medians of {first['repeats']},",
        "lowest to highest in brackets. Tokens are real ones, without padding; memory is of the",
        "whole tree of processes.",
    ]
    for setting in settings:
        lines += ["", f"### {title(setting)}", "", *_table(setting, _shares_of(setting, shares))]
        lines += [f"\n{name} could not be run." for name in setting["failed"]]
    if shares:
        lines += [
            "",
            f"Of the machine's own rate ({shares['float32_flops_per_second'] / 1e9:,.0f} GFLOP/s in"
            f" float32, {shares['bfloat16_flops_per_second'] / 1e9:,.0f} in bfloat16; `python"
            " benchmarks/limits.py`, which says what counts): the operations that no training can"
            " do without, over the time of the loop.",
        ]
    return lines


def _shares_of(setting: Setting, shares: Mapping[str, Any] | None) -> Mapping[str, float]:
    keys = ("size", "lengths", "best")
    for one in (shares or {}).get("settings", ()):
        if all(one[key] == setting[key] for key in keys):
            found: Mapping[str, float] = one["shares"]
            return found
    return {}


def _table(setting: Setting, shares: Mapping[str, float]) -> list[str]:
    rows = [
        "| | tokens/s | loop, s | whole command, s | peak, MB | last loss | of the machine | |",
        "|---|---:|---:|---:|---:|---:|---:|---|",
    ]
    for name, peer in _fastest_first(setting):
        name_and_version = f"{name} {peer['versions'].get(name, '')}"
        share = f"{shares[name]:.0%}" if name in shares else "-"
        rows.append(
            f"| {name_and_version} | {peer['tokens_per_second']:,.0f}"
            f" | {_spread(peer['loop_seconds'])} | {_spread(peer['wall_seconds'])}"
            f" | {peer['peak_bytes']['median'] / 1e6:,.0f}"
            f" | {peer['final_loss']:.4f} | {share} | {peer['note']} |"
        )
    return rows


def _spread(values: Mapping[str, float]) -> str:
    return f"{values['median']:.1f} ({values['min']:.1f} to {values['max']:.1f})"


def _fastest_first(setting: Setting) -> list[tuple[str, Any]]:
    return sorted(setting["peers"].items(), key=lambda item: -item[1]["tokens_per_second"])


def put_into_readme(readme: str, settings: Sequence[Setting]) -> str:
    """Replace what stands between the marks, where something was measured."""
    before, begin, rest = readme.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not settings or not begin or not end:
        return readme
    lines = [
        "",
        f"![Tokens a second beside other tools](docs/images/{IMAGE})",
        "",
        "The same LoRA on the same rows, on the CPU: [Benchmarks](docs/benchmarks.md), by"
        f" `{COMMAND}`.",
        "",
    ]
    return before + begin + "\n".join(lines) + end + after


def plot_speed(settings: Sequence[Setting], file: Path) -> bool:
    """Plot real tokens a second, a panel a setting; False where nothing was measured."""
    if not settings:
        return False
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    rows = max(len(setting["peers"]) for setting in settings)
    size = (6, (0.6 + 0.3 * rows) * len(settings))
    figure, panels = plt.subplots(len(settings), figsize=size, layout="constrained", squeeze=False)
    for axes, setting in zip(panels[:, 0], settings, strict=True):
        peers = _fastest_first(setting)
        tokens = setting["num_tokens"]
        rates = [peer["tokens_per_second"] for _, peer in peers]
        loops = [peer["loop_seconds"] for _, peer in peers]
        below = [max(rate - tokens / one["max"], 0) for rate, one in zip(rates, loops, strict=True)]
        above = [max(tokens / one["min"] - rate, 0) for rate, one in zip(rates, loops, strict=True)]
        colors = ["C0" if name == "peftkit" else "0.7" for name, _ in peers]
        axes.barh([name for name, _ in peers], rates, xerr=[below, above], color=colors)
        axes.invert_yaxis()
        axes.set_title(title(setting), fontsize="small")
    panels[-1, 0].set(xlabel="real tokens a second")
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=120)
    plt.close(figure)
    return True
