"""What `benchmarks/gpu.py` found on a card, as tables of docs/benchmarks.md and rows of README.

Called by `benchmarks/report.py`. Predicted and measured never share a column, and the section says
on what and when. A dry run's results are of no worth and are left out.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from peftkit.system.units import gibibytes

STAGES = ("rate", "plan", "speed", "reach", "exact", "smoke", "edges")
"""In the page's order."""
README_BEGIN, README_END = "<!-- gpu: by benchmarks/report.py -->", "<!-- /gpu -->"
_NOT_YET = (
    "GPU numbers are not measured yet; every plan and speed for a GPU is *predicted*."
    " `python benchmarks/gpu.py` measures them all on one card in nine minutes."
)

Found = Mapping[str, Any]
Rows = list[tuple[str, ...]]


def load(folder: Path) -> dict[str, Found]:
    """Return a stage's name -> what it found on a card, of those that ran."""
    found = {}
    for name in STAGES:
        file = folder / f"{name}.json"
        if file.is_file():
            content = json.loads(file.read_text(encoding="utf-8"))
            if not content.get("is_dry", True):
                found[name] = content
    return found


def make_section(stages: Mapping[str, Found]) -> list[str]:
    """Write the section of the page: a heading, where it ran, and a table for every stage."""
    if not stages:
        return [
            "## One GPU, everything", "",
            "`python benchmarks/gpu.py` measures rates, plans, speed, the longest rows, exactness"
            " and edges on one card. No card has run it yet.", "",
        ]  # fmt: skip
    lines = ["## One GPU, everything", "", f"`python benchmarks/gpu.py` on {setting(stages)}.", ""]
    for name, make in _TABLES.items():
        if name in stages:
            lines += [f"### {name.capitalize()}", "", *make(stages[name]), *_ending(stages[name])]
    return lines


def setting(stages: Mapping[str, Found]) -> str:
    """Say on what and when it ran."""
    one = next(iter(stages.values()))
    device, versions = one["device"], one["versions"]
    stack = ", ".join(
        f"{n} {versions[n]}"
        for n in ("torch", "transformers", "peft", "trl", "bitsandbytes")
        if n in versions
    )
    return (
        f"{device['name']} ({gibibytes(device['total_bytes'])}, driver {device['driver']}),"
        f" {stack}, {one['date']}"
    )


def _ending(found: Found) -> list[str]:
    """Say what a stage did not come to."""
    notes = [f"{one['name']}: {one['reason']}" for one in found.get("left_out", [])]
    notes += [f"{one['what']} failed: {one['reason']}" for one in found.get("failures", [])]
    if found.get("state") in ("stopped", "running"):
        notes.append(f"stopped: {found.get('reason') or 'by hand'}")
    return ["Not measured: " + "; ".join(notes) + ".", ""] if notes else []


def table(heads: Sequence[str], rows: Rows, *, num_left: int = 1) -> list[str]:
    """Lay rows out, the first columns to the left and numbers to the right."""
    ruler = ["---" if at < num_left else "---:" for at in range(len(heads))]
    lines = ["| " + " | ".join(line) + " |" for line in (heads, ruler, *rows)]
    return [*lines, ""]


def _rate(found: Found) -> list[str]:
    rows: Rows = [
        (f"product of {one['edge']:,} x {one['edge']:,}, {one['dtype']}",
         f"{one['flops_per_second'] / 1e12:,.0f} TFLOP/s")
        for one in found.get("matrix", [])
    ]  # fmt: skip
    for key, what in (("copy", "copy, {dtype}"), ("host", "pinned memory {way}")):
        rows += [
            (what.format(**one), f"{one['bytes_per_second'] / 1e9:,.0f} GB/s")
            for one in found.get(key, [])
        ]
    rows += [
        ("NF4 to bfloat16, bytes read and written", f"{one['bytes_per_second'] / 1e9:,.0f} GB/s")
        for one in found.get("nf4", [])
    ]
    return table(("what", "measured"), rows)


