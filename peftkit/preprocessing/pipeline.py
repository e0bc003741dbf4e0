"""From a source to what the trainer gets: rows, examples, tokens and labels, and their audit.

Everything happens before any weight is read, in memory and in the rows' order. A row that cannot
be used is left out and counted under its reason; too many of them are an error.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from peftkit.errors import DataError
from peftkit.plugins.examples import Example
from peftkit.preprocessing.audit import (
    SplitAudit,
    describe_dropped,
    percentiles,
    shorten_reasons,
)
from peftkit.preprocessing.breaches import Breach, Limits, find_breaches, raise_breaches
from peftkit.preprocessing.class_labels import (
    Labels,
    check_declared,
    count_labels,
    describe_numbers,
    find_labels,
    number_labels,
)
from peftkit.preprocessing.encode import EncodedRows, encode_rows
from peftkit.preprocessing.fingerprint import fingerprints
from peftkit.preprocessing.mixing import SourceShare, mix, num_copies
from peftkit.preprocessing.read_rows import RawRows, RowNames, RowReader, SplitRows, unread_files
from peftkit.preprocessing.splits import TRAIN
from peftkit.preprocessing.too_long import row_fitter
from peftkit.recipe.blame import blamed

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase

    from peftkit.recipe.build import Built
    from peftkit.recipe.schema import Recipe


@dataclass(frozen=True)
class Prepared:
    """Hold everything a run or an evaluation needs of its rows."""

    rows: dict[str, RawRows]
    """Split -> its usable rows as their sources gave them, in order."""
    examples: dict[str, list[Example]]
    """Split -> one example for each of its rows."""
    encoded: dict[str, Dataset]
    """Split -> what the trainer gets, after `Method.arrange`."""
    audit: dict[str, SplitAudit]
    """Split -> what became of its rows."""
    fingerprint: str
    """sha256 over the encoded rows of every split."""
    split_fingerprints: Mapping[str, str] = field(default_factory=dict)
    """The same over each split alone."""
    breaches: tuple[Breach, ...] = ()
    """Thresholds that are broken; `prepare` raises them."""
    source_revision: str | None = None
    """The commit of a source that has commits."""
    labels: Labels = field(default_factory=Labels)
    """What examples may be labelled; none where they have no label."""
    notes: tuple[str, ...] = ()
    """What a person should know of how the rows were read, a sentence each."""

    @property
    def has_targets(self) -> bool:
        """Tell whether an encoded row's labels are a sequence of their own."""
        return any(audit.max_target_length is not None for audit in self.audit.values())


def prepare(
    built: Built,
    tokenizer: PreTrainedTokenizerBase,
    *,
    max_positions: int | None = None,
) -> Prepared:
    """Read, split, encode and audit the rows of a recipe.

    Args:
        max_positions: the longest sequence that the model reads, in tokens.

    Raises:
        DataError: rows are missing or malformed, or a threshold of `data.audit` is broken; lists
            every breach with its numbers and its remedy.
    """
    prepared = inspect_rows(built, tokenizer, max_positions=max_positions)
    raise_breaches(prepared.breaches, where=built.recipe.place("data.audit", "data"))
    return prepared


def inspect_rows(
    built: Built,
    tokenizer: PreTrainedTokenizerBase,
    *,
    max_positions: int | None = None,
    splits: Sequence[str] | None = None,
) -> Prepared:
    """Do what `prepare` does, but return the breaches instead of raising them.

    Args:
        splits: which splits; those that are trained on or scored when absent.
    """
    recipe, method = built.recipe, built.method
    names = wanted_splits(recipe) if splits is None else list(dict.fromkeys(splits))
    reader = RowReader(built)
    rows = reader.read(names)
    labels = _number_labels(rows, names, built)
    with blamed(recipe, "model.chat_template", "model.path", "model"):
        encoded = {
            name: _encode(rows[name], reader.tables, built, labels, tokenizer) for name in names
        }
    keys = {name: frozenset(held.keys) for name, held in rows.items()}
    audits = {name: _audit(rows[name], encoded[name], built, labels, keys) for name in names}
    used = [name for name in names if audits[name].num_used]
    arranged = {name: _arrange(rows[name], encoded[name], built, tokenizer) for name in used}
    longest = {name: max(method.lengths(found), default=0) for name, found in arranged.items()}
    limits = _limits(built, tokenizer, max_positions)
    breaches = [
        breach
        for name in names
        for breach in _breaches(
            rows[name], encoded[name], audits[name], longest.get(name, 0), limits
        )
    ]
    whole, alone = fingerprints(arranged)
    return Prepared(
        rows={
            name: RawRows(reader.tables, [rows[name].origins[at] for at in encoded[name].kept])
            for name in names
        },
        examples={name: [rows[name].examples[at] for at in encoded[name].kept] for name in names},
        encoded=arranged,
        audit=audits,
        fingerprint=whole,
        split_fingerprints=alone,
        breaches=tuple(breaches),
        source_revision=_revision(built),
        labels=labels,
        notes=tuple(unread_files(built)),
    )


