"""Make the tables and plots of docs/benchmarks.md from benchmarks/results.

    python benchmarks/report.py

Every row is one JSON that `peftkit bench` wrote. A cell that no device ran says *predicted*; one
whose process broke is left out and counted. What `benchmarks/gpu.py` found on a card is a section
of its own, rows of README, and rates in the catalogue of devices; so is what `benchmarks/peers`
measured. Sections below `BY_HAND` stay.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import gpu_report
import peers_report

from peftkit.bench import error_of, metered_bytes
from peftkit.system.units import gibibytes

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
PAGE = ROOT / "docs" / "benchmarks.md"
BY_HAND = "<!-- written by hand from here on -->"
README = ROOT / "README.md"
CATALOGUE = ROOT / "peftkit" / "planning" / "devices.json"
HEAD = """\
# Benchmarks

```
peftkit bench memory benchmarks/grids/cpu-memory.yaml
```

runs a grid, each cell in a process of its own, and writes what was planned beside what was
measured. This page is made from `benchmarks/results` by `python benchmarks/report.py`. Planned
and measured are peaks without what Python, the stack and the device's context take before the
model. *predicted* means that no device here has run the cell.
"""


def load_results(folder: Path) -> dict[str, list[dict[str, Any]]]:
    """Read every cell's JSON; return kind and grid, e.g. `memory/cpu-memory`, to its cells."""
    grids: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for file in sorted(folder.rglob("*.json")):
        content = json.loads(file.read_text(encoding="utf-8"))
        if isinstance(content, dict) and {"kind", "grid", "cell", "basis"} <= content.keys():
            grids[f"{content['kind']}/{content['grid']}"].append(content)
    return {name: sorted(found, key=_order) for name, found in sorted(grids.items())}


def load_limits() -> dict[str, Any] | None:
    """Read what `benchmarks/limits.py` wrote, if it did."""
    file = RESULTS / "limits.json"
    return json.loads(file.read_text(encoding="utf-8")) if file.exists() else None


def _order(cell: Mapping[str, Any]) -> tuple[Any, ...]:
    what = cell["cell"]
    size = what["gpu_gib"] or 0
    return what["model"], what["method"], size, what["length"], what["micro_batch"]


def memory_table(cells: Sequence[Mapping[str, Any]]) -> list[str]:
    """Lay out planned and measured peaks, one line a cell."""
    rows = [
        (*_place(cell), *_bytes(cell), _percent(error_of(dict(cell))), _outcome(cell))
        for cell in cells
    ]
    heads = ("model", "method", "tokens", "GPU", "planned", "measured", "error", "")
    return _table(heads, rows, num_left=2)


def speed_table(cells: Sequence[Mapping[str, Any]]) -> list[str]:
    """Lay out predicted and measured tokens a second, one line a cell."""
    rows = []
    for cell in cells:
        speed, measured = (cell["predicted"] or {}).get("speed"), cell["measured"]
        rows.append(
            (
                *_place(cell),
                "-" if speed is None else f"{speed['tokens_per_second']:,.0f}",
                "-" if measured is None else f"{measured['tokens_per_second']:,.0f}",
                _outcome(cell),
            )
        )
    heads = ("model", "method", "tokens", "GPU", "predicted tokens/s", "measured tokens/s", "")
    return _table(heads, rows, num_left=2)


def summary(cells: Sequence[Mapping[str, Any]]) -> str:
    """Say how well plans did: mean, worst, and how often one said `fits` and memory ran out."""
    errors = [abs(e) for cell in cells if (e := error_of(dict(cell))) is not None]
    wrong = sum(cell["fitted"] is False and _was_planned_to_fit(cell) for cell in cells)
    predicted = sum(cell["basis"] == "predicted" for cell in cells)
    broken = sum(cell["basis"] == "broken" for cell in cells)
    parts = [f"{len(cells)} cells"]
    if errors:
        mean = sum(errors) / len(errors)
        parts.append(f"{len(errors)} measured: mean error {mean:.2%}, worst {max(errors):.2%}")
    if wrong:
        parts.append(f"{wrong} planned to fit ran out of memory")
    if predicted:
        parts.append(f"{predicted} predicted only")
    if broken:
        parts.append(f"{broken} broken and left out")
    return "; ".join(parts) + f". {_setting(cells)}"


def make_page(grids: Mapping[str, list[dict[str, Any]]]) -> str:
    """Write the whole page."""
    lines = [HEAD]
    for name, cells in grids.items():
        kind, grid = name.split("/", 1)
        whole = [cell for cell in cells if cell["basis"] != "broken"]
        table = memory_table(whole) if kind == "memory" else speed_table(whole)
        lines += [f"## {kind.capitalize()}: {grid}", "", summary(cells), "", *table, ""]
    return "\n".join(lines).rstrip() + "\n"


