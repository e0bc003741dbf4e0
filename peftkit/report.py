"""Write `report.html`: one self-contained page about a run, made from its files alone."""

from __future__ import annotations

import base64
import hashlib
import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peftkit.errors import ArtefactError, PeftkitError, first_line
from peftkit.plugins import find
from peftkit.reporting.label_table import label_lines
from peftkit.reporting.plan_table import lay_out_plan
from peftkit.reporting.score_table import ScoreTable, format_score, headline, tabulate
from peftkit.rundir.drift import recorded_drift
from peftkit.rundir.metrics import read_metrics
from peftkit.rundir.paths import RunDir, write_atomically
from peftkit.rundir.samples import read_samples
from peftkit.rundir.whole import check_logs
from peftkit.system.units import exact_duration, gibibytes

if TYPE_CHECKING:
    from peftkit.reporting.loss_curve import LossCurve

MAX_SAMPLES = 8
MAX_CHARS = 2000
"""Longest text of a sample that is shown; the rest is in samples.jsonl."""
MAX_MASKS = 6
_REGULARIZERS = {
    "label_smoothing_factor": "label smoothing",
    "neftune_noise_alpha": "NEFTune",
    "weight_decay": "weight decay",
    "lora_dropout": "dropout",
}
MASK_EDGE = 60
"""Untrained tokens shown at each end of a long untrained stretch."""


@dataclass(frozen=True)
class Piece:
    """Show one token of a mask, or say how many are left out."""

    text: str
    is_trained: bool
    num_omitted: int = 0


@dataclass(frozen=True)
class Sample:
    """Show one scored row before and after."""

    number: int
    title: str
    prompt: str
    reference: str
    base: str | None
    """None where the base was not scored."""
    tuned: str
    score: str


def write_report(run: RunDir | str | Path) -> Path:
    """Write a run's page from whatever files the run has so far, and return it.

    Raises:
        ArtefactError: the directory is not a run, or one of its files is broken.
    """
    run_dir = run if isinstance(run, RunDir) else RunDir(Path(run))
    write_atomically(run_dir.report, render_page(run_dir))
    return run_dir.report


def render_page(run_dir: RunDir) -> str:
    """Return the page's HTML."""
    import jinja2

    if not run_dir.path.is_dir() or not (run_dir.recipe.exists() or run_dir.resolved.exists()):
        raise ArtefactError(
            f"{run_dir.path} is not a run directory",
            hint="`peftkit runs` lists the runs that exist",
        )
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    source = (
        resources.files("peftkit.reporting").joinpath("report.html.j2").read_text(encoding="utf-8")
    )
    style = source.split("<style>", 1)[1].split("</style>", 1)[0]
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    try:
        return environment.from_string(source).render(style_hash=digest, **view(run_dir)) + "\n"
    except (PeftkitError, MemoryError):
        raise
    except (TypeError, ValueError, LookupError, AttributeError, OSError, jinja2.TemplateError) as e:
        raise ArtefactError(
            f"{run_dir.path}: one of its files holds what no run writes: {first_line(e)}",
            hint=f"peftkit run {run_dir.path}",
        ) from e


def view(run_dir: RunDir) -> dict[str, Any]:
    """Gather everything the template shows; a part whose file is missing is empty."""
    check_logs(run_dir)
    resolved = run_dir.read_resolved()
    plan, measured, versions, status, data, scores = (
        run_dir.read_if_there(file)
        for file in (
            run_dir.plan, run_dir.measured, run_dir.versions, run_dir.status, run_dir.data,
            run_dir.scores,
        )
    )  # fmt: skip
    recipe = run_dir.recipe.read_text("utf-8", "replace") if run_dir.recipe.exists() else ""
    audits = data.get("splits", {})
    found = list(audits.values())
    return {
        "name": str(resolved.get("name") or run_dir.path.name),
        "state": _state(status),
        "facts": [
            *_facts(resolved, measured, versions),
            *(("Changed", line, "") for line in recorded_drift(run_dir)),
            *_tracked(run_dir.read_if_there(run_dir.trackers)),
        ],
        "scores": tabulate(scores),
        "label_lines": label_lines,
        "other_scores": _other_scores(run_dir),
        "headline": headline(scores),
        "curve": _curve(run_dir),
        "loss_is": _loss_is(resolved.get("method")),
        "plan": lay_out_plan(plan, measured),
        "samples": _samples(run_dir, str(scores.get("headline", ""))),
        "masks": _masks(data),
        "audits": audits,
        "labels": list(dict.fromkeys(name for one in found for name in one.get("labels", {}))),
        "weights": audits.get("train", {}).get("weights", {}),
        "has_numbers": any(one.get("numbers") for one in found),
        "has_targets": any(one.get("target_percentiles") for one in found),
        "fingerprint": data.get("fingerprint", ""),
        "decisions": _decisions(resolved),
        "versions": _versions(versions),
        "command": _command(run_dir, versions),
        "recipe": recipe[:20_000],
    }


