"""What is wrong with a method, in words: for `peftkit.testing.check_method`.

Each function gives one problem after the other, those first that would make the next ones crash.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from peftkit.plugins import (
    CAUSAL_LM,
    IGNORED,
    Chosen,
    Example,
    Machine,
    Method,
    ModelKind,
    Point,
    Row,
    RowCount,
    checked_rows,
)
from peftkit.recipe.signatures import signature_of

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

CPU = Machine("cpu", supports_bfloat16=False, total_bytes=1 << 33, free_bytes=1 << 32, name="CPU")
PAGE = "docs/plugins.md says what methods need"


def class_problems(cls: type[Method], config: type | str) -> Iterator[str]:
    """Look at what a method declares, and at what it decides where a recipe is silent.

    Args:
        config: its `Config`.
    """
    if not isinstance(cls.kind, ModelKind):
        yield f"kind is {cls.kind!r}, no ModelKind: {PAGE}"
    kinds = cls.examples
    if not isinstance(kinds, tuple) or not kinds or not all(isinstance(k, type) for k in kinds):
        yield f"examples is {kinds!r}, not a tuple of classes"
    silent = [key for key, remedy in cls.owned.items() if not remedy]
    if silent:
        yield f"owned does not say what to use instead of {silent}"
    known = signature_of(config).options
    for one in cls.decide({}, dtype="float32", machine=CPU):
        if not isinstance(one, Chosen):
            yield f"decide() returned {one!r}, no Chosen(option, value, reason): {PAGE}"
        elif one.option not in known:
            yield f"decide() sets {one.option!r}, which is no option"
        elif not one.reason:
            yield f"decide() gives no reason for {one.option}"


def decided_options(cls: type[Method]) -> dict[str, Any]:
    """Return what a method decides on a CPU for a recipe that states nothing."""
    return {one.option: one.value for one in cls.decide({}, dtype="float32", machine=CPU)}


def row_problems(
    method: Method, examples: Sequence[Example], tokenizer: PreTrainedTokenizerBase
) -> Iterator[str]:
    """Look at the rows that a method makes, counts and arranges."""
    from datasets import Dataset

    first, second = (method.encode(examples, tokenizer) for _ in range(2))
    if not isinstance(first, list) or len(first) != len(examples):
        yield f"encode() of {len(examples)} examples does not give a list of as many: {PAGE}"
    for rows in first:
        if not isinstance(rows, list) or not rows or not all(isinstance(r, dict) for r in rows):
            yield (
                f"encode() gave {rows!r:.80} for an example, not its rows as a list of dicts:"
                f" {PAGE}"
            )
            continue
        for row in rows:
            yield from _count_problems(method, row)
    kept = checked_rows(first)
    if kept != checked_rows(second):
        yield "encode() differs when called twice"
    flat = Dataset.from_list([row for rows in kept for row in rows])
    arranged = [method.arrange(flat, tokenizer).to_list() for _ in range(2)]
    if not arranged[0]:
        yield "arrange() leaves no row"
    if arranged[0] != arranged[1]:
        yield "arrange() differs when called twice"


def _count_problems(method: Method, row: Row) -> Iterator[str]:
    import numpy as np

    if type(method).count is Method.count:
        if "labels" not in row:
            yield "encode() gave a row without labels, which count() counts"
        if method.kind is CAUSAL_LM:
            yield from _sequence_problems(row["input_ids"], row["labels"])
    counted = method.count({key: np.asarray(values) for key, values in row.items()})
    if not isinstance(counted, RowCount):
        yield f"count() gave {counted!r}, no RowCount"
    if counted.num_trained < 1:
        yield "count() finds nothing to train"


def _sequence_problems(input_ids: Sequence[int], labels: Sequence[int]) -> Iterator[str]:
    if len(input_ids) != len(labels):
        yield f"{len(input_ids)} ids and {len(labels)} labels"
    if any(label not in (IGNORED, token) for token, label in zip(input_ids, labels, strict=True)):
        yield "a label is neither -100 nor its token"
    if all(label == IGNORED for label in labels):
        yield "encode() masks every token"


def planning_problems(method: Method) -> Iterator[str]:
    """Look at what the planner asks of a method."""
    columns = method.columns(Point(2, 16, target_length=8 if method.target_option else 0))
    if not columns:
        yield "columns() names no column of a batch"
    for name, shape in columns.items():
        if not isinstance(shape, tuple) or not shape or not all(_is_size(n) for n in shape):
            yield f"columns() gives {name} the shape {shape!r}"
    if method.loss() is None and not method.unplanned:
        yield "loss() is None, and unplanned does not say why that cannot be"


def _is_size(number: object) -> bool:
    return isinstance(number, int) and number > 0
