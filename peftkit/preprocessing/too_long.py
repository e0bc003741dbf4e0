"""What becomes of rows that are too long: left out, or their document shortened until they fit.

The document is a column of the row. The task makes its example anew of the shortened text, so that
instruction, answer and what ends it are whole, whatever the task and whatever trains on it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from peftkit.errors import DataError
from peftkit.preprocessing.encode import Encoded, Fitter, LeftOutError, to_arrays
from peftkit.preprocessing.read_rows import RawRows
from peftkit.sources.columns import look_up, put
from peftkit.sources.formats import rendering_for

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase

    from peftkit.plugins import Example, Method, Row
    from peftkit.preprocessing.class_labels import Labels
    from peftkit.preprocessing.read_rows import SplitRows
    from peftkit.recipe.build import Built
    from peftkit.recipe.schema import RowsSection

MAX_ROUNDS = 12
"""A text that is encoded anew once it is shorter may have a few tokens more than were counted."""
WORD_CHARS = 40
"""How far a cut moves to stand between two words."""

Excess = Callable[[Sequence[int], Sequence[str]], Sequence[int]]
"""Given texts by their places and what is left of each, return by how many tokens it is too long;
a negative number for one that cannot be used."""


def excess_tokens(rows: Sequence[Row], method: Method) -> int:
    """Return by how many tokens an example's rows are too long: 0 where they fit.

    It is negative where the answer has a limit of its own and alone is too long.
    """
    counts = [method.count(to_arrays(row)) for row in rows]
    longest = method.max_target_length
    if longest is not None and any(one.target_length > longest for one in counts):
        return -1
    limit = method.max_length or 0
    return max((max(one.length - limit, 1) for one in counts if one.is_cut), default=0)


def shorten(
    texts: Sequence[str], excess: Excess, tokenizer: PreTrainedTokenizerBase, *, keep: str
) -> list[str | None]:
    """Shorten each text until it is no longer too long; None for one that cannot be.

    Args:
        keep: `start` or `end`, the part of a text that stays.
    """
    found: list[str | None] = [None] * len(texts)
    waiting = dict(enumerate(texts))
    for number in range(MAX_ROUNDS):
        shorter: dict[int, str] = {}
        beyond = excess(list(waiting), list(waiting.values())) if waiting else ()
        for (at, text), num_tokens in zip(waiting.items(), beyond, strict=True):
            if num_tokens == 0:
                found[at] = text
            elif num_tokens > 0 and (rest := _cut(text, num_tokens + number**2, tokenizer, keep)):
                shorter[at] = rest
        waiting = shorter
    return found


def _cut(text: str, num_tokens: int, tokenizer: PreTrainedTokenizerBase, keep: str) -> str:
    """Take tokens from a text's end, or its start, and what is left of a word."""
    encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    places = encoded["offset_mapping"]
    if num_tokens >= len(places):
        return ""
    if keep == "start":
        end = places[-num_tokens][0]
        space = max(text.rfind(sign, max(end - WORD_CHARS, 0), end + 1) for sign in " \n\t")
        return text[: max(space, 0)].rstrip() or text[:end].rstrip()
    start = places[num_tokens][0]
    near = [at for sign in " \n\t" if (at := text.find(sign, start, start + WORD_CHARS)) >= 0]
    return text[min(near, default=start) :].lstrip() or text[start:].lstrip()