def _other_scores(run_dir: RunDir) -> list[ScoreTable]:
    """Lay out what `peftkit evaluate` found on other splits, or with other settings."""
    files = sorted(run_dir.path.glob("scores-*.json"))
    tables = [tabulate(run_dir.read_json(file)) for file in files]
    return [table for table in tables if table is not None]


def _curve(run_dir: RunDir) -> LossCurve | None:
    from peftkit.reporting.loss_curve import lay_out

    return lay_out(read_metrics(run_dir.metrics))


def _loss_is(section: Any) -> str:
    """Say what a method's loss is; its plugin may have been installed on another machine only."""
    try:
        return str(find("methods", _method(section)[0]).loss_is)
    except PeftkitError:
        return "loss"


def _state(status: Mapping[str, Any]) -> dict[str, str]:
    """Say in a word and a sentence how far the run is."""
    state = str(status.get("state", "unknown"))
    step, total = status.get("step"), status.get("total_steps")
    reached = f"at step {step:,} of {total:,}" if step is not None and total else ""
    sentence = {
        "finished": "",
        "running": f"This run is not finished: the page was made {reached or 'while it ran'}.",
        "stopped": f"This run was stopped {reached}. The same command resumes it.",
        "failed": f"This run failed {reached}.",
    }.get(state, "")
    message = str(status.get("message") or "") if state != "finished" else ""
    return {"word": state, "sentence": " ".join(sentence.split()).replace(" .", "."),
            "message": message}  # fmt: skip