def _plan(found: Found) -> list[str]:
    rows: Rows = []
    for cell in found.get("cells", []):
        measured, case = cell["measured"], cell["case"]
        speed = (cell["predicted"] or {}).get("speed")
        rows.append(
            (
                case["model"], case["method"], f"{case['micro_batch']} x {case['length']:,}",
                _bytes(cell["planned_bytes"]),
                "ran out" if measured is None else _bytes(measured["peak_bytes"]),
                "-" if measured is None else _bytes(measured["reserved_bytes"]),
                _percent(cell["error"]),
                "-" if speed is None else f"{speed['seconds_per_step']:.3f}",
                "-" if measured is None else f"{statistics.median(measured['step_seconds']):.3f}",
            )
        )  # fmt: skip
    heads = ("model", "method", "tokens", "planned", "allocated", "reserved", "error",
             "predicted s", "measured s")  # fmt: skip
    lines = [_errors(found.get("summary") or {}), "", *table(heads, rows, num_left=2)]
    scored: Rows = [
        (one["case"]["model"], one["case"]["method"],
         f"{one['case']['micro_batch']} x {one['case']['length']:,}", _bytes(one["planned_bytes"]),
         _bytes(one["measured"].get("peak_bytes")), _percent(one["error"]))
        for one in found.get("evaluations", [])
    ]  # fmt: skip
    of_scoring = ("scoring", "method", "prompts", "planned", "allocated", "error")
    return lines + (table(of_scoring, scored, num_left=2) if scored else [])


def _errors(summary: Found) -> str:
    if summary.get("mean_error") is None:
        return "No cell was measured."
    ran_out = summary["ran_out"]
    return (
        f"{summary['num_cells']} cells: the planned peak is {summary['mean_error']:.2%} off in the"
        f" mean and {summary['worst_error']:.2%} at worst; {len(ran_out)} planned to fit ran out."
    )


def _speed(found: Found) -> list[str]:
    rows: Rows = []
    for one in found.get("summary", []):
        rows.append(
            (
                one["contest"], one["variant"], one["model"], f"{one['tokens_per_second']:,.0f}",
                f"{one['least']:,.0f} to {one['most']:,.0f}",
                "-" if one["times_trl"] is None else f"{one['times_trl']:.2f}",
                "-" if one["share_of_rate"] is None else f"{one['share_of_rate']:.0%}",
                _bytes(one["peak_bytes"]),
                "-" if one["loss_apart"] is None else f"{one['loss_apart']:.1g}",
            )
        )  # fmt: skip
    heads = ("work", "by", "model", "measured tokens/s", "spread", "times trl", "of the rate",
             "allocated", "loss apart")  # fmt: skip
    lines = table(heads, rows, num_left=3)
    made = found.get("generation")
    if made:
        rates = ", ".join(f"{k} {v:,.0f}" for k, v in made["tokens_per_second"].items())
        lines += [
            f"Generated tokens/s of {made['num_rows']} prompts of {made['length']} tokens,"
            f" {made['model']} LoRA: {rates}.",
            "",
        ]
    return lines


def _reach(found: Found) -> list[str]:
    rows: Rows = [
        (gibibytes(one["total_bytes"]), f"{one['planned_length']:,}",
         *("-" if one[key] is None else f"{one[key]:,}"
           for key in ("longest_fitted", "shortest_failed")))
        for one in found.get("sizes", [])
    ]  # fmt: skip
    return table(("card", "planned to fit", "trained", "ran out at"), rows)


def _exact(found: Found) -> list[str]:
    rows: Rows = [(one["name"], one["said"]) for one in found.get("recipes", [])]
    return table(("recipe", "the same seed twice, and stopped and resumed"), rows, num_left=2)


def _smoke(found: Found) -> list[str]:
    rows: Rows = [
        (one["name"], f"{one['final_loss']:.4f}",
         "the same" if one["max_difference"] == 0 else f"{one['max_difference']:.2g} apart")
        for one in found.get("trials", [])
    ]  # fmt: skip
    tests = found.get("tests")
    said = [f"Tests marked `gpu`: {tests['said']}.", ""] if tests else []
    return [*table(("trained for three steps", "loss", "logits read back"), rows), *said]


def _edges(found: Found) -> list[str]:
    names = ("budget", "out_of_memory", "resumed_after_it", "neighbour")
    rows: Rows = [
        (
            key.replace("_", " "),
            str(found[key]["exit_code"]),
            found[key]["message"].split("; try")[0],
        )
        for key in names
        if key in found
    ]
    return table(("edge", "exit code", "said"), rows)


_TABLES = {
    "rate": _rate, "plan": _plan, "speed": _speed, "reach": _reach, "exact": _exact,
    "smoke": _smoke, "edges": _edges,
}  # fmt: skip


def points(stages: Mapping[str, Found]) -> list[tuple[int, int, str]]:
    """Return planned and allocated peaks of the stage `plan`, for the picture of all grids."""
    return [
        (cell["planned_bytes"], cell["measured"]["peak_bytes"], "one GPU")
        for cell in (stages.get("plan") or {}).get("cells", [])
        if cell["error"] is not None
    ]


