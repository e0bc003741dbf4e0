"""samples.jsonl, one JSON object a scored row, read as it was written."""

from __future__ import annotations

import itertools
import json
from typing import Any

from peftkit.errors import ArtefactError, first_line
from peftkit.rundir.paths import RunDir
from peftkit.rundir.whole import check_logs


def read_samples(run_dir: RunDir, most: int | None = None) -> list[dict[str, Any]]:
    """Read a run's scored rows, the first ones; none where nothing was scored.

    Raises:
        ArtefactError: the file is not what an evaluation wrote.
    """
    file = run_dir.samples
    if not file.is_file():
        return []
    check_logs(run_dir)
    try:
        with file.open(encoding="utf-8") as stream:
            found = [json.loads(line) for line in itertools.islice(stream, most)]
    except (OSError, ValueError, RecursionError) as error:
        raise _wrong(run_dir, first_line(error)) from None
    strangers = [row for row in found if not isinstance(row, dict)]
    if strangers:
        raise _wrong(run_dir, f"{strangers[0]!r:.60} is no row")
    return found


def text_of(sample: dict[str, Any], key: str) -> str:
    """Return one of a row's texts; of a conversation, what its last message says."""
    value = sample.get(key, "")
    if isinstance(value, list) and value and isinstance(value[-1], dict):
        value = value[-1].get("content", "")
    return value if isinstance(value, str) else ""


def _wrong(run_dir: RunDir, what: str) -> ArtefactError:
    return ArtefactError(
        f"{run_dir.samples} is not what an evaluation wrote: {what}",
        hint=f"peftkit run {run_dir.path}",
    )
