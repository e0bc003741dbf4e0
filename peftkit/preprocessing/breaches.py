"""When what became of a split's rows is an error: thresholds, with numbers and a remedy."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from peftkit.errors import DataError
from peftkit.preprocessing.audit import SplitAudit, describe_dropped, length_keeping

if TYPE_CHECKING:
    import numpy as np

    from peftkit.recipe.schema import AuditSection


@dataclass(frozen=True)
class Measured:
    """Hold what was measured of each encoded row of a split, in order."""

    index: Any
    """Which row of the source's split it is, from 0."""
    length: np.ndarray
    """Tokens before any cut."""
    needed: np.ndarray
    """Smallest `max_length` that keeps a trained token; 0 when none is trained at all."""
    is_double_bos: np.ndarray
    """Whether the row begins with two BOS tokens."""
    lost: Mapping[Any, str] = field(default_factory=dict)
    """Row, in order -> the characters that its answer's tokens do not give back."""
    longest_arranged: int = 0
    """Tokens of the longest row that the trainer gets, a packed one included."""
    target_length: np.ndarray | None = None
    """Tokens of the target before any cut; None where rows are one sequence."""


@dataclass(frozen=True)
class Breach:
    """Say which threshold one split breaks, with its numbers and the remedy."""

    split: str
    problem: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.split}: {self.problem}\n    try: {self.remedy}"


@dataclass(frozen=True)
class Limits:
    """Hold what the thresholds are compared with."""

    audit: AuditSection
    max_positions: int | None
    """The longest sequence that the model reads; None when unknown or unbounded."""
    length_key: str
    """Recipe key that cuts rows, e.g. `method.sft.max_length`."""
    is_length_stated: bool = False
    """Whether the recipe says that key itself."""
    length_line: int | None = None
    """Its line in the recipe."""
    first_dropped: str | None = None
    """Which is the split's first unusable row."""
    hints: Mapping[str, str] = field(default_factory=dict)
    """Why a row cannot be used -> what to try, where that is known."""
    bos_token: str = ""
    """The tokenizer's BOS token."""
    noun: str = "row"
    """What is cut: `row`, or `source` and `target`."""
    of_target: Limits | None = None
    """The same for targets, where they are cut by themselves."""

    @property
    def at_line(self) -> str:
        """Return where `length_key` stands, to follow its value; nothing where it does not."""
        return f" on line {self.length_line}" if self.length_line else ""


def find_breaches(audit: SplitAudit, measured: Measured, limits: Limits) -> Iterator[Breach]:
    """Give every threshold that a split breaks."""
    yield from _dropped(audit, limits)
    yield from _positions(audit, measured, limits)
    yield from _truncated(audit, measured, limits)
    if limits.of_target is not None and measured.target_length is not None:
        targets = replace(audit, max_length=audit.max_target_length)
        of_targets = replace(measured, length=measured.target_length)
        yield from _positions(targets, of_targets, limits.of_target)
        yield from _truncated(targets, of_targets, limits.of_target)
    yield from _masked(audit, measured, limits)
    yield from _double_bos(audit, measured, limits)
    yield from _unread(audit, measured, limits)
    if _is_beyond(audit.num_leaked, audit.num_used, limits.audit.max_leaked):
        share = _share(audit.num_leaked, audit.num_used, limits.audit.max_leaked)
        yield Breach(
            audit.split,
            f"the prompts of {audit.num_leaked} of {audit.num_used} rows also stand in train"
            f" {share}",
            "remove them from one of the two, or cut the split from train by a percentage",
        )


def raise_breaches(breaches: Sequence[Breach], *, where: str) -> None:
    """Refuse data that breaks a threshold.

    Args:
        where: the recipe's file, line and key.

    Raises:
        DataError: lists every breach with its numbers and its remedy.
    """
    if not breaches:
        return
    noun = "threshold" if len(breaches) == 1 else "thresholds"
    lines = [f"  {breach}" for breach in breaches]
    raise DataError("\n".join([f"{where}: the audit finds {len(breaches)} {noun} broken", *lines]))


def _dropped(audit: SplitAudit, limits: Limits) -> Iterator[Breach]:
    num_dropped = sum(audit.dropped.values())
    if not audit.num_rows:
        yield Breach(audit.split, "the split has no rows", "check the file that it names")
    elif audit.skipped and not audit.num_used and not audit.num_fully_masked:
        yield Breach(
            audit.split,
            f"no row is left of {audit.num_rows}:"
            f" {describe_dropped({**audit.dropped, **audit.skipped})}",
            f"a larger {limits.length_key}, or data.rows={{}}",
        )
    elif num_dropped == audit.num_rows or _is_beyond(
        num_dropped, audit.num_rows, limits.audit.max_dropped
    ):
        yield Breach(
            audit.split,
            f"{num_dropped} of {audit.num_rows} rows cannot be used"
            f" {_share(num_dropped, audit.num_rows, limits.audit.max_dropped)}:"
            f" {describe_dropped(audit.dropped)};"
            f" the first is row {limits.first_dropped}",
            _remedy(audit, limits),
        )