def plot_speed(stages: Mapping[str, Found], file: Path) -> bool:
    """Plot measured tokens a second, a bar a variant; False where nothing was measured."""
    summary = (stages.get("speed") or {}).get("summary", [])
    if not summary:
        return False
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(6, 0.5 + 0.35 * len(summary)), layout="constrained")
    names = [f"{one['contest']} {one['model']}, {one['variant']}" for one in summary]
    colors = ["0.7" if one["variant"] == "trl" else "C0" for one in summary]
    axes.barh(names, [one["tokens_per_second"] for one in summary], color=colors)
    axes.invert_yaxis()
    axes.set(xlabel="measured tokens a second")
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=120)
    plt.close(figure)
    return True


def readme_rows(stages: Mapping[str, Found]) -> list[str]:
    """Return README's rows of what was measured on a card."""
    if not stages:
        return []
    by = "`python benchmarks/gpu.py`"
    rows = []
    name = next(iter(stages.values()))["device"]["name"]
    summary = (stages.get("plan") or {}).get("summary") or {}
    if summary.get("mean_error") is not None:
        rows.append(
            f"| planned against allocated peaks on a {name}, {summary['num_cells']} trainings |"
            f" {summary['mean_error']:.2%} apart in the mean, {summary['worst_error']:.2%} at worst"
            f" | {by} |"
        )
    rows += [
        f"| {one['contest']} of {one['model']} on a {name}, {one['variant']} |"
        f" {one['tokens_per_second']:,.0f} tokens/s, {one['times_trl']:.2f} times plain trl"
        f" | {by} |"
        for one in (stages.get("speed") or {}).get("summary", [])
        if one["variant"] != "trl" and one["times_trl"] is not None
    ]
    rows += list(_readme_reach(stages.get("reach") or {}, by))
    return rows


def _readme_reach(found: Found, by: str) -> Iterator[str]:
    for one in found.get("sizes", [])[-1:]:
        if one["longest_fitted"] is not None:
            yield (
                f"| longest rows of an 8B QLoRA on {gibibytes(one['total_bytes'])} | planned"
                f" {one['planned_length']:,} tokens, trained {one['longest_fitted']:,} | {by} |"
            )


def put_into_readme(text: str, stages: Mapping[str, Found]) -> str:
    """Replace what stands between README's two marks: a table, or that there is none yet."""
    rows = readme_rows(stages)
    said = [_NOT_YET]
    if rows:
        said = [
            "| on a GPU | measured | by |",
            "|---|---|---|",
            *rows,
            "",
            f"On {setting(stages)}.",
        ]
    before, begin, rest = text.partition(README_BEGIN)
    _, end, after = rest.partition(README_END)
    if not (begin and end):
        raise ValueError(f"README has no {README_BEGIN} before a {README_END}")
    return "\n".join((before + begin, *said, end + after))


def measured_rates(found: Found) -> dict[str, Any] | None:
    """Return what the catalogue of devices keeps of the stage `rate`; None without all."""
    flops = {one["dtype"]: one["flops_per_second"] for one in found.get("matrix", [])}
    copies = [one["bytes_per_second"] for one in found.get("copy", [])]
    host = [one["bytes_per_second"] for one in found.get("host", [])]
    if len(flops) < 4 or not copies or not host:
        return None
    tera = {f"{key}_tflops": round(flops[name] / 1e12, 1) for key, name in _CATALOGUE.items()}
    return {
        **tera,
        "bandwidth_gb_per_s": round(max(copies) / 1e9),
        "pcie_gb_per_s": round(min(host) / 1e9, 1),
        "source": f"benchmarks/results/gpu/rate.json, {found['date']}",
    }


_CATALOGUE = {"bf16": "bfloat16", "fp16": "float16", "tf32": "tf32", "fp32": "float32"}


def put_into_catalogue(file: Path, found: Found) -> bool:
    """Write a card's measured rates into the catalogue; False where the card is not in it."""
    rates, name = measured_rates(found), json.dumps(found["device"]["name"])
    lines = file.read_text(encoding="utf-8").splitlines()
    at = next((n for n, line in enumerate(lines) if f'"name": {name},' in line), None)
    if rates is None or at is None:
        return False
    comma = "," if lines[at].endswith(",") else ""
    entry = {**json.loads(lines[at].strip().removesuffix(",")), "measured": rates}
    lines[at] = f"  {json.dumps(entry, ensure_ascii=False)}{comma}"
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return True


def _bytes(value: int | None) -> str:
    return "-" if value is None else gibibytes(value)


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:+.2%}"
