"""Cut held-out rows from the training rows, each label alike where rows have one."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import TYPE_CHECKING

from peftkit.errors import DataError
from peftkit.preprocessing.splits import SplitPlan, assign, smallest_share, to_shares

if TYPE_CHECKING:
    from peftkit.recipe.schema import Part, Recipe

Shares = Mapping[str, Fraction]
"""Split -> the share of positions that falls into it."""


@dataclass(frozen=True)
class Cuts:
    """Say into which split each training row falls."""

    shares: Shares = field(default_factory=dict)
    """Of rows without a label."""
    by_label: Mapping[str, Shares] = field(default_factory=dict)
    label_of: Mapping[bytes, str] = field(default_factory=dict)
    """Key -> its label; the first one where rows that belong together have several."""
    keys: Sequence[bytes] = ()
    """Of all rows that are cut from."""

    def split_of(self, key: bytes) -> str:
        """Return the split of a row: `train`, or one of the cuts."""
        label = self.label_of.get(key)
        return assign(key, self.shares if label is None else self.by_label[label])


def make_cuts(cuts: Mapping[str, Fraction | int], rows: Iterable[tuple[bytes, str | None]]) -> Cuts:
    """Decide what is cut, so that each label's share of a cut is its share of the rows.

    As everywhere, a row's place goes by its hash: a label's rows up to some place are cut, so that
    neither their order nor a seed matters, and more rows move only those near that place.

    Args:
        rows: the key and the label of each row.

    Raises:
        ValueError: numbers of rows leave nothing to train on.
    """
    keys, label_of = [], dict[bytes, str]()
    for key, label in rows:
        keys.append(key)
        if label is not None:
            label_of[key] = min(label, label_of.get(key, label))
    shares = to_shares(cuts, keys)
    by_label: dict[str, list[bytes]] = defaultdict(list)
    for key in keys:
        if key in label_of:
            by_label[label_of[key]].append(key)
    quotas = _quotas(cuts, {label: len(own) for label, own in sorted(by_label.items())}, len(keys))
    stratified = {label: _label_shares(quotas[label], own) for label, own in by_label.items()}
    return Cuts(shares, stratified, label_of, keys)


def _quotas(
    cuts: Mapping[str, Fraction | int], counts: Mapping[str, int], num_rows: int
) -> dict[str, dict[str, int]]:
    """Return how many rows of each label each cut holds, by largest remainders.

    The last row of a label stays in `train`: what nothing was trained on cannot be told.
    """
    left = {label: count - 1 for label, count in counts.items()}
    quotas: dict[str, dict[str, int]] = {label: {} for label in counts}
    for name, cut in cuts.items():
        share = cut if isinstance(cut, Fraction) else Fraction(cut, num_rows)
        wanted = {label: share * count for label, count in counts.items()}
        taken = {label: min(math.floor(wanted[label]), left[label]) for label in counts}
        missing = round(share * sum(counts.values())) - sum(taken.values())
        for label in sorted(counts, key=lambda one: taken[one] - wanted[one])[: max(missing, 0)]:
            taken[label] = min(taken[label] + 1, left[label])
        for label, number in taken.items():
            quotas[label][name] = number
            left[label] -= number
    return quotas


def _label_shares(quotas: Mapping[str, int], keys: Sequence[bytes]) -> Shares:
    """Turn a label's numbers of rows into shares; none where its rows cannot be parted."""
    try:
        return to_shares({name: number for name, number in quotas.items() if number}, keys)
    except ValueError:
        return {}


def cuts_of(
    plan: SplitPlan, rows: Iterable[tuple[bytes, str | None]], recipe: Recipe, key: str
) -> Cuts:
    """Decide what is cut from the training rows, as the recipe says.

    Args:
        key: where the splits stand in the recipe.

    Raises:
        DataError: numbers of rows leave nothing to train on.
    """
    try:
        return make_cuts(plan.cuts, rows)
    except ValueError as error:
        raise DataError(
            f"{recipe.place(key, 'data.splits')}: {error}", hint=f"a share: {key}.test=10%"
        ) from None


def check_cuts(cuts: Cuts, num_rows: Mapping[str, int], part: Part, recipe: Recipe) -> None:
    """Refuse a cut that holds no row.

    Args:
        num_rows: cut that is used -> its rows.

    Raises:
        DataError: names the share that would hold one.
    """
    for cut, number in num_rows.items():
        if number:
            continue
        key = f"{splits_key(part, recipe)}.{cut}"
        share = smallest_share(cuts.keys, cuts.shares, cut)
        raise DataError(
            f"{recipe.place(key, say=key)}: {part.splits[cut]} of {len(cuts.keys)} rows cuts none",
            hint=f"{key}={share or '10%'}, or a file of its own",
        )


def splits_key(part: Part, recipe: Recipe) -> str:
    """Return where a source's splits stand."""
    own = f"{part.key}.splits"
    return "data.splits" if part.splits == recipe.data.splits or part.key == "data.source" else own
