"""From a source to what the trainer gets: rows, examples, tokens and labels, and their audit.

Everything happens before any weight is read, in memory and in the rows' order. A row that cannot
be used is left out and counted under its reason; too many of them are an error.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from peftkit.errors import DataError
from peftkit.plugins.examples import Example, kinds_of
from peftkit.preprocessing.audit import (
    Breach,
    Limits,
    Measured,
    SplitAudit,
    describe_dropped,
    find_breaches,
    percentiles,
    raise_breaches,
    shorten_reasons,
)
from peftkit.preprocessing.class_labels import (
    Labels,
    check_declared,
    count_labels,
    declared_names,
    describe_numbers,
    find_labels,
    number_labels,
    spell,
)
from peftkit.preprocessing.encode import EncodedRows, encode_rows
from peftkit.preprocessing.fingerprint import fingerprint
from peftkit.preprocessing.splits import (
    TRAIN,
    SplitPlan,
    assign,
    content_key,
    plan_splits,
    smallest_share,
    split_key,
)
from peftkit.recipe.blame import blamed
from peftkit.sources.columns import require_columns

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase

    from peftkit.recipe.build import Built
    from peftkit.recipe.schema import Recipe


@dataclass(frozen=True)
class Prepared:
    """Hold everything a run or an evaluation needs of its rows."""

    rows: dict[str, Dataset]
    """Split -> its usable rows as the source gave them, in order."""
    examples: dict[str, list[Example]]
    """Split -> one example for each of its rows."""
    encoded: dict[str, Dataset]
    """Split -> what the trainer gets, after `Method.arrange`."""
    audit: dict[str, SplitAudit]
    """Split -> what became of its rows."""
    fingerprint: str
    """sha256 over the encoded rows of every split."""
    breaches: tuple[Breach, ...] = ()
    """Thresholds that are broken; `prepare` raises them."""
    source_revision: str | None = None
    """The commit of a source that has commits."""
    labels: Labels = field(default_factory=Labels)
    """What examples may be labelled; none where they have no label."""

    @property
    def has_targets(self) -> bool:
        """Tell whether an encoded row's labels are a sequence of their own."""
        return any(audit.max_target_length is not None for audit in self.audit.values())


@dataclass
class _Rows:
    """Hold one split before encoding."""

    name: str
    table: Dataset
    index: list[int] = field(default_factory=list)
    """Row in the source's split of each example."""
    examples: list[Example] = field(default_factory=list)
    keys: list[bytes] = field(default_factory=list)
    """What each asks."""
    cut_keys: list[bytes] = field(default_factory=list)
    """What decides the split of each."""
    dropped: Counter[str] = field(default_factory=Counter)
    first_dropped: int | None = None
    num_rows: int = 0
    declared: tuple[str, ...] = ()
    """Names that the data gives its labels."""
    left_out: Mapping[str, int] = field(default_factory=dict)
    """`Source.left_out` of the split that this one is, or is the rest of."""


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
    plan = plan_splits(recipe.data.splits)
    rows = _read_rows(names, plan, built)
    labels = _number_labels(rows, names, built)
    with blamed(recipe, "model.chat_template", "model.path", "model"):
        encoded = {name: encode_rows(rows[name].examples, method, tokenizer) for name in names}
    trained = frozenset(rows[TRAIN].keys) if TRAIN in rows else frozenset[bytes]()
    audits = {name: _audit(rows[name], encoded[name], built, labels, trained) for name in names}
    arranged = {
        name: method.arrange(_to_dataset(encoded[name]), tokenizer)
        for name in names
        if audits[name].num_used
    }
    longest = {name: max(method.lengths(found), default=0) for name, found in arranged.items()}
    limits = _limits(built, tokenizer, max_positions)
    breaches: list[Breach] = []
    for name in names:
        measured = _in_source(rows[name], encoded[name].measured, longest.get(name, 0))
        first = _first_dropped(rows[name], encoded[name])
        breaches += find_breaches(audits[name], measured, replace(limits, first_dropped=first))
    return Prepared(
        rows={
            name: rows[name].table.select([rows[name].index[at] for at in encoded[name].kept])
            for name in names
        },
        examples={name: [rows[name].examples[at] for at in encoded[name].kept] for name in names},
        encoded=arranged,
        audit=audits,
        fingerprint=fingerprint(arranged),
        breaches=tuple(breaches),
        source_revision=built.source.revision,
        labels=labels,
    )