def _remedy(audit: SplitAudit, limits: Limits) -> str:
    """Say what to try about the most frequent reason; and of some rows, that they may be few."""
    ranked = sorted(audit.dropped, key=lambda reason: (-audit.dropped[reason], reason))
    hint = next((limits.hints[reason] for reason in ranked[:1] if reason in limits.hints), "")
    if sum(audit.dropped.values()) == audit.num_rows:
        return hint or "check data.task against the columns"
    some = "mend or remove those rows, or raise data.audit.max_dropped"
    return f"{hint}; or {some}" if hint else some


def _positions(audit: SplitAudit, measured: Measured, limits: Limits) -> Iterator[Breach]:
    positions = limits.max_positions
    if positions is None or not len(measured.length):
        return
    longest = int(measured.length.max())
    if audit.max_length is None:  # rows are joined into blocks, or stay as they are
        problem = f"the trainer's longest row has {measured.longest_arranged} tokens"
        is_beyond = measured.longest_arranged > positions
    else:
        problem = (
            f"{limits.length_key} is {audit.max_length}{limits.at_line} and the longest"
            f" {limits.noun} has {longest} tokens"
        )
        read = audit.max_length if limits.is_length_stated else min(longest, audit.max_length)
        is_beyond = read > positions
    if not is_beyond:
        return
    yield Breach(
        audit.split,
        f"{problem}, but the model has {positions} positions (max_position_embeddings)",
        f"{limits.length_key}={positions}, or a model with more positions",
    )


def _truncated(audit: SplitAudit, measured: Measured, limits: Limits) -> Iterator[Breach]:
    num_encoded = len(measured.length)
    if audit.max_length is None or not num_encoded:
        return
    is_cut = measured.length > audit.max_length
    num_cut = int(is_cut.sum())
    if not _is_beyond(num_cut, num_encoded, limits.audit.max_truncated):
        return
    first = int(is_cut.argmax())
    yield Breach(
        audit.split,
        f"{num_cut} of {num_encoded} {limits.noun}s are longer than {limits.length_key}"
        f" {audit.max_length}"
        f"{limits.at_line} {_share(num_cut, num_encoded, limits.audit.max_truncated)};"
        f" the first is row {measured.index[first]} with {measured.length[first]} tokens",
        _longer(measured.length, limits.audit.max_truncated, limits, "max_truncated"),
    )


def _masked(audit: SplitAudit, measured: Measured, limits: Limits) -> Iterator[Breach]:
    num_encoded = audit.num_used + audit.num_fully_masked
    num_masked = audit.num_fully_masked
    is_all = num_encoded > 0 and num_masked == num_encoded
    if not is_all and not _is_beyond(num_masked, num_encoded, limits.audit.max_masked):
        return
    share = _share(num_masked, num_encoded, limits.audit.max_masked)
    never = measured.needed == 0
    if never.any() or audit.max_length is None:
        first = int(never.argmax())
        yield Breach(
            audit.split,
            f"{num_masked} of {num_encoded} rows have no trained token {share};"
            f" the first is row {measured.index[first]}",
            "check the chat template's {% generation %} marks with `peftkit data`",
        )
        return
    is_masked = measured.needed > audit.max_length
    first = int(is_masked.argmax())
    yield Breach(
        audit.split,
        f"{num_masked} of {num_encoded} rows have no trained token within {limits.length_key}"
        f" {audit.max_length}{limits.at_line} {share}; the first is row {measured.index[first]},"
        f" which needs {measured.needed[first]}",
        _longer(measured.needed, limits.audit.max_masked, limits, "max_masked"),
    )


def _double_bos(audit: SplitAudit, measured: Measured, limits: Limits) -> Iterator[Breach]:
    if audit.num_double_bos:
        first = measured.index[int(measured.is_double_bos.argmax())]
        yield Breach(
            audit.split,
            f"{audit.num_double_bos} rows begin with two {limits.bos_token!r}, one of their own and"
            f" one that the tokenizer adds; the first is row {first}",
            f"remove {limits.bos_token!r} from the rows",
        )


def _unread(audit: SplitAudit, measured: Measured, limits: Limits) -> Iterator[Breach]:
    if not _is_beyond(audit.num_unread, audit.num_used, limits.audit.max_unread):
        return
    first, limit = next(iter(measured.lost)), limits.audit.max_unread
    lost = " ".join(measured.lost[first])
    yield Breach(
        audit.split,
        f"the answers of {audit.num_unread} of {audit.num_used} rows are another text once their"
        f" tokens are read back {_share(audit.num_unread, audit.num_used, limit)};"
        f" the first is row {first}{lost and f', which loses {lost}'}",
        "a base whose vocabulary has these characters, answers without them, or raise"
        " data.audit.max_unread",
    )


def _longer(lengths: np.ndarray, share: float, limits: Limits, threshold: str) -> str:
    """Say which limit would keep enough rows, if the model can read that much."""
    enough, longest = length_keeping(lengths, 1 - share), int(lengths.max())
    if limits.max_positions is not None and enough > limits.max_positions:
        return (
            f"{limits.length_key}={enough} would do, but the model has {limits.max_positions}"
            f" positions: shorten those rows, or raise data.audit.{threshold}"
        )
    return (
        f"{limits.length_key}={enough} ({longest} for every row), or raise data.audit.{threshold}"
    )


def _is_beyond(count: int, total: int, share: float) -> bool:
    return total > 0 and count > share * total + 1e-9


def _share(count: int, total: int, limit: float) -> str:
    return f"({count / total:.1%}, at most {limit:.1%})" if total else ""
