"""exact: the same seed twice, and a run cut short and resumed: the same bits, or why not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpu_stages import small_run
from gpu_stages.bench import Bench, clear
from gpu_stages.trials import attempted

if TYPE_CHECKING:
    from gpu_stages.bench import Setting
    from peftkit.rundir.paths import RunDir

SHARE = 10
NUM_STEPS = 6
CUT_AT = 2
_SAVED = ("method.sft.save_steps=2", "method.sft.save_total_limit=4")
_STRICT = ("method.sft.full_determinism=true",)
RECIPES = {
    "LoRA, float32": (),
    "QLoRA, bfloat16": small_run.QLORA,
    "LoRA, bfloat16": ("model.dtype=bfloat16",),
}


def requests(_setting: Setting) -> list[Any]:
    """Ask for no plan."""
    return []


def run(bench: Bench) -> None:
    """Compare each recipe's three runs; where bits differ, once more with deterministic kernels.

    Those come last, since transformers switches them on for the rest of the process.
    """
    for name, overrides in RECIPES.items():
        if bench.left() < 0:
            bench.add("left_out", {"name": name, "reason": "no time was left"})
            continue
        attempted(bench, name, partial(_recipe, name, overrides, bench))
        if bench.is_dry:
            break
    for name in differing(bench.content.get("recipes", [])):
        if bench.left() > 0:
            strict = f"{name}, full_determinism"
            attempted(bench, strict, partial(_recipe, strict, (*RECIPES[name], *_STRICT), bench))


def differing(recipes: Sequence[Mapping[str, Any]]) -> list[str]:
    """Name the recipes whose bits were not the same."""
    return [one["name"] for one in recipes if not (one["same_twice"] and one["resumed_same"])]


def _recipe(name: str, overrides: Sequence[str], bench: Bench) -> None:
    found = compare(bench.folder / name.replace(", ", "-"), overrides, bench)
    bench.add("recipes", {"name": name, **found})
    bench.say(f"{name}: {found['said']}")


def compare(folder: Path, overrides: Sequence[str], bench: Bench) -> dict[str, Any]:
    """Train twice, and once from the first one's second step on; compare weights and losses.

    Raises:
        RuntimeError: a run did not finish; says how it ended.
    """
    options = (*_SAVED, *overrides, *(small_run.SHORTER if bench.is_dry else ()))
    first = _finished(folder / "first", options, bench)
    second = _finished(folder / "second", options, bench)
    part = small_run.cut_back(first, folder / "resumed", step=CUT_AT)
    resumed = _finished(part.path, options, bench)
    return judge(first, second, resumed)


def judge(first: RunDir, second: RunDir, resumed: RunDir) -> dict[str, Any]:
    """Say what of two whole runs and a resumed one is the same, and what a difference means."""
    twice, again = (_distance(first, other) for other in (second, resumed))
    same_twice = small_run.digest_of(first) == small_run.digest_of(second)
    resumed_same = small_run.digest_of(first) == small_run.digest_of(resumed)
    if same_twice and resumed_same:
        said = "the same bits twice, and resumed"
    elif same_twice:
        said = f"the same bits twice, but not resumed: losses {again:.2g} apart"
    else:
        said = (
            f"this device's kernels differ from run to run: losses of two whole runs {twice:.2g}"
            f" apart, of a resumed one {again:.2g}"
        )
    return {
        "same_twice": same_twice, "resumed_same": resumed_same,
        "loss_apart_twice": twice, "loss_apart_resumed": again, "said": said,
    }  # fmt: skip


def _finished(out: Path, options: Sequence[str], bench: Bench) -> RunDir:
    clear(bench.device)
    ended = small_run.run_to_end(out, options, num_steps=NUM_STEPS)
    if ended.exit_code:
        raise RuntimeError(f"exit code {ended.exit_code}: {ended.message}")
    return ended.run_dir


def _distance(first: RunDir, second: RunDir) -> float:
    pairs = zip(small_run.losses_of(first), small_run.losses_of(second), strict=True)
    return max(abs(one - other) for one, other in pairs)
