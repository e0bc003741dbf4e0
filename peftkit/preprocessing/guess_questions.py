"""Guess whether rows are questions about texts, as SQuAD has them, and how their answers stand."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

QUESTIONS = ("question", "query")
PASSAGES = ("context", "passage", "paragraph", "document", "text")
ANSWERS = ("answers", "answer", "answer_text")
STARTS = ("answer_start", "answer_starts", "start", "start_char")


def guess_questions(
    rows: Sequence[Mapping[str, Any]], texts: Sequence[str], *, is_asked: bool
) -> tuple[dict[str, Any], str] | None:
    """Return the task's options, and why; None where the columns are none of SQuAD's.

    Args:
        texts: the columns that hold text.
        is_asked: whether the task was named, so that answers may do without a place.
    """
    columns = list(rows[0])
    question, context = first(texts, QUESTIONS), first(texts, PASSAGES)
    answers, start = first(columns, ANSWERS), first(columns, STARTS)
    if not (question and context and answers):
        return None
    is_nested = answers not in texts
    if is_nested:
        start = None
    elif start is None and not is_asked:
        return None
    options: dict[str, Any] = {"question": question, "context": context, "answers": answers}
    if start is not None:
        options["answer_start"] = start
    spans = [list(_spans(row[answers])) for row in rows]
    has_place = start is not None or all(place is not None for row in spans for _, place in row)
    if is_nested and not any(spans):
        return None
    why = f"columns {question!r}, {context!r} and {answers!r}"
    if not all(spans):
        options["version_2_with_negative"] = True
        why += f"; {sum(not row for row in spans)} of {len(rows)} questions have no answer"
    if not has_place:
        options["search"] = True
        why += "; answers without a place are looked for"
    return options, why


def _spans(value: Any) -> Iterator[tuple[str, Any]]:
    """Give the answers that a value holds, each with its place, None where it has none."""
    if isinstance(value, Mapping):
        texts, starts = value.get("text") or [], value.get("answer_start")
        texts = [texts] if isinstance(texts, str) else texts
        starts = starts if isinstance(starts, list) else [starts] * len(texts)
        yield from zip(texts, starts, strict=False)
    elif isinstance(value, list):
        for one in value:
            is_object = isinstance(one, Mapping)
            yield (one.get("text"), one.get("answer_start")) if is_object else (one, None)
    elif value:
        yield value, None


def first(columns: Sequence[str], names: Sequence[str]) -> str | None:
    """Return the column that has one of these names, the earliest of them; case does not count."""
    by_name = {column.lower(): column for column in columns}
    return next((by_name[name] for name in names if name in by_name), None)