def wanted_splits(recipe: Recipe) -> list[str]:
    """Name the splits that a run trains on or scores."""
    names = [TRAIN]
    if "validation" in recipe.data.splits:
        names.append("validation")
    if recipe.evaluate is not None:
        names.append(recipe.evaluate.split)
    return list(dict.fromkeys(names))


def read_texts(built: Built) -> Iterator[str]:
    """Give the training rows' text, which a new model's tokenizer is trained on.

    Raises:
        DataError: no row can be used.
    """
    rows = _read_rows([TRAIN], plan_splits(built.recipe.data.splits), built)[TRAIN]
    if not rows.examples:
        raise DataError(f"no row of train can be used: {describe_dropped(rows.dropped)}")
    for example in rows.examples:
        yield from example.texts


def _read_rows(names: Sequence[str], plan: SplitPlan, built: Built) -> dict[str, _Rows]:
    """Read every source split once and deal its rows out to our splits.

    `train` is read too where only another split is wanted, to count what leaked from it.
    """
    recipe = built.recipe
    for name in names:
        if name not in plan.cuts and name not in plan.native:
            raise DataError(
                f"{recipe.place('data.splits')}: the recipe has no split {name!r};"
                f" it has {', '.join(recipe.data.splits)}",
                hint=f"data.splits.{name}=5% cuts one from train",
            )
    found: dict[str, _Rows] = {}
    for name, native in plan.native.items():
        cuts = [cut for cut in plan.cuts if cut in names] if name == TRAIN else []
        if name == TRAIN or name in names:
            table = _load_native(native, name, built)
            found |= _deal(name, table, plan if name == TRAIN else SplitPlan({}, {}), built)
            found[name].left_out = built.source.left_out(native)
            for cut in cuts:
                _check_cut(cut, found, plan, recipe)
    return found


def _number_labels(rows: Mapping[str, _Rows], names: Sequence[str], built: Built) -> Labels:
    """Number every split's labels by those of the training rows, in place; return them."""
    recipe = built.recipe
    where = recipe.place(f"data.task.{recipe.data.task.name}", "data.task")
    train = rows[TRAIN]
    check_declared({name: rows[name].declared for name in (TRAIN, *names)}, where=where)
    with blamed(recipe, f"method.{recipe.method.name}.class_weights"):
        labels = find_labels(train.examples, train.declared, built.task, built.method, where=where)
    if labels.names:
        for name in names:
            held = rows[name]
            held.examples = number_labels(
                held.examples, labels, held.index, split=name, where=where
            )
    return labels


def _deal(name: str, table: Dataset, plan: SplitPlan, built: Built) -> dict[str, _Rows]:
    """Make an example of every row and put it into the split that its content falls into."""
    declared = declared_names(table, built.task)
    dealt = {split: _Rows(split, table, declared=declared) for split in (name, *plan.cuts)}
    for at, row in enumerate(table):
        try:
            example, reason = spell(built.task.example(row), declared), ""
        except DataError as error:
            example, reason = None, error.message
        cut_key = split_key(row, example) if plan.cuts else b""
        rows = dealt[assign(cut_key, plan.cuts) if plan.cuts else name]
        rows.num_rows += 1
        if example is None:
            rows.dropped[reason] += 1
            rows.first_dropped = at if rows.first_dropped is None else rows.first_dropped
            continue
        _check_kind(example, built)
        rows.index.append(at)
        rows.examples.append(example)
        rows.keys.append(content_key(row, example))
        rows.cut_keys.append(cut_key)
    return dealt