def _encode(
    rows: SplitRows,
    tables: Mapping[tuple[int, str], Dataset],
    built: Built,
    labels: Labels,
    tokenizer: PreTrainedTokenizerBase,
) -> EncodedRows:
    fitter = row_fitter(built, tokenizer, rows, tables, labels)
    return encode_rows(rows.examples, built.method, tokenizer, fitter)


def _breaches(
    rows: SplitRows, encoded: EncodedRows, audit: SplitAudit, longest: int, limits: Limits
) -> Iterator[Breach]:
    measured = replace(
        encoded.measured,
        index=RowNames(rows.origins, encoded.measured.index),
        lost={str(rows.origins[at]): text for at, text in encoded.measured.lost.items()},
        longest_arranged=longest,
    )
    first, hints = _first_dropped(rows, encoded), {**rows.hints, **encoded.hints}
    return find_breaches(audit, measured, replace(limits, first_dropped=first, hints=hints))


def wanted_splits(recipe: Recipe) -> list[str]:
    """Name the splits that a run trains on or scores."""
    names = [TRAIN]
    if "validation" in recipe.data.all_splits:
        names.append("validation")
    if recipe.evaluate is not None:
        names.append(recipe.evaluate.split)
    return list(dict.fromkeys(names))


def read_texts(built: Built) -> Iterator[str]:
    """Give the training rows' text, which a new model's tokenizer is trained on.

    Raises:
        DataError: no row can be used.
    """
    rows = RowReader(built).read([TRAIN])[TRAIN]
    if not rows.examples:
        raise DataError(f"no row of train can be used: {describe_dropped(rows.dropped)}")
    for example in rows.examples:
        yield from example.texts


def _number_labels(rows: Mapping[str, SplitRows], names: Sequence[str], built: Built) -> Labels:
    """Number every split's labels by those of the training rows, in place; return them."""
    part = next(one.part for one in built.parts if TRAIN in one.part.splits)
    where = built.recipe.place(f"{part.task_key}.{part.task.name}", part.task_key)
    train = rows[TRAIN]
    check_declared({name: rows[name].names for name in (TRAIN, *names)}, where=where)
    with blamed(built.recipe, f"method.{built.recipe.method.name}.class_weights"):
        labels = find_labels(train.examples, train.names, built.task, built.method, where=where)
    if labels.names:
        for name in names:
            held = rows[name]
            held.examples = number_labels(
                held.examples, labels, held.origins, split=name, where=where
            )
    return labels


def _mixed(rows: SplitRows, encoded: EncodedRows, built: Built) -> Dataset:
    """Give the rows of an epoch: those of several sources mixed by their weights."""
    from peftkit.sources.rows import to_dataset

    if rows.name != TRAIN or not is_mixed(built):
        return to_dataset(encoded.table)
    sources = [rows.origins[at].part for at in encoded.example_of]
    copies = _copies(rows, encoded.example_of, built)
    return to_dataset(encoded.table.take(mix(sources, copies)))


def is_mixed(built: Built) -> bool:
    """Tell whether rows come from several sources, or from one with a weight."""
    return len(built.parts) > 1 or built.parts[0].part.weight != 1


def _copies(rows: SplitRows, examples: Sequence[int], built: Built) -> list[int]:
    weights = [one.part.weight for one in built.parts]
    return [num_copies(rows.keys[at], weights[rows.origins[at].part]) for at in examples]