def plot_errors(
    grids: Mapping[str, list[dict[str, Any]]],
    file: Path,
    more: Iterable[tuple[int, int, str]] = (),
) -> bool:
    """Plot measured peaks over planned ones; False where nothing was measured.

    Args:
        more: further pairs of bytes, planned and measured, each with its series.
    """
    points: list[tuple[Any, Any, str]] = [
        (*_net_bytes(cell), name)
        for name, cells in grids.items()
        for cell in cells
        if cell["predicted"] is not None and cell["measured"] is not None
    ]
    points += more
    if not points:
        return False
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(5, 5), layout="constrained")
    gib = 1 << 30
    for name in sorted({point[2] for point in points}):
        own = [(x / gib, y / gib) for x, y, grid in points if grid == name]
        axes.scatter(*zip(*own, strict=True), s=14, label=name)
    largest = max(max(x, y) for x, y, _ in points) / gib
    axes.plot([0, largest], [0, largest], color="0.6", linewidth=1)
    axes.set(xlabel="planned, GiB", ylabel="measured, GiB")
    axes.legend(frameon=False)
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=120)
    plt.close(figure)
    return True


def _place(cell: Mapping[str, Any]) -> tuple[str, str, str, str]:
    what = cell["cell"]
    size = what["gpu_gib"]
    shape = f"{what['micro_batch']} x {what['length']:,}"
    return what["model"], what["method"], shape, "-" if size is None else f"{size:g} GiB"


def _bytes(cell: Mapping[str, Any]) -> tuple[str, str]:
    planned, measured = _net_bytes(cell)
    return "-" if planned is None else gibibytes(planned), (
        "-" if measured is None else gibibytes(measured)
    )


def _net_bytes(cell: Mapping[str, Any]) -> tuple[int | None, int | None]:
    """Return the planned and the measured peak without what is there before the model."""
    predicted, measured = cell["predicted"], cell["measured"]
    planned = None if predicted is None else metered_bytes(predicted)
    return planned, measured and measured["peak_bytes"] - measured["baseline_bytes"]


def _outcome(cell: Mapping[str, Any]) -> str:
    if cell["basis"] == "predicted":
        return "*predicted* to fit" if _was_planned_to_fit(cell) else "*predicted* not to fit"
    return "fitted" if cell["fitted"] else "ran out"


def _was_planned_to_fit(cell: Mapping[str, Any]) -> bool:
    predicted = cell["predicted"]
    return predicted is not None and predicted["peak_bytes"] <= cell["device"]["total_bytes"]


def _setting(cells: Iterable[Mapping[str, Any]]) -> str:
    """Say what the measured cells ran on."""
    measured = [cell for cell in cells if cell["basis"] == "measured" and "device" in cell]
    if not measured:
        return "Nothing was measured."
    names = sorted({cell["device"]["name"] for cell in measured})
    versions = measured[0]["versions"]
    stack = ", ".join(f"{n} {versions[n]}" for n in ("torch", "transformers", "peft", "trl"))
    return f"Measured on {', '.join(names)} with {stack}."


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:+.2%}"


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]], *, num_left: int) -> list[str]:
    ruler = ["---" if at < num_left else "---:" for at in range(len(heads))]
    return ["| " + " | ".join(line) + " |" for line in (heads, ruler, *rows)]


def main() -> None:
    """Write the page and its pictures."""
    from recorded_page import load_recorded, plot_recorded, recorded_section

    grids, stages = load_results(RESULTS), gpu_report.load(RESULTS / "gpu")
    images = PAGE.parent / "images"
    page = make_page(grids) + "\n" + "\n".join(gpu_report.make_section(stages)).rstrip() + "\n"
    if gpu_report.plot_speed(stages, images / "gpu-speed.png"):
        page += "\n![Measured tokens a second on one GPU](images/gpu-speed.png)\n"
    beside = peers_report.load(RESULTS)
    page += "\n" + "\n".join(peers_report.make_section(beside, load_limits())) + "\n"
    if peers_report.plot_speed(beside, images / peers_report.IMAGE):
        page += f"\n![Tokens a second beside other tools](images/{peers_report.IMAGE})\n"
    if plot_errors(grids, images / "planned-and-measured.png", gpu_report.points(stages)):
        page += "\n![Measured over planned peaks](images/planned-and-measured.png)\n"
    found = load_recorded(RESULTS / "recorded")
    if found:
        page = "\n".join([page, *recorded_section(found)]).rstrip() + "\n"
        plot_recorded(found, images / "planned-and-recorded.png")
    _, mark, by_hand = PAGE.read_text(encoding="utf-8").partition(BY_HAND)
    PAGE.write_text(f"{page}\n{mark}{by_hand}" if mark else page, encoding="utf-8")
    readme = gpu_report.put_into_readme(README.read_text(encoding="utf-8"), stages)
    README.write_text(peers_report.put_into_readme(readme, beside), encoding="utf-8")
    if "rate" in stages and not gpu_report.put_into_catalogue(CATALOGUE, stages["rate"]):
        print(f"{stages['rate']['device']['name']} is not in {CATALOGUE.relative_to(ROOT)}")
    print(f"wrote {PAGE.relative_to(ROOT)}: {sum(map(len, grids.values()))} cells")


if __name__ == "__main__":
    main()
