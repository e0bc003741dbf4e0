"""Score base and tuned model, and trivial baselines, on the same rows of a split."""

from __future__ import annotations

import dataclasses
import json
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from peftkit.errors import DataError, UsageError
from peftkit.plugins.evaluation import Contestant, Evaluator, Progress
from peftkit.plugins.examples import Example
from peftkit.preprocessing.class_labels import labels_of_config
from peftkit.recipe.data_section import SPLITS
from peftkit.reporting.score_table import (
    LABELS,
    LOWER_IS_BETTER,
    format_score,
    render_table,
)
from peftkit.rundir.paths import RunDir, write_atomically, write_json
from peftkit.rundir.status import other_rows
from peftkit.rundir.whole import seal_of_samples
from peftkit.scoring.by_kind import evaluator_for
from peftkit.scoring.samples import make_samples
from peftkit.training.open_run import load_base_of

if TYPE_CHECKING:
    from peft import PeftModel
    from rich.console import RenderableType
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from peftkit.preprocessing.pipeline import Prepared
    from peftkit.recipe.build import Built
    from peftkit.training.open_run import TrainedRun

    Model: TypeAlias = PreTrainedModel | PeftModel

FEW_ROWS = 30
"""Below this, one row more or less moves a share by more than three points."""
NUM_RESAMPLES = 2000
LEVEL = 0.95


@dataclass(frozen=True)
class Intervals:
    """Bound the headline metric by a paired bootstrap over rows."""

    metric: str
    tuned: tuple[float, float]
    base: tuple[float, float] | None = None
    gain: tuple[float, float] | None = None
    """Of tuned over base, row by row; over the best baseline where there is no base."""
    over: str = "base"
    """What the gain is over."""
    level: float = LEVEL
    num_resamples: int = NUM_RESAMPLES


@dataclass(frozen=True)
class Scores:
    """Hold what an evaluation found; fractions are 0..1, BLEU and chrF 0..100."""

    split: str
    num_rows: int
    headline: str
    base: dict[str, float | None]
    """Empty for a model trained from scratch, which has no base."""
    tuned: dict[str, float | None]
    baselines: dict[str, dict[str, float | None]]
    intervals: Intervals | None
    num_unfinished: dict[str, int]
    """`base`, `tuned` -> answers that reached the limit of new tokens without an end."""
    num_cut: int
    """Prompts that lost the end of their last message, to leave room for an answer."""
    generation: dict[str, Any]
    """Native generation options in force; empty when nothing is generated."""
    seconds: float
    notes: tuple[str, ...]
    by_label: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    """Contestant -> how well it names each label; empty where answers are no labels."""
    samples: tuple[dict[str, Any], ...] = field(repr=False, default=())
    """One a row: prompt, reference, base, tuned, and each answer's headline score."""

    def to_json(self) -> dict[str, Any]:
        """Return the content of `scores.json`."""
        content = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        del content["samples"]
        if self.intervals:
            content["intervals"] = {
                key: value
                for key, value in dataclasses.asdict(self.intervals).items()
                if value is not None
            }
            if not self.intervals.gain:
                del content["intervals"]["over"]
        if not self.by_label:
            del content["by_label"]
        return content


def evaluate(  # noqa: PLR0913
    built: Built,
    prepared: Prepared,
    model: Model,
    tokenizer: PreTrainedTokenizerBase,
    *,
    split: str,
    limit: int | None = None,
    progress: Progress | None = None,
) -> Scores:
    """Score a trained model and its base on the first rows of a split.

    Args:
        limit: rows; all of them when None.

    Raises:
        DataError: the split has no rows.
    """
    started = time.monotonic()
    examples = _examples(prepared, split, limit)
    raw = prepared.rows[split][: len(examples)]
    evaluator = evaluator_for(built, model, tokenizer, examples, raw=raw, progress=progress)
    tuned = evaluator.take(model, "tuned")
    before = _take_with_base(evaluator, built, model) if evaluator.scores_base else None
    references = evaluator.references
    contestants = {"base": before, "tuned": tuned} if before else {"tuned": tuned}
    trivial = _baselines(built, prepared, split, references)
    row_scores = {name: evaluator.row_scores(one) for name, one in contestants.items()}
    rival = None if before else _best(trivial, evaluator)
    intervals = _intervals(evaluator.headline, contestants, row_scores, rival)
    return Scores(
        split=split,
        num_rows=len(examples),
        headline=evaluator.headline,
        base=before.metrics if before else {},
        tuned=tuned.metrics,
        baselines={name: one.metrics for name, one in trivial.items()},
        intervals=intervals,
        num_unfinished={name: one.num_unfinished for name, one in contestants.items()},
        num_cut=evaluator.num_cut,
        generation=dict(evaluator.options),
        seconds=round(time.monotonic() - started, 2),
        notes=(
            *_too_few(len(examples)),
            *_gain(intervals),
            *_said_of(contestants, evaluator),
            *(built.task.notes_on(references) if references else ()),
        ),
        by_label={name: one.by_label for name, one in contestants.items() if one.by_label},
        samples=make_samples(examples, contestants, row_scores),
    )


