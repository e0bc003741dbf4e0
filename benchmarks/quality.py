"""Train shipped recipes with several seeds, and say how far what they reach spreads.

    python benchmarks/quality.py                       every recipe that is scored and runs offline
    python benchmarks/quality.py summarize-lora path/to/mine.yaml --seeds 1 2 3 4 5
    python benchmarks/quality.py --table               what has been measured, without a run
    python benchmarks/quality.py --page                the same, as docs/quality.md

Each run is a process of its own. What is measured is kept in benchmarks/results/quality, one file
a recipe, after every seed: the same command again does what lacks, and goes on with a run that was
stopped. A recipe that says something else, or another version of the stack, is measured anew; its
comments may say what was measured.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from peftkit.models.versions import stack_versions
from peftkit.recipe.load import load_recipe
from peftkit.recipe.yaml_file import read_yaml
from peftkit.recipes import shipped_recipes
from peftkit.reporting.score_table import LABELS, LOWER_IS_BETTER, format_score

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "quality"
RUNS = ROOT / "runs" / "quality"
PAGE = ROOT / "docs" / "quality.md"
HEAD = """\
# What recipes reach

```
peftkit recipes summarize-lora && peftkit run summarize-lora.yaml
```

Shipped recipes that need no network, trained with as many seeds as a row says; a row is one file of
`benchmarks/results/quality`, and the page is made of them by `python benchmarks/quality.py --page`.

```
python benchmarks/quality.py --seeds 1             # all of them, and the files anew
pytest -m slow tests/test_shipped_recipes.py       # each held to beat its base and its baselines
```

*Base* is the model before training, *best other* the best of base and baselines, and the margin is
that of the worst seed over it. What is scored is of packages, or messages, that no training saw.
Seconds are of one core, for all that a run does: reading, training, and scoring base and tuned.

Django's messages resemble each other: the translation of the training message most alike gets
chrF 43.0 in Galician and 45.3 in German, which a model of this size hardly beats.

Sentiment has a recipe for the Hub alone, `hub/classify-sst2-bert`: no package under a permissive
licence brings labelled sentences of that kind. Offline `classify-kind-lora` stands for it: single
sentences, several labels, weights of classes.