def _tracked(trackers: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Say in which trackers the run is to be seen."""
    found = {name: one for name, one in trackers.items() if isinstance(one, dict)}
    return [("Tracked in", name, str(one.get("where", ""))) for name, one in found.items()]


def _facts(
    resolved: Mapping[str, Any], measured: Mapping[str, Any], versions: Mapping[str, Any]
) -> list[tuple[str, str, str]]:
    """Return label, value and small print for the head of the page."""
    facts: list[tuple[str, str, str]] = []
    model = resolved.get("model") or {}
    recorded = versions.get("model") or {}
    revision = str(recorded.get("revision") or "")[:12]
    path = model.get("path") or recorded.get("path")
    if not path and model.get("config"):
        path = f"new {model['config'].get('model_type', 'model')}"
    if path:
        facts.append(("Base model", str(path), f"revision {revision}" if revision else ""))
    if adapter := _choice(resolved.get("adapter")):
        trained, total = measured.get("num_trainable"), measured.get("num_parameters")
        share = f"{trained:,} of {total:,} parameters ({trained / total:.2%})" if total else ""
        facts.append(("Trained", adapter, share))
    if method := resolved.get("method"):
        facts.append(("Method", *_method(method)))
        if against := _against_overfitting(resolved, method, measured):
            facts.append(("Against overfitting", *against))
    if seconds := measured.get("train_seconds"):
        speed = measured.get("tokens_per_second")
        small = f"{speed:,.0f} tokens a second" if speed else ""
        facts.append(("Training time", exact_duration(seconds), small))
    if device := measured.get("device") or versions.get("device"):
        peak, kind = measured.get("peak_bytes"), measured.get("peak_kind", "")
        small = f"peak {kind} memory {gibibytes(peak)}" if peak else ""
        facts.append(("Device", str(device), small))
    return facts


def _choice(section: Any) -> str:
    """Say a one-key mapping in words: its name and its own scalar options."""
    if not isinstance(section, dict) or not section:
        return {"full": "every parameter"}.get(str(section), str(section or ""))
    name, options = next(iter(section.items()))
    if name == "from":
        return f"continued from {options}"
    shown = [f"{key} {options[key]}" for key in ("r", "lora_alpha") if key in (options or {})]
    return ", ".join([str(name), *shown])


def _method(section: Any) -> tuple[str, str]:
    name, options = next(iter(section.items())) if isinstance(section, dict) else (section, {})
    options = options or {}
    small = []
    if rate := options.get("learning_rate"):
        small.append(f"learning rate {rate:g}" if isinstance(rate, float) else f"rate {rate}")
    if (steps := options.get("max_steps")) and steps > 0:
        small.append(f"{steps:,} steps")
    elif epochs := options.get("num_train_epochs"):
        small.append(f"{epochs:g} epochs" if epochs != 1 else "1 epoch")
    return str(name), ", ".join(small)


def _against_overfitting(
    resolved: Mapping[str, Any], section: Any, measured: Mapping[str, Any]
) -> tuple[str, str] | None:
    """Say what was on against learning rows by heart, and which checkpoint was kept."""
    options = next(iter(section.values())) if isinstance(section, dict) else {}
    chosen = resolved.get("adapter")
    trained = next(iter(chosen.values())) if isinstance(chosen, dict) else {}
    on = []
    if stopping := resolved.get("early_stopping"):
        on.append(f"early stopping (patience {stopping['patience']})")
    elif (options or {}).get("load_best_model_at_end"):
        on.append("best checkpoint")
    for name, words in _REGULARIZERS.items():
        stated = trained if name == "lora_dropout" else options
        if isinstance(stated, dict) and stated.get(name):
            on.append(f"{words} {stated[name]:g}")
    if not on:
        return None
    kept, step = measured.get("kept_step"), measured.get("num_steps")
    small = f"the weights of step {kept:,} are kept, of {step:,} trained" if kept else ""
    return ", ".join(on), small


def _samples(run_dir: RunDir, metric: str) -> list[Sample]:
    """Pick rows spread evenly from the worst tuned answer to the best."""
    records = list(enumerate(read_samples(run_dir)))
    # Every prompt of a task opens with the same instruction, which names no row
    opening = _common_start([_text(record.get("prompt")) for _, record in records])
    scored = all("scores" in record for _, record in records)
    if scored:
        records.sort(key=lambda item: item[1]["scores"].get("tuned", 0.0))
    if len(records) > MAX_SAMPLES:
        last = len(records) - 1
        records = [records[round(i * last / (MAX_SAMPLES - 1))] for i in range(MAX_SAMPLES)]
    if scored:
        records.reverse()
    skip = len(opening) if len(records) > 1 else 0
    return [_sample(number, record, metric, skip) for number, record in records]


def _common_start(texts: Sequence[str]) -> str:
    first, last = min(texts, default=""), max(texts, default="")
    num_equal = next(
        (i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), len(first)
    )
    return first[:num_equal]


def _sample(number: int, record: Mapping[str, Any], metric: str, skip: int) -> Sample:
    prompt = _text(record.get("prompt"))
    start = prompt.rfind("\n", 0, skip) + 1
    lines = [line.strip() for line in prompt[start:].splitlines() if line.strip()]
    first = lines[0] if lines else "(empty prompt)"
    scores = record.get("scores") or {}
    score = ""
    if "tuned" in scores and "base" in scores:
        before, after = (format_score(metric, scores[name]) for name in ("base", "tuned"))
        score = f"{before} → {after}"
    chance = f", {record['probability']:.0%} sure" if "probability" in record else ""
    return Sample(
        number=number,
        title=first if len(first) <= 90 else first[:89] + "…",
        prompt=prompt,
        reference=_text(record.get("reference")),
        base=_text(record["base"]) if "base" in record else None,
        tuned=_text(record.get("tuned")) + chance,
        score=score,
    )


def _text(value: Any) -> str:
    """Turn a sample's field, plain text or chat messages, into text of bounded length."""
    if isinstance(value, list):
        value = "\n\n".join(
            f"{m.get('role', '')}: {m.get('content', '')}" if isinstance(m, dict) else str(m)
            for m in value
        )
    text = "" if value is None else str(value)
    return text if len(text) <= MAX_CHARS else text[:MAX_CHARS] + " …"


def _masks(data: Mapping[str, Any]) -> list[tuple[str, int, str, list[Piece]]]:
    """Return split, row, what is trained and pieces for each shown row."""
    shown = []
    for split, rows in (data.get("mask_samples") or {}).items():
        for number, row in enumerate(rows):
            tokens, trained = row.get("tokens", []), row.get("trained", [])
            num_trained = sum(map(bool, trained))
            what = f"{num_trained} of {len(tokens)} tokens trained"
            if label := row.get("label"):
                what = f"label {label} for {len(tokens)} tokens"
            shown.append((split, number, what, _pieces(tokens, trained)))
    return shown[:MAX_MASKS]


def _pieces(tokens: Sequence[str], trained: Sequence[bool]) -> list[Piece]:
    from itertools import groupby

    pieces: list[Piece] = []
    pairs = list(zip(map(str, tokens), map(bool, trained), strict=False))
    for is_trained, group in groupby(pairs, key=lambda pair: pair[1]):
        run = [text for text, _ in group]
        spare = len(run) - 2 * MASK_EDGE
        if not is_trained and spare > 20:
            pieces += [Piece(text, False) for text in run[:MASK_EDGE]]
            pieces.append(Piece("", False, spare))
            run = run[-MASK_EDGE:]
        pieces += [Piece(text, is_trained) for text in run[:600]]
        if len(run) > 600:
            pieces.append(Piece("", is_trained, len(run) - 600))
    return pieces


def _decisions(resolved: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    decisions = resolved.get("decisions") or []
    return [
        (str(d.get("key", "")), json.dumps(d.get("value"), default=str), str(d.get("reason", "")))
        for d in decisions
        if isinstance(d, dict)
    ]


def _versions(versions: Mapping[str, Any]) -> list[tuple[str, str]]:
    rows = [(key, versions[key]) for key in ("python", "platform") if versions.get(key)]
    rows += sorted((versions.get("packages") or {}).items())
    return [(str(name), str(version)) for name, version in rows]


def _command(run_dir: RunDir, versions: Mapping[str, Any]) -> str:
    if command := versions.get("command"):
        return command if isinstance(command, str) else shlex.join(map(str, command))
    return shlex.join(["peftkit", "run", f"{run_dir.path.name}/{run_dir.recipe.name}"])
