"""What became of every row of a split."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from peftkit.preprocessing.mixing import SourceShare

if TYPE_CHECKING:
    import numpy as np

SHOWN_LABELS = 4
MAX_REASONS = 20
"""A plugin whose reasons differ from row to row must not fill the audit with them."""
PERCENTILES = {"p50": 50, "p90": 90, "p99": 99, "max": 100}


@dataclass(frozen=True)
class SplitAudit:
    """Count what became of one split's rows.

    `num_rows = num_used + num_fully_masked + sum(dropped.values()) + sum(skipped.values())`.
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
    skipped: dict[str, int] = field(default_factory=dict)
    """Why a row is left out, since `data.rows` says so -> how many rows."""
    num_cut: int = 0
    """Used rows whose document is shortened, since `data.rows` says so; their lengths are those
    that are left."""
    shared: dict[str, int] = field(default_factory=dict)
    """Another held-out split -> rows of this one whose prompt stands there too."""

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
        by_choice = [f", {count:,} {reason}" for reason, count in self.skipped.items()]
        cut = f", {self.num_cut:,} with a shorter document" if self.num_cut else ""
        return (
            f"{self.num_used:,} of {self.num_rows:,} rows{windows},"
            f" {self.num_truncated:,} truncated{cut}{''.join(by_choice)},"
            f" {self.num_tokens:,} tokens, {trained}{seen}"
        )


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