"""
SEEDS = (1, 2, 3)
LAST_LINES = 15
"""Of what a failed run printed."""

Train = Callable[[Path, int, Path], str]
"""Run a recipe with a seed into a folder; return what it said where it failed."""


def offline_recipes() -> list[Path]:
    """Find the shipped recipes that need no network and score what they train.

    Docstrings are those of packages that are installed first, for this alone.
    """
    files = [one.file for one in shipped_recipes() if "/" not in one.name]
    loaded = {file: load_recipe(file) for file in files}
    return [
        file
        for file, recipe in loaded.items()
        if recipe.evaluate is not None
        and all(part.source.name != "docstrings" for part in recipe.data.parts)
    ]


def find_recipe(name: str) -> Path:
    """Find a recipe by its file, or by the name of a shipped one."""
    if Path(name).is_file():
        return Path(name)
    known = {one.name: one.file for one in shipped_recipes()}
    if name not in known:
        raise SystemExit(f"no recipe is called {name!r}; shipped are {', '.join(known)}")
    return known[name]


def run_peftkit(recipe: Path, seed: int, out: Path) -> str:
    """Run a recipe in a process of its own."""
    method = load_recipe(recipe).method.name
    command = [sys.executable, "-m", "peftkit", "run", str(recipe), f"method.{method}.seed={seed}"]
    log = out.with_suffix(".log")
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("w", encoding="utf-8") as stream:
        done = subprocess.run(
            [*command, "--out", str(out)], stdout=stream, stderr=subprocess.STDOUT, check=False
        )
    if done.returncode == 0:
        return ""
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()[-LAST_LINES:]
    return "\n".join([f"exit code {done.returncode}", *lines])


def measure(
    recipe: Path, seeds: Sequence[int], *, results: Path, runs: Path, train: Train = run_peftkit
) -> tuple[dict[str, Any], dict[int, str]]:
    """Train a recipe with every seed that has no result yet, keeping each as soon as it is there.

    Returns: what the recipe's file of results holds then, and why seeds failed.
    """
    file = results / f"{recipe.stem}.json"
    content = _earlier(file, recipe)
    failures = {}
    for seed in seeds:
        if str(seed) in content["seeds"]:
            continue
        out = runs / f"{recipe.stem}-{content['recipe_sha256'][:8]}-{seed}"
        started, computed = time.time(), processor_seconds()
        print(f"{recipe.stem}, seed {seed} -> {out}", flush=True)
        if failed := train(recipe, seed, out):
            failures[seed] = failed
            print(failed, flush=True)
            continue
        found = {
            **collect(out),
            "wall_seconds": round(time.time() - started, 1),
            "processor_seconds": round(processor_seconds() - computed, 1),
        }
        content["seeds"] = dict(
            sorted({**content["seeds"], str(seed): found}.items(), key=lambda one: int(one[0]))
        )
        content |= summarize(content["seeds"])
        results.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return content, failures


def _earlier(file: Path, recipe: Path) -> dict[str, Any]:
    """Read what is kept of a recipe; nothing of it where recipe or stack have changed."""
    fresh = {
        "schema_version": 1,
        "recipe": recipe.stem,
        "recipe_sha256": recipe_digest(recipe),
        "versions": stack_versions(),
        "num_cores": len(os.sched_getaffinity(0)),
        "seeds": {},
    }
    if not file.is_file():
        return fresh
    kept: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    same = all(kept.get(key) == fresh[key] for key in ("recipe_sha256", "versions"))
    return kept if same else fresh


def recipe_digest(recipe: Path) -> str:
    """Digest what a recipe says, in whatever order, and not its comments."""
    said = json.dumps(read_yaml(recipe).data, sort_keys=True)
    return hashlib.sha256(said.encode()).hexdigest()


def processor_seconds() -> float:
    """Give what the runs so far computed on all cores: other programs do not slow it down."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def collect(run: Path) -> dict[str, Any]:
    """Take out of a finished run what its scores and its training came to."""
    scores = json.loads((run / "scores.json").read_text(encoding="utf-8"))
    measured = json.loads((run / "measured.json").read_text(encoding="utf-8"))
    kept = ("headline", "num_rows", "tuned", "base", "baselines")
    cost = ("train_seconds", "num_steps", "final_loss", "peak_bytes", "num_trainable", "device")
    return {
        **{key: scores[key] for key in kept},
        **{key: measured[key] for key in cost if key in measured},
    }