def _load_native(native: str, name: str, built: Built) -> Dataset:
    recipe, source, task = built.recipe, built.source, built.task
    chosen = recipe.data.source.name
    available = source.splits()
    if available and native not in available:
        raise DataError(
            f"{recipe.place(f'data.splits.{name}', 'data.splits')}: the source {chosen!r} has no"
            f" split {native!r}; it has {', '.join(available)}",
            hint=f"name one of them, or cut a share from train: data.splits.{name}=5%",
        )
    table = source.load(native)
    if not len(table):
        raise DataError(
            f"{recipe.place('data.source')}: split {native!r} of the source {chosen!r} has no rows",
            hint="check what the source is told to read",
        )
    task_key = f"data.task.{recipe.data.task.name}"
    where = f"{recipe.place(task_key, 'data.task')}: split {native!r}"
    require_columns(task.columns, table.column_names, where=where)
    return table


def _check_cut(cut: str, found: Mapping[str, _Rows], plan: SplitPlan, recipe: Recipe) -> None:
    if found[cut].num_rows:
        return
    keys = [key for rows in found.values() for key in rows.cut_keys]
    share = smallest_share(keys, plan.cuts, cut)
    raise DataError(
        f"{recipe.place(f'data.splits.{cut}')}: {recipe.data.splits[cut]} of {len(keys)} rows"
        " cuts none",
        hint=f"data.splits.{cut}={share or '10%'}, or a file of its own",
    )


def _check_kind(example: Example, built: Built) -> None:
    if built.method.takes(example):
        return
    recipe = built.recipe
    kinds = kinds_of(built.method.examples)
    raise DataError(
        f"{recipe.place('data.task')}: the task {recipe.data.task.name!r} makes"
        f" {type(example).__name__}, but the method {recipe.method.name!r} takes {kinds}",
        hint="pick another task or another method",
    )


def _audit(
    rows: _Rows, encoded: EncodedRows, built: Built, labels: Labels, trained: frozenset[bytes]
) -> SplitAudit:
    method = built.method
    targets = encoded.measured.target_length
    kept_keys = [rows.keys[at] for at in encoded.kept]
    used = [rows.examples[at] for at in encoded.kept]
    return SplitAudit(
        split=rows.name,
        num_rows=rows.num_rows,
        num_used=len(encoded.kept),
        dropped=shorten_reasons(rows.dropped + Counter(encoded.dropped)),
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
        num_leaked=0 if rows.name == TRAIN else sum(key in trained for key in kept_keys),
        max_length=method.max_length,
        target_percentiles={} if targets is None else percentiles(targets),
        max_target_length=method.max_target_length,
        labels=count_labels(used, labels),
        numbers=describe_numbers(used),
        weights=dict(labels.weights) if rows.name == TRAIN else {},
        left_out=dict(rows.left_out),
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


def _first_dropped(rows: _Rows, encoded: EncodedRows) -> int | None:
    found = [rows.first_dropped] if rows.first_dropped is not None else []
    if encoded.first_dropped is not None:
        found.append(rows.index[encoded.first_dropped])
    return min(found, default=None)


def _in_source(rows: _Rows, measured: Measured, longest: int) -> Measured:
    """Number what was measured by the rows of the source."""
    return replace(
        measured,
        index=_at(rows.index, measured.index),
        lost={rows.index[at]: text for at, text in measured.lost.items()},
        longest_arranged=longest,
    )


def _at(index: Sequence[int], positions: Any) -> Any:
    import numpy as np

    return np.asarray(index, np.int64)[positions] if len(positions) else positions


def _to_dataset(encoded: EncodedRows) -> Dataset:
    from peftkit.sources.rows import to_dataset

    return to_dataset(encoded.table)
