"""Find what `data.rows` says that cannot be done to these rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from peftkit.errors import PeftkitError
from peftkit.plugins import Method, find
from peftkit.recipe.schema import Part, Recipe
from peftkit.recipe.stated import Found, Stated
from peftkit.recipe.strict import Gate, suggest

KEY = "data.rows"


def _document(stated: Stated) -> Found:
    data = stated.data
    if data is None or data.source is None:
        return
    said = data.rows
    if said.too_long != "cut":
        for name, default in (("document", None), ("keep", "start")):
            if getattr(said, name) != default:
                yield f"{KEY}.{name}", "is for too_long: cut", "write too_long: cut, or delete it"
        return
    tasks = list(_tasks(data.parts))
    columns = [column for task in tasks for column in task.columns]
    if said.document is not None and said.document not in columns:
        yield (
            f"{KEY}.document",
            f"no task reads a column {said.document!r}",
            suggest(said.document, columns) or f"one of {', '.join(dict.fromkeys(columns))}",
        )
        return
    for part, task in zip(data.parts, tasks, strict=False):
        if said.document not in task.columns and task.document is None:
            yield (
                f"{KEY}.too_long",
                f"the task {part.task.name} has no document that may be shortened",
                f"name one of its columns: {KEY}.document={task.columns[0]}; or too_long: drop",
            )


def _tasks(parts: tuple[Part, ...]) -> Iterator[Any]:
    """Construct each source's task; one that cannot be is refused where it stands."""
    for part in parts:
        try:
            plugin = find("tasks", part.task.name)
            yield plugin(plugin.Config(**part.task.options))
        except (PeftkitError, TypeError, ValueError):
            return


def check_limits(gate: Gate, recipe: Recipe, method: Method | None) -> None:
    """Refuse to leave out or shorten rows where a method takes them whatever their length."""
    if recipe.data.rows.too_long != "truncate" and method is not None and not method.limits_rows:
        gate.refuse(
            f"{KEY}.too_long",
            f"{recipe.method.name} takes rows of any length here, as windows, blocks or whole",
            "delete it",
        )


RULES: tuple[Callable[[Stated], Found], ...] = (_document,)
