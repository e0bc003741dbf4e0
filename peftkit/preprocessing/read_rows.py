"""Read the sources of a recipe and deal their rows out to its splits."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from peftkit.errors import DataError, EmptyValueError
from peftkit.plugins.examples import Example, kinds_of
from peftkit.preprocessing.class_labels import declared_names, spell
from peftkit.preprocessing.cuts import Cuts, check_cuts, cuts_of, splits_key
from peftkit.preprocessing.splits import TRAIN, SplitPlan, content_key, plan_splits, split_key
from peftkit.sources.columns import require_columns
from peftkit.sources.formats import rendering_for, system_columns

if TYPE_CHECKING:
    from datasets import Dataset

    from peftkit.recipe.build import Built, BuiltPart
    from peftkit.recipe.schema import Part
    from peftkit.recipe.split_values import Slice


@dataclass(frozen=True)
class Origin:
    """Say where a row came from: which source, which of its native splits, which row of that."""

    part: int
    """Number of the source in the recipe's list; 0 where there is one alone."""
    native: str
    row: int
    label: str = ""
    """The source's name; empty where there is one alone."""

    def __str__(self) -> str:
        """Name the row as a message does."""
        return f"{self.row} of {self.label}" if self.label else str(self.row)


@dataclass(frozen=True, slots=True)
class _Dealt:
    """Hold one row on its way into a split."""

    origin: Origin
    example: Example | None
    reason: str
    """Why there is no example."""
    key: bytes
    """What is asked."""
    cut_key: bytes
    """What decides the split."""
    hint: str | None = None
    """What to try, where there is no example."""
    is_left_out: bool = False
    """Whether the recipe leaves out rows that lack what this one does."""


@dataclass
class SplitRows:
    """Hold one split before it is encoded."""

    name: str
    origins: list[Origin] = field(default_factory=list)
    """Of each example."""
    examples: list[Example] = field(default_factory=list)
    keys: list[bytes] = field(default_factory=list)
    """What each asks."""
    dropped: Counter[str] = field(default_factory=Counter)
    skipped: Counter[str] = field(default_factory=Counter)
    """Why rows are left out, as the recipe says."""
    hints: dict[str, str] = field(default_factory=dict)
    """Why a row makes no example -> what to try."""
    first_dropped: tuple[int, Origin] | None = None
    """The first row that makes no example, and how many examples there were before it."""
    num_rows: Counter[int] = field(default_factory=Counter)
    """Rows of each source, usable or not."""
    declared: list[tuple[str, ...]] = field(default_factory=list)
    """Names that the data gives its labels, source by source."""
    left_out: Counter[str] = field(default_factory=Counter)
    """`Source.left_out` of the splits that this one is, or is the rest of."""

    @property
    def names(self) -> tuple[str, ...]:
        """Return the labels' names in the data's own order; none where sources differ in them."""
        return self.declared[0] if len(set(self.declared)) == 1 else ()


@dataclass(frozen=True)
class RawRows(Sequence[Mapping[str, Any]]):
    """Give rows as their sources gave them, without copying any."""

    tables: Mapping[tuple[int, str], Dataset]
    origins: Sequence[Origin]

    def __len__(self) -> int:
        return len(self.origins)

    def __getitem__(self, at: Any) -> Any:
        if isinstance(at, slice):
            return RawRows(self.tables, self.origins[at])
        origin = self.origins[at]
        return self.tables[origin.part, origin.native][origin.row]

    def to_list(self) -> list[dict[str, Any]]:
        """Return all rows."""
        return [dict(row) for row in self]


@dataclass(frozen=True)
class RowNames:
    """Name rows as messages do, by the examples that were made of them."""

    origins: Sequence[Origin]
    """Of each example."""
    examples: Any
    """The example of each row."""

    def __getitem__(self, at: int) -> str:
        return str(self.origins[int(self.examples[at])])