def summarize(seeds: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Say what each contestant reached over the seeds, metric by metric."""
    runs = list(seeds.values())
    contestants = {"tuned": [run["tuned"] for run in runs], "base": [run["base"] for run in runs]}
    for name in runs[0]["baselines"]:
        contestants[name] = [run["baselines"].get(name, {}) for run in runs]
    spread = {
        name: {metric: _spread([one.get(metric) for one in found]) for metric in found[0]}
        for name, found in contestants.items()
    }
    return {
        "headline": runs[0]["headline"],
        "num_rows": runs[0]["num_rows"],
        "train_seconds": _mean(runs, "train_seconds"),
        "processor_seconds": _mean(runs, "processor_seconds"),
        "spread": {name: found for name, found in spread.items() if found},
    }


def _mean(runs: Sequence[Mapping[str, Any]], name: str) -> float | None:
    found = [run[name] for run in runs if name in run]
    return round(statistics.mean(found), 1) if found else None


def _spread(values: Sequence[float | None]) -> dict[str, float] | None:
    """Give mean, standard deviation over seeds, least and most; None where one is missing."""
    found = [value for value in values if value is not None]
    if not found or len(found) < len(values):
        return None
    return {
        "mean": statistics.mean(found),
        "deviation": statistics.stdev(found) if len(found) > 1 else 0.0,
        "least": min(found),
        "most": max(found),
    }


def margin(content: Mapping[str, Any]) -> tuple[str, float] | None:
    """Name what comes nearest to the tuned model, and say by how much the worst seed beats it."""
    metric, spread = content["headline"], content["spread"]
    tuned = (spread.get("tuned") or {}).get(metric)
    rivals = {
        name: found[metric]["mean"]
        for name, found in spread.items()
        if name != "tuned" and found.get(metric)
    }
    if not tuned or not rivals:
        return None
    if metric in LOWER_IS_BETTER:
        name = min(rivals, key=lambda one: rivals[one])
        return name, rivals[name] - tuned["most"]
    name = max(rivals, key=lambda one: rivals[one])
    return name, tuned["least"] - rivals[name]


def table(contents: Iterable[Mapping[str, Any]]) -> str:
    """Lay out what was measured, a line a recipe, as a Markdown table."""
    heads = ("recipe", "metric", "seeds", "tuned", "least to most", "base", "best other",
             "worst seed's margin", "processor seconds")  # fmt: skip
    lines = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    lines += ["| " + " | ".join(_line(one)) + " |" for one in contents if one.get("spread")]
    return "\n".join(lines)


def _line(content: Mapping[str, Any]) -> tuple[str, ...]:
    metric, spread = content["headline"], content["spread"]

    def show(value: float) -> str:
        return format_score(metric, value)

    def mean(name: str) -> str:
        found = (spread.get(name) or {}).get(metric)
        return show(found["mean"]) if found else "-"

    tuned, num_seeds = spread["tuned"].get(metric), len(content["seeds"])
    seconds = content["processor_seconds"]
    reached = show(tuned["mean"]) if tuned else "-"
    if tuned and num_seeds > 1:
        reached += f" ± {show(tuned['deviation'])}"
    found = margin(content)
    return (
        content["recipe"],
        LABELS.get(metric, metric),
        str(num_seeds),
        reached,
        f"{show(tuned['least'])} to {show(tuned['most'])}" if tuned and num_seeds > 1 else "-",
        mean("base"),
        f"{found[0].replace('_', ' ')} {mean(found[0])}" if found else "-",
        f"{found[1]:+.3f}" if found else "-",
        "-" if seconds is None else f"{seconds:,.0f}",
    )


def main() -> int:
    """Measure what lacks, and print the table; 1 where a run failed or a seed beats nothing."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("recipes", nargs="*", help="names or files; all offline ones by default")
    parser.add_argument("--seeds", nargs="+", type=int, default=SEEDS)
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--runs", type=Path, default=RUNS, help="where the runs themselves go")
    parser.add_argument("--table", action="store_true", help="train nothing")
    parser.add_argument("--page", action="store_true", help="train nothing; write docs/quality.md")
    options = parser.parse_args()
    failed = []
    if not (options.table or options.page):
        for recipe in [find_recipe(name) for name in options.recipes] or offline_recipes():
            _, failures = measure(recipe, options.seeds, results=options.results, runs=options.runs)
            failed += [f"{recipe.stem}, seed {seed}" for seed in failures]
    wanted = {find_recipe(name).stem for name in options.recipes}
    files = sorted(options.results.glob("*.json"))
    contents = [json.loads(file.read_text(encoding="utf-8")) for file in files]
    if options.page:
        PAGE.write_text(f"{HEAD}{table(contents)}\n", encoding="utf-8")
    contents = [one for one in contents if not wanted or one["recipe"] in wanted]
    print(table(contents))
    beaten = [one["recipe"] for one in contents if (found := margin(one)) and found[1] <= 0]
    for name in beaten:
        print(f"{name}: a seed does not beat the best other")
    for name in failed:
        print(f"{name}: failed")
    return 1 if failed or beaten else 0


if __name__ == "__main__":
    raise SystemExit(main())
