"""What became of every row of a split, and when that is an error."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from peftkit.errors import DataError
from peftkit.preprocessing.mixing import SourceShare

if TYPE_CHECKING:
    import numpy as np

    from peftkit.recipe.schema import AuditSection

SHOWN_LABELS = 4
MAX_REASONS = 20
"""A plugin whose reasons differ from row to row must not fill the audit with them."""
PERCENTILES = {"p50": 50, "p90": 90, "p99": 99, "max": 100}


@dataclass(frozen=True)
class SplitAudit:
    """Count what became of one split's rows.

    `num_rows = num_used + num_fully_masked + sum(dropped.values())`.
    """

    split: str
    """Our name of the split."""
    num_rows: int
    """Rows that the source gave for this split."""
    num_used: int
    """Rows that are trained on or scored."""
    dropped: dict[str, int]
    """Why a row cannot be used -> how many rows."""
    num_truncated: int
    """Used rows that are cut at `max_length`."""
    num_fully_masked: int
    """Rows left out because no token is trained, once cut."""
    num_tokens: int
    """Tokens of the used rows, once cut."""
    num_trained_tokens: int
    """Tokens among them that the loss counts."""
    length_percentiles: dict[str, int]
    """`p50`, `p90`, `p99` and `max` of the rows' tokens, before any cut."""
    num_ended: int = 0
    """Encoded rows whose last trained token is still there, so that the model learns to stop."""
    num_double_bos: int = 0
    """Rows that begin with two BOS tokens."""
    num_unread: int = 0
    """Used rows whose answer is another text once its tokens are read back."""
    num_duplicates: int = 0
    """Rows whose prompt stands in an earlier row of this split."""
    num_leaked: int = 0
    """Rows of a held-out split whose prompt also stands in `train`."""
    max_length: int | None = None
    """Where rows are cut, or their sources; None where they are not."""
    target_percentiles: dict[str, int] = field(default_factory=dict)
    """The same as `length_percentiles`, which are the sources' then, of the targets; empty where
    rows are one sequence."""
    max_target_length: int | None = None
    """Where targets are cut."""
    num_windows: int = 0
    """Encoded rows of the used rows: more of them where a long text becomes several windows."""
    labels: dict[str, int] = field(default_factory=dict)
    """Label -> used rows, where a row has one; its tokens are then read, and none is trained."""
    left_out: dict[str, int] = field(default_factory=dict)
    """What the source holds beside its rows, by reason: messages without a translation ..."""
    weights: dict[str, float] = field(default_factory=dict)
    """Label -> how much it counts in the loss; empty where all count alike."""
    numbers: dict[str, float] = field(default_factory=dict)
    """`least`, `mean` and `most` of the numbers to predict, where a row has one."""
    sources: dict[str, SourceShare] = field(default_factory=dict)
    """What each of several sources gives; empty where there is one."""

    @property
    def share_trained(self) -> float:
        """Return the share of tokens that the loss counts."""
        return self.num_trained_tokens / self.num_tokens if self.num_tokens else 0.0

    @property
    def missing_labels(self) -> list[str]:
        """Name the labels that no used row has."""
        return [name for name, count in self.labels.items() if not count]

    def _describe_labels(self) -> str:
        ranked = sorted(self.labels.items(), key=lambda item: -item[1])
        shown = [f"{name} {count:,}" for name, count in ranked[:SHOWN_LABELS]]
        if len(ranked) > SHOWN_LABELS:
            shown.append(f"{len(ranked) - SHOWN_LABELS} more labels")
        if self.missing_labels:
            shown.append(f"no row of {', '.join(self.missing_labels[:SHOWN_LABELS])}")
        return ", ".join(shown)

    def describe(self) -> str:
        """Sum the split up in a line."""
        trained = f"{self.share_trained:.0%} trained"
        if self.labels:
            trained = self._describe_labels()
        elif self.numbers:
            trained = "numbers from {least:.6g} to {most:.6g}, {mean:.4g} on average".format(
                **self.numbers
            )
        has_windows = self.num_windows > self.num_used
        windows = f" as {self.num_windows:,} windows" if has_windows else ""
        mixed = [f"{one.num_seen:,} of {name}" for name, one in self.sources.items()]
        seen = f", an epoch sees {' and '.join(mixed)}" if mixed else ""
        return (
            f"{self.num_used:,} of {self.num_rows:,} rows{windows},"
            f" {self.num_truncated:,} truncated,"
            f" {self.num_tokens:,} tokens, {trained}{seen}"
        )


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


def describe_dropped(dropped: Mapping[str, int], *, limit: int = 5) -> str:
    """Join reasons with their counts, the most frequent first."""
    ranked = sorted(dropped.items(), key=lambda item: (-item[1], item[0]))
    parts = [f"{count} {reason}" for reason, count in ranked[:limit]]
    if len(ranked) > limit:
        parts.append(f"{sum(count for _, count in ranked[limit:])} for other reasons")
    return "; ".join(parts)


def shorten_reasons(reasons: Mapping[str, int]) -> dict[str, int]:
    """Keep the most frequent reasons, and count the rest as one."""
    ranked = sorted(reasons.items(), key=lambda item: (-item[1], item[0]))
    kept = dict(ranked[:MAX_REASONS])
    if len(ranked) > MAX_REASONS:
        kept["other reasons"] = sum(count for _, count in ranked[MAX_REASONS:])
    return kept


def _dropped(audit: SplitAudit, limits: Limits) -> Iterator[Breach]:
    num_dropped = sum(audit.dropped.values())
    if not audit.num_rows:
        yield Breach(audit.split, "the split has no rows", "check the file that it names")
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


def length_keeping(lengths: np.ndarray, share: float) -> int:
    """Return the smallest length that at least this share of rows does not exceed."""
    import numpy as np

    ordered = np.sort(lengths)
    rank = math.ceil(len(ordered) * share - 1e-9)
    return int(ordered[min(max(rank, 1), len(ordered)) - 1])


def percentiles(lengths: np.ndarray) -> dict[str, int]:
    """Return the rows' p50, p90, p99 and longest length; nothing without rows."""
    if not len(lengths):
        return {}
    return {name: length_keeping(lengths, percent / 100) for name, percent in PERCENTILES.items()}


def _is_beyond(count: int, total: int, share: float) -> bool:
    return total > 0 and count > share * total + 1e-9


def _share(count: int, total: int, limit: float) -> str:
    return f"({count / total:.1%}, at most {limit:.1%})" if total else ""