@dataclass
class RowReader:
    """Read each native split of each source once."""

    built: Built
    tables: dict[tuple[int, str], Dataset] = field(default_factory=dict)
    """(source, native split) -> its rows as they are."""

    def read(self, names: Sequence[str]) -> dict[str, SplitRows]:
        """Read these splits; `train` too where only another is wanted, to count what leaked.

        Raises:
            DataError: a split, a column or every row is missing, or splits overlap.
        """
        recipe = self.built.recipe
        for name in names:
            if name not in recipe.data.all_splits:
                raise DataError(
                    f"{recipe.place('data.splits')}: the recipe has no split {name!r};"
                    f" it has {', '.join(recipe.data.all_splits)}",
                    hint=f"data.splits.{name}=5% cuts one from train",
                )
        found: dict[str, SplitRows] = {}
        for parts in _alike(self.built.parts):
            self._read_alike(parts, names, found)
        _check_none_empty(found, self.built)
        return found

    def _read_alike(
        self, parts: Sequence[BuiltPart], names: Sequence[str], found: dict[str, SplitRows]
    ) -> None:
        """Read sources that are split alike: what is cut is cut from all their training rows."""
        recipe, first = self.built.recipe, parts[0].part
        key = splits_key(first, recipe)
        plan = plan_splits(first.splits, key=key)
        for name in plan.native:
            if name != TRAIN and name not in names:
                continue
            dealt = [one for part in parts for one in self._examples(part, name, plan)]
            cuts = cuts_of(plan, map(_stratum, dealt), recipe, key) if name == TRAIN else Cuts()
            for part in parts:
                into = found.setdefault(name, SplitRows(name))
                declared = self._declared(part, name, plan)
                for split in (name, *(cut for cut in cuts.shares if cut in names)):
                    found.setdefault(split, SplitRows(split)).declared.append(declared)
                for native in dict.fromkeys(piece.name for piece in plan.native[name]):
                    into.left_out.update(part.source.left_out(native))
            for one in dealt:
                split = cuts.split_of(one.cut_key) if cuts.shares else name
                if split == name or split in names:
                    _put(found.setdefault(split, SplitRows(split)), one)
            held = [cut for cut in cuts.shares if cut in names]
            num_rows = {cut: found[cut].num_rows.total() for cut in held}
            check_cuts(cuts, num_rows, first, recipe)

    def _declared(self, part: BuiltPart, name: str, plan: SplitPlan) -> tuple[str, ...]:
        return declared_names(self._table(part, plan.native[name][0], name), part.task)

    def _examples(self, part: BuiltPart, name: str, plan: SplitPlan) -> Iterator[_Dealt]:
        """Make an example of every row of one split of one source, or say why there is none."""
        label = part.part.label if len(self.built.parts) > 1 else ""
        drops_empty = self.built.recipe.data.rows.empty == "drop"
        dialogue = self.built.recipe.data.dialogue
        largest = self.built.recipe.data.rows.max_mib
        for piece in plan.native[name]:
            table = self._table(part, piece, name)
            rows = self._rows(piece, len(table), part.part, name)
            self._check_apart(part, name, piece, rows, plan)
            declared = declared_names(table, part.task)
            source = self.built.parts.index(part)
            chosen = table if len(rows) == len(table) else table.select(rows)
            for at, row in zip(rows, chosen, strict=True):
                hint, is_left_out = None, False
                try:
                    check_size(row, largest)
                    made = part.task.example(row).rendered(rendering_for(dialogue, row))
                    example, reason = spell(made, declared), ""
                    check_kind(example, self.built, part.part)
                except UnusableRow as error:
                    raise error.problem from None
                except DataError as error:
                    example, reason, hint = None, error.message, error.hint
                    is_left_out = drops_empty and isinstance(error, EmptyValueError)
                origin = Origin(source, piece.name, at, label)
                cut_key = split_key(row, example) if plan.cuts else b""
                key = content_key(row, example)
                yield _Dealt(origin, example, reason, key, cut_key, hint, is_left_out)

    def _rows(self, piece: Slice, num_rows: int, part: Part, name: str) -> range:
        """Return which rows a slice has, refusing one that goes beyond them."""
        rows = piece.rows(num_rows)
        ends = [abs(end) for end in (piece.low, piece.high) if end is not None]
        is_beyond = not piece.is_percent and any(end > num_rows for end in ends)
        if rows and not is_beyond:
            return rows
        recipe = self.built.recipe
        key = f"{splits_key(part, recipe)}.{name}"
        raise DataError(
            f"{recipe.place(key, 'data.splits', say=key)}: {part.splits[name]!r}"
            f" {'goes beyond' if is_beyond else 'holds none of'} the {num_rows} rows of"
            f" {piece.name!r}",
            hint=f"{key}={piece.name} takes them all",
        )

    def _check_apart(
        self, part: BuiltPart, name: str, piece: Slice, rows: range, plan: SplitPlan
    ) -> None:
        """Refuse a split that takes rows which `train` has."""
        if name == TRAIN:
            return
        for other in plan.native.get(TRAIN, ()):
            if other.name != piece.name:
                continue
            trained = other.rows(len(self._table(part, other, TRAIN)))
            shared = min(rows.stop, trained.stop) - max(rows.start, trained.start)
            if shared > 0:
                recipe = self.built.recipe
                key = f"{splits_key(part.part, recipe)}.{name}"
                raise DataError(
                    f"{recipe.place(key, 'data.splits', say=key)}: {part.part.splits[name]} takes"
                    f" {shared} rows that train has too ({part.part.splits[TRAIN]})",
                    hint="let the slices meet, not overlap: train[10%:] and train[:10%]",
                )

    def _table(self, part: BuiltPart, piece: Slice, name: str) -> Dataset:
        place = self.built.parts.index(part), piece.name
        if place not in self.tables:
            self.tables[place] = load_native(self.built, part, piece.name, name)
        return self.tables[place]