def _shares(rows: SplitRows, encoded: EncodedRows, built: Built) -> dict[str, SourceShare]:
    """Count what each of several sources gives; nothing where there is one."""
    if not is_mixed(built):
        return {}
    used = Counter(rows.origins[at].part for at in encoded.kept)
    seen: Counter[int] = Counter()
    for at, copies in zip(encoded.kept, _copies(rows, encoded.kept, built), strict=True):
        seen[rows.origins[at].part] += copies if rows.name == TRAIN else 1
    return {
        one.part.label: SourceShare(
            num_rows=rows.num_rows[number],
            num_used=used[number],
            weight=one.part.weight if rows.name == TRAIN else 1.0,
            num_seen=seen[number],
        )
        for number, one in enumerate(built.parts)
        if rows.name in one.part.splits or rows.num_rows[number]
    }


def _audit(
    rows: SplitRows,
    encoded: EncodedRows,
    built: Built,
    labels: Labels,
    keys: Mapping[str, frozenset[bytes]],
) -> SplitAudit:
    """Count what became of a split's rows.

    Args:
        keys: split that is read -> what its rows ask.
    """
    method = built.method
    targets = encoded.measured.target_length
    kept_keys = [rows.keys[at] for at in encoded.kept]
    used = [rows.examples[at] for at in encoded.kept]
    others = {} if rows.name == TRAIN else {n: k for n, k in keys.items() if n != rows.name}
    counted = {name: sum(key in other for key in kept_keys) for name, other in others.items()}
    shared = {name: count for name, count in counted.items() if count}
    return SplitAudit(
        split=rows.name,
        num_rows=rows.num_rows.total(),
        num_used=len(encoded.kept),
        dropped=shorten_reasons(rows.dropped + Counter(encoded.dropped)),
        skipped=shorten_reasons(rows.skipped + Counter(encoded.left_out)),
        num_cut=encoded.num_cut,
        num_truncated=encoded.num_truncated,
        num_fully_masked=encoded.num_encoded - len(encoded.kept),
        num_windows=encoded.num_rows,
        num_tokens=encoded.num_tokens,
        num_trained_tokens=encoded.num_trained_tokens,
        length_percentiles=percentiles(encoded.measured.length),
        num_ended=encoded.num_ended,
        num_double_bos=int(encoded.measured.is_double_bos.sum()),
        num_unread=len(encoded.measured.lost),
        num_duplicates=len(kept_keys) - len(set(kept_keys)),
        num_leaked=shared.pop(TRAIN, 0),
        shared=shared,
        max_length=method.max_length,
        target_percentiles={} if targets is None else percentiles(targets),
        max_target_length=method.max_target_length,
        labels=count_labels(used, labels),
        numbers=describe_numbers(used),
        weights=dict(labels.weights) if rows.name == TRAIN else {},
        left_out=dict(rows.left_out),
        sources=_shares(rows, encoded, built),
    )


def _limits(built: Built, tokenizer: PreTrainedTokenizerBase, max_positions: int | None) -> Limits:
    recipe = built.recipe

    def of(option: str, noun: str) -> Limits:
        key = f"method.{recipe.method.name}.{option}"
        return Limits(
            audit=recipe.data.audit,
            max_positions=max_positions,
            length_key=key,
            is_length_stated=option in recipe.method.options,
            length_line=recipe.lines.get(key),
            bos_token=tokenizer.bos_token or "",
            noun=noun,
        )

    method = built.method
    if method.target_option is None:
        return of(method.length_option, "row")
    targets = of(method.target_option, "target")
    return replace(of(method.length_option, "source"), of_target=targets)


def _first_dropped(rows: SplitRows, encoded: EncodedRows) -> str | None:
    """Name the first row that makes no example, or none that can be encoded."""
    found = [] if rows.first_dropped is None else [rows.first_dropped]
    if encoded.first_dropped is not None:
        found.append((encoded.first_dropped, rows.origins[encoded.first_dropped]))
    return str(min(found, key=lambda one: one[0])[1]) if found else None


def _arrange(
    rows: SplitRows, encoded: EncodedRows, built: Built, tokenizer: PreTrainedTokenizerBase
) -> Dataset:
    arranged = built.method.arrange(_mixed(rows, encoded, built), tokenizer)
    if rows.name == TRAIN:
        with blamed(built.recipe, "data.task", "data"):
            built.method.check_rows(arranged)
    return arranged


def _revision(built: Built) -> str | None:
    """Return the commit of what was read, each source's with its name where there are several."""
    found = {one.part.label: one.source.revision for one in built.parts if one.source.revision}
    if len(built.parts) == 1:
        return next(iter(found.values()), None)
    return ", ".join(f"{label} {revision}" for label, revision in found.items()) or None