@dataclass
class RowFitter(Fitter):
    """Do to one split's rows what `data.rows.too_long` says."""

    built: Built
    tokenizer: PreTrainedTokenizerBase
    rows: SplitRows
    raw: RawRows
    """Of each example."""
    labels: Labels
    cut: set[int] = field(default_factory=set)
    """The examples whose document is shortened."""

    def __call__(self, start: int, encoded: Encoded) -> Encoded:
        """Leave out rows that are too long, or make them anew."""
        method, fitted = self.built.method, list(encoded)
        beyond = {
            at: num
            for at, rows in enumerate(encoded)
            if not isinstance(rows, DataError) and (num := excess_tokens(rows, method))
        }
        if self._says.too_long == "drop":
            for at in beyond:
                fitted[at] = LeftOutError(f"longer than {self._limit}")
        else:
            for at, rows in zip(beyond, self._shortened(start, list(beyond)), strict=True):
                fitted[at] = rows
        return fitted

    @property
    def _says(self) -> RowsSection:
        return self.built.recipe.data.rows

    @property
    def _limit(self) -> str:
        method = self.built.method
        limits = {method.length_option: method.max_length}
        if method.target_option:
            limits[method.target_option] = method.max_target_length
        return " or ".join(f"{option} {limit}" for option, limit in limits.items())

    def _shortened(self, start: int, places: Sequence[int]) -> Encoded:
        """Make examples anew of shorter documents; those that cannot fit are left out."""
        method = self.built.method
        made: dict[int, tuple[Example, list[Row]]] = {}

        def excess(which: Sequence[int], texts: Sequence[str]) -> list[int]:
            examples = [
                self._example(start + places[at], text)
                for at, text in zip(which, texts, strict=True)
            ]
            usable = [one for one in examples if one is not None]
            encoded = iter(method.encode(usable, self.tokenizer))
            found = []
            for at, example in zip(which, examples, strict=True):
                rows = None if example is None else next(encoded)
                if example is None or rows is None or isinstance(rows, DataError):
                    found.append(-1)
                    continue
                made[at] = example, rows
                found.append(excess_tokens(rows, method))
            return found

        texts = [self._document(start + at) for at in places]
        shorter = shorten(texts, excess, self.tokenizer, keep=self._says.keep)
        fitted: Encoded = []
        for number, text in enumerate(shorter):
            if text is None:
                column = self._column(start + places[number])
                why = f"longer than {self._limit} whatever is cut from {column}"
                fitted.append(LeftOutError(why))
                continue
            at = start + places[number]
            self.rows.examples[at], rows = made[number]
            self.cut.add(at)
            fitted.append(rows)
        return fitted

    def _column(self, at: int) -> str:
        return document_column(self.built, self.rows.origins[at].part)

    def _document(self, at: int) -> str:
        text = look_up(self.raw[at], self._column(at))
        return text if isinstance(text, str) else ""

    def _example(self, at: int, text: str) -> Example | None:
        """Make an example of a row whose document is another; None where the task refuses it."""
        part = self.built.parts[self.rows.origins[at].part]
        before = self.rows.examples[at]
        try:
            made = part.task.example(with_text(self.raw[at], self._column(at), text))
        except DataError:
            return None
        made = made.rendered(rendering_for(self.built.recipe.data.dialogue, self.raw[at]))
        label = before.class_label
        return made if label is None else made.with_label(label, self.labels.number(label))


def row_fitter(
    built: Built,
    tokenizer: PreTrainedTokenizerBase,
    rows: SplitRows,
    tables: Mapping[tuple[int, str], Dataset],
    labels: Labels,
) -> RowFitter | None:
    """Make what fits a split's rows; None where that is left to the method.

    Args:
        tables: (source, native split) -> its rows.
    """
    if built.recipe.data.rows.too_long == "truncate":
        return None
    return RowFitter(built, tokenizer, rows, RawRows(tables, rows.origins), labels)


def with_text(row: Mapping[str, Any], column: str, text: str) -> dict[str, Any]:
    """Return a row with another text in one column, or at a path into a nested one."""
    changed = dict(row)
    put(changed, column, text)
    return changed


def document_column(built: Built, part: int) -> str:
    """Name the column of a source's rows that is shortened; the gate has seen that there is one."""
    task, stated = built.parts[part].task, built.recipe.data.rows.document
    return (stated if stated in task.columns else task.document) or ""