def load_native(built: Built, part: BuiltPart, native: str, name: str) -> Dataset:
    """Read one native split of one source, with the columns that its task needs.

    Raises:
        DataError: there is no such split or column, or there are no rows.
    """
    recipe, source, task = built.recipe, part.source, part.task
    chosen = part.part.source.name
    key = f"{splits_key(part.part, recipe)}.{name}"
    available = source.splits()
    if available and native not in available:
        raise DataError(
            f"{recipe.place(key, 'data.splits')}: the source {chosen!r} has no"
            f" split {native!r}; it has {', '.join(available)}",
            hint=f"name one of them, or cut a share from train: {key}=5%",
        )
    needed = (*task.columns, *system_columns(recipe.data.dialogue))
    table = source.load_columns(native, top_columns(needed))
    if not len(table):
        raise DataError(
            f"{recipe.place(part.part.key, 'data.source')}: split {native!r} of the source"
            f" {chosen!r} has no rows",
            hint="check what the source is told to read",
        )
    task_key = f"{part.part.task_key}.{part.part.task.name}"
    of = f" of {part.part.label}" if len(built.parts) > 1 else ""
    where = f"{recipe.place(task_key, part.part.task_key)}: split {native!r}{of}"
    require_columns(needed, table.column_names, where=where)
    return table


def top_columns(columns: Sequence[str]) -> list[str]:
    """Return columns with those that a path leads into: `translation.de`, `translation`."""
    return list(dict.fromkeys(n for c in columns for n in (c, c.partition(".")[0])))


class UnusableRow(Exception):  # noqa: N818 - it carries the error that is shown
    """Carry an error that no row may be dropped for."""

    def __init__(self, problem: DataError) -> None:
        super().__init__(problem.message)
        self.problem = problem


def check_size(row: Mapping[str, Any], max_mib: float) -> None:
    """Refuse a row whose texts are together larger than a text that can be encoded.

    Raises:
        DataError: names the option that takes it.
    """
    if _num_characters(row) > max_mib * (1 << 20):
        raise DataError(
            f"the row holds more than {max_mib:g} MiB of text",
            hint="cut it into several, or data.rows.max_mib=N takes it",
        )


def _num_characters(value: Any) -> int:
    match value:
        case str():
            return len(value)
        case Mapping():
            return sum(map(_num_characters, value.values()))
        case list():
            return sum(map(_num_characters, value))
    return 0


def check_kind(example: Example, built: Built, part: Part) -> None:
    """Refuse an example that the method does not train on."""
    if built.method.takes(example):
        return
    recipe = built.recipe
    kinds = kinds_of(built.method.examples)
    raise UnusableRow(
        DataError(
            f"{recipe.place(part.task_key)}: the task {part.task.name!r} makes"
            f" {type(example).__name__}, but the method {recipe.method.name!r} takes {kinds}",
            hint="pick another task or another method",
        )
    )


def unread_files(built: Built) -> Iterator[str]:
    """Say which files are named for a split that no split of the recipe reads."""
    for one in built.parts:
        plan = plan_splits(one.part.splits, key=splits_key(one.part, built.recipe))
        read = {piece.name for pieces in plan.native.values() for piece in pieces}
        unread = [n for n in one.source.named_splits(one.part.source.options) if n not in read]
        if unread:
            names, of = ", ".join(unread), f" of {one.part.label}" if len(built.parts) > 1 else ""
            yield (
                f"the files for {names}{of} are not read: {splits_key(one.part, built.recipe)}"
                f" says {dict(one.part.splits)}"
            )


def _alike(parts: Sequence[BuiltPart]) -> list[list[BuiltPart]]:
    """Put sources with the same splits together, in their order."""
    groups: dict[tuple[tuple[str, str], ...], list[BuiltPart]] = {}
    for part in parts:
        groups.setdefault(tuple(sorted(part.part.splits.items())), []).append(part)
    return list(groups.values())


def _stratum(one: _Dealt) -> tuple[bytes, str | None]:
    """Return what decides a training row's split: its key and its label."""
    return one.cut_key, None if one.example is None else one.example.class_label


def _put(rows: SplitRows, one: _Dealt) -> None:
    rows.num_rows[one.origin.part] += 1
    if one.is_left_out:
        rows.skipped[one.reason] += 1
        return
    if one.example is None:
        rows.dropped[one.reason] += 1
        if one.hint:
            rows.hints[one.reason] = one.hint
        rows.first_dropped = rows.first_dropped or (len(rows.examples), one.origin)
        return
    rows.origins.append(one.origin)
    rows.examples.append(one.example)
    rows.keys.append(one.key)


def _check_none_empty(found: Mapping[str, SplitRows], built: Built) -> None:
    """Refuse a source of several that gives no usable row to train on."""
    if len(built.parts) < 2 or TRAIN not in found:
        return
    usable = Counter(origin.part for origin in found[TRAIN].origins)
    for number, one in enumerate(built.parts):
        if TRAIN in one.part.splits and not usable[number]:
            recipe = built.recipe
            raise DataError(
                f"{recipe.place(one.part.key, 'data.source')}: none of the"
                f" {found[TRAIN].num_rows[number]} training rows of {one.part.label} can be used",
                hint=f"check {one.part.task_key} against its columns, or leave the source out",
            )
