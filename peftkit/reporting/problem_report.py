"""One file about a problem, for whoever is to mend it: without secrets, and without any data.

Of texts only what peftkit and the stack write themselves is kept: what stands in quotes may be of a
row, and what looks like a secret may be one.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from peftkit.errors import ArtefactError
from peftkit.rundir.metrics import read_metrics
from peftkit.rundir.paths import RunDir

_TOKENS = re.compile(
    r"\b(?:hf_|sk-|ghp_|gho_|github_pat_|glpat-|xox[abp]-|AKIA|ya29\.|eyJ)[\w.\-]{8,}"
)
"""How the secrets of well-known services begin."""
_STATED = re.compile(
    r"(?i)([\w.\-]*(?:token|secret|passwd|password|api[_-]?key|authorization|credentials?))"
    r"(['\"]?\s*[:=]\s*)(?!\d+\b|true\b|false\b|null\b|[\[{])(\S[^\n#]*)"
)
"""A key that names a secret, and its value where that is a text."""
_QUOTED = re.compile(r"'(?:[^'\\\n]|\\.)*'|\"(?:[^\"\\\n]|\\.)*\"")
_SECRET_NAMES = re.compile(r"(?i)token|secret|passw|api_?key|credential|auth")
_LEAST = 8
"""Characters of a value in the environment that is taken for a secret."""


def problem_report(
    findings: Sequence[Mapping[str, Any]], run_dir: RunDir | None, failure: Mapping[str, Any]
) -> str:
    """Lay out what is known: the environment, a run of it, and the last bug that was met.

    Args:
        findings: of `peftkit doctor`.
        run_dir: the run that went wrong, where one did.
        failure: as `peftkit.system.last_failure` kept it; empty where none was.
    """
    parts = ["peftkit doctor --report", "", *_section("environment", _environment(findings))]
    if failure:
        parts += _section("last bug", _bug(failure))
    if run_dir is not None:
        parts += _section(f"run {run_dir.path.name}", _run(run_dir))
    return without_secrets("\n".join(parts)) + "\n"


def without_secrets(text: str) -> str:
    """Return a text without what may be a secret, and without the name of its user's folder."""
    for name, value in os.environ.items():
        if _SECRET_NAMES.search(name) and len(value) >= _LEAST:
            text = text.replace(value, "<secret>")
    text = _TOKENS.sub("<secret>", text)
    text = _STATED.sub(r"\1\2<secret>", text)
    home = str(Path.home()) if os.environ.get("HOME") else ""
    return text.replace(home, "~") if len(home) > 1 else text


def without_quotes(text: str) -> str:
    """Return a message without what it quotes, which may be of a row."""
    return _QUOTED.sub("'...'", text)


def _section(title: str, lines: Iterator[str]) -> list[str]:
    return [f"== {title}", *lines, ""]


def _environment(findings: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    for one in findings:
        yield f"{one['state']:<5} {one['group']}: {one['name']}: {one['detail']}"


def _bug(failure: Mapping[str, Any]) -> Iterator[str]:
    arguments = failure.get("arguments")
    said = arguments if isinstance(arguments, list) else []
    # What is typed after a verb may be a prompt: only names of options, and overrides, are kept.
    shown = [str(one) for one in said[:1]]
    shown += [str(one) for one in said[1:] if re.match(r"--?\w[\w-]*$|[\w.]+=", str(one))]
    yield f"peftkit {' '.join(shown)}   at {failure.get('time')}"
    yield without_quotes(str(failure.get("error", "")))[:2000]
    frames = failure.get("frames")
    yield from (f"  {one}" for one in (frames if isinstance(frames, list) else []))


def _run(run_dir: RunDir) -> Iterator[str]:
    for file in (run_dir.status, run_dir.versions, run_dir.plan, run_dir.measured):
        yield f"-- {file.name}"
        yield _content(run_dir, file)
    yield f"-- {run_dir.data.name}: counts of the audit"
    yield _content(run_dir, run_dir.data, numbers_only=True)
    for file in (run_dir.recipe, run_dir.resolved):
        yield f"-- {file.name}"
        yield _text(file)
    yield f"-- {run_dir.metrics.name}: the last lines"
    try:
        yield from (json.dumps(line) for line in read_metrics(run_dir.metrics)[-5:])
    except ArtefactError as error:
        yield error.message


def _content(run_dir: RunDir, file: Path, *, numbers_only: bool = False) -> str:
    try:
        content = run_dir.read_if_there(file)
    except ArtefactError as error:
        return error.message
    if not content:
        return "(not there)"
    kept = _numbers(content) if numbers_only else content
    text = json.dumps(kept, indent=1, ensure_ascii=True)
    message = content.get("message")
    if isinstance(message, str) and message:
        text = text.replace(json.dumps(message), json.dumps(without_quotes(message)))
    return text


def _numbers(value: Any) -> Any:
    """Return the numbers of nested data, under keys without what those quote; no text of a row."""
    match value:
        case dict():
            found = {without_quotes(str(key)): _numbers(one) for key, one in value.items()}
            return {key: one for key, one in found.items() if one not in (None, {}, [])}
        case bool() | int() | float():
            return value
    return None


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return "(not there)"