def evaluate_run(  # noqa: PLR0913 - the command's own options
    path: str | Path,
    *,
    split: str | None = None,
    limit: int | None = None,
    overrides: Sequence[str] = (),
    base: str | None = None,
    allow_other_base: bool = False,
    progress: Progress | None = None,
) -> tuple[Scores, Path]:
    """Score a finished run on any split, and write what was found into its directory.

    What the recipe itself asks for goes to `scores.json`; another split, limit or override goes
    to `scores-SPLIT.json` beside it, so that the run's own scores are never lost.

    Args:
        split: one of the recipe's, or a native split of its source; the recipe's own by default.
        limit: rows; the recipe's for its own split, else all.
        overrides: `KEY=VALUE` of the sections `model`, `data` and `evaluate`.
        base: where the base lies now; where the run says when absent.
        allow_other_base: score although the base's weights are other ones than in training.

    Returns: the scores, and the file they were written to.
    Raises:
        ArtefactError: the directory holds no trained model.
        UsageError: no split is named anywhere, or an override would change what was trained.
    """
    from peftkit.preprocessing.pipeline import inspect_rows
    from peftkit.system.exhaustion import exhaustion_explained
    from peftkit.training.open_run import load_tuned, open_run

    run = open_run(RunDir(Path(path)), overrides, base=base, allow_other_base=allow_other_base)
    _check(overrides, run.built)
    section = run.built.recipe.evaluate
    chosen = split or (section.split if section else None)
    if chosen is None:
        raise UsageError(f"the recipe of {path} evaluates no split", hint="name one with --split")
    own_limit = section.limit if section and chosen == section.split else None
    is_own = bool(section and chosen == section.split and limit in (None, own_limit))
    run, name = _with_split(run, chosen, overrides)
    prepared = inspect_rows(run.built, run.tokenizer, splits=[name])
    with exhaustion_explained("evaluating"):
        scores = evaluate(
            run.built,
            prepared,
            load_tuned(run),
            run.tokenizer,
            split=name,
            limit=limit or own_limit,
            progress=progress,
        )
    notes = (
        *([f"{run.other_base}."] if run.other_base else []),
        *other_rows(run.run_dir, name, prepared.split_fingerprints),
        *scores.notes,
    )
    scores = dataclasses.replace(scores, split=chosen, notes=notes)
    return scores, write_scores(run.run_dir, scores, is_own=is_own and not overrides)


def write_scores(run_dir: RunDir, scores: Scores, *, is_own: bool = True) -> Path:
    """Write `scores.json` and `samples.jsonl`, or `-SPLIT` beside the run's own; return the first.

    Args:
        is_own: whether this is what the run's recipe asks for.
    """
    suffix = "" if is_own else "-" + re.sub(r"[^\w.-]+", "_", scores.split)
    file = run_dir.scores.with_stem(f"scores{suffix}")
    samples = run_dir.samples.with_stem(f"samples{suffix}")
    lines = (json.dumps(sample, ensure_ascii=False) + "\n" for sample in scores.samples)
    write_atomically(samples, "".join(lines))
    write_json(file, {**scores.to_json(), **seal_of_samples(samples)})
    return file


def _with_split(run: TrainedRun, chosen: str, overrides: Sequence[str]) -> tuple[TrainedRun, str]:
    """Give a run whose recipe has the split, and the recipe's name for it.

    A native split that the recipe does not use stands in for its `test`.

    Raises:
        UsageError: neither the recipe nor its source has such a split.
    """
    from peftkit.training.open_run import open_run

    splits, native = run.built.recipe.data.all_splits, run.built.source.splits()
    if chosen in splits:
        return run, chosen
    if native and chosen not in native:
        known = dict.fromkeys((*splits, *native))
        raise UsageError(f"there is no split {chosen!r}", hint=f"one of {', '.join(known)}")
    name = chosen if chosen in SPLITS else "test"
    override = f"data.splits.{name}={json.dumps(chosen)}"
    again = open_run(run.run_dir, [*overrides, override], allow_other_base=bool(run.other_base))
    return again, name


def _check(overrides: Sequence[str], built: Built) -> None:
    """Refuse overrides of what a trained run can no longer change."""
    name = built.recipe.method.name
    free = [f"method.{name}.{option}" for option in sorted(built.method.answer_options)]
    for override in overrides:
        key = override.partition("=")[0].strip()
        if key.partition(".")[0] not in ("model", "data", "evaluate") and key not in free:
            raise UsageError(
                f"{override}: this run is trained; an evaluation can change the sections model,"
                f" data and evaluate{''.join(f', or {key}' for key in free)}",
                hint="e.g. evaluate.generation.max_new_tokens=128",
            )


def render_scores(scores: Scores) -> RenderableType:
    """Show scores in the terminal: metrics in rows, base, tuned and baselines in columns."""
    return render_table({"schema_version": 1, **scores.to_json()})


def _examples(prepared: Prepared, split: str, limit: int | None) -> Sequence[Example]:
    if split not in prepared.examples:
        raise UsageError(
            f"there is no split {split!r}", hint=f"one of {', '.join(prepared.examples)}"
        )
    examples = prepared.examples[split][:limit]
    if not examples:
        raise DataError(f"the split {split!r} has no usable rows to evaluate")
    return examples


def _baselines(
    built: Built, prepared: Prepared, split: str, references: Sequence[str]
) -> dict[str, Contestant]:
    """Return trivial answers: the task's own, and what says the same of every row."""
    num_rows = len(references)
    if not num_rows:
        return {}
    rows = prepared.rows[split][:num_rows].to_list()
    trivial = built.task.baselines(rows)
    constant = prepared.labels.baselines
    trivial |= {name: [answer] * num_rows for name, answer in constant.items()}
    return {
        name: Contestant({**built.task.score(texts, references)}, tuple(texts))
        for name, texts in trivial.items()
    }


def _take_with_base(evaluator: Evaluator, built: Built, model: Model) -> Contestant | None:
    """Score the base: the model with its adapter switched off, or a base of its own."""
    from peftkit.adapters.switched_off import adapter_switched_off, keeps_base

    if keeps_base(model):
        with adapter_switched_off(model) as inner:
            return evaluator.take(inner, "base")
    if built.recipe.model.config is not None:
        return None
    labels: dict[str, Any] = {}
    brought = None
    if built.method.kind.has_new_head:  # asked only where its head is the base's own
        labels, brought = labels_of_config(model.config.to_dict()), frozenset[str]()
    base = load_base_of(built, model.device.type, labels, brought)
    return evaluator.take(base, "base")


def _best(
    trivial: Mapping[str, Contestant], evaluator: Evaluator
) -> tuple[str, list[float]] | None:
    """Return the best of the trivial answers, by the headline, with the score of each row."""
    metric, sign = evaluator.headline, -1 if evaluator.headline in LOWER_IS_BETTER else 1
    known = {name: value for name, one in trivial.items() if (value := one.metrics.get(metric))}
    if not known:
        return None
    name = max(known, key=lambda name: sign * known[name])
    return name, evaluator.row_scores(trivial[name])


def _intervals(
    headline: str,
    contestants: Mapping[str, Contestant],
    row_scores: Mapping[str, list[float]],
    rival: tuple[str, list[float]] | None = None,
) -> Intervals | None:
    """Bound the headline metric, where it is the mean of its rows (BLEU, of a corpus, is not).

    Args:
        rival: what the gain is over where there is no base, and its rows' scores.
    """
    import numpy

    if min(map(len, row_scores.values())) < 2:
        return None
    for name, one in contestants.items():
        mean, stated = numpy.mean(row_scores[name]), one.metrics[headline]
        if stated is None or not numpy.isclose(mean, stated, rtol=1e-6, atol=1e-9):
            return None
    num_rows = len(row_scores["tuned"])
    picks = numpy.random.default_rng(0).integers(num_rows, size=(NUM_RESAMPLES, num_rows))

    def bounds(values: Any) -> tuple[float, float]:
        tail = (1 - LEVEL) / 2
        low, high = numpy.quantile(numpy.asarray(values)[picks].mean(axis=1), (tail, 1 - tail))
        return float(low), float(high)

    tuned, base = row_scores["tuned"], row_scores.get("base")
    over, other = rival if base is None and rival else ("base", base)
    gain = bounds(numpy.subtract(tuned, other)) if other else None
    return Intervals(headline, bounds(tuned), None if base is None else bounds(base), gain, over)


def _too_few(num_rows: int) -> Iterator[str]:
    """Say that scores of a handful of rows say little."""
    if num_rows < FEW_ROWS:
        rows = "One row is" if num_rows == 1 else f"{num_rows} rows are"
        yield f"{rows} too few to tell one model from another: chance alone moves such scores."


def _gain(intervals: Intervals | None) -> Iterator[str]:
    """Say how sure the gain is, and where it may be none."""
    if intervals and intervals.gain:
        low, high = (format_score(intervals.metric, bound) for bound in intervals.gain)
        label = LABELS.get(intervals.metric, intervals.metric)
        over = "" if intervals.over == "base" else f" over {intervals.over.replace('_', ' ')}"
        yield f"The gain in {label}{over} is {low} to {high} (95 % paired bootstrap over rows)."
        if intervals.gain[0] <= 0 <= intervals.gain[1]:
            yield "That interval holds zero: these rows do not show that training helped."


def _said_of(contestants: Mapping[str, Contestant], evaluator: Evaluator) -> Iterator[str]:
    """Say what is to be known of the answers beside their scores."""
    for name, one in contestants.items():
        yield from evaluator.notes_on(name.capitalize(), one)
    yield from evaluator.notes
    yield from _unfinished(evaluator, contestants)


def _unfinished(evaluator: Evaluator, contestants: Mapping[str, Contestant]) -> Iterator[str]:
    """Say how many answers have no end."""
    counts = [f"{one.num_unfinished} of {name}'s" for name, one in contestants.items()]
    if any(one.num_unfinished for one in contestants.values()):
        limit = evaluator.options.get("max_new_tokens")
        yield (
            f"Without an end after {limit} tokens: {' and '.join(counts)}"
            f" {len(evaluator.references)} answers."
        )
