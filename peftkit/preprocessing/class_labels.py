"""Give labels their numbers, the same in every split: the data's own, or by the training rows."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import TYPE_CHECKING, Any

from peftkit.errors import DataError
from peftkit.plugins import Example, Method, ModelKind, Task
from peftkit.plugins.examples import show_number

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase

SHOWN = 10
"""Labels that an error lists."""
REGRESS = "a number itself is predicted by another task: data.task: {regress: ...}"

_WHOLE = re.compile(r"-?[0-9]+")
_NUMBER = re.compile(r"[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)(e[-+]?[0-9]+)?", re.IGNORECASE)


@dataclass(frozen=True)
class Labels:
    """Hold what a recipe's rows may be labelled; nothing where rows have no label."""

    names: tuple[str, ...] = ()
    """By their numbers."""
    most_frequent: str = ""
    """Of the training rows."""
    weights: Mapping[str, float] = field(default_factory=dict)
    """Label -> how much it counts in the loss; empty where all count alike."""
    mean: float | None = None
    """Of the training rows' numbers, where a number is predicted and no label."""
    number_name: str = ""
    """The column of that number."""

    def number(self, label: str) -> int:
        """Return a label's number."""
        return self.names.index(label)

    @property
    def outputs(self) -> tuple[str, ...]:
        """Name what a model's head says: how likely each label is, or the one number."""
        return self.names if self.mean is None else (self.number_name,)

    @property
    def baselines(self) -> dict[str, str]:
        """Return the trivial answers: the most frequent label, or the mean of the numbers."""
        if self.mean is not None:
            return {"mean_of_train": show_number(self.mean)}
        return {"most_frequent": self.most_frequent} if self.names else {}

    def model_options(
        self, tokenizer: PreTrainedTokenizerBase, kind: ModelKind | None = None
    ) -> dict[str, Any]:
        """Return what a classifier's configuration must say; nothing without labels.

        A decoder finds a row's last token by the padding token's id.

        Args:
            kind: of the model, which may score rows that have no label.
        """
        if not self.outputs:
            scores = kind is not None and kind.reads_rows
            return {"pad_token_id": tokenizer.pad_token_id} if scores else {}
        return {
            "id2label": dict(enumerate(self.outputs)),
            "label2id": {name: number for number, name in enumerate(self.outputs)},
            "pad_token_id": tokenizer.pad_token_id,
            # A base that was trained for another problem would go on with its own
            "problem_type": "single_label_classification" if self.names else "regression",
        }


def declared_names(table: Dataset, task: Task) -> tuple[str, ...]:
    """Return the names that the data itself gives its labels by number (`ClassLabel`)."""
    from datasets import ClassLabel

    if task.label_column is None or task.is_regression:
        return ()
    feature = table.features.get(task.label_column)
    return tuple(feature.names) if isinstance(feature, ClassLabel) else ()


def check_declared(declared: Mapping[str, Sequence[str]], *, where: str) -> None:
    """Refuse splits whose own names for the labels' numbers differ.

    Args:
        declared: split -> its names; none where it has none.
        where: the recipe's file, line and key of the task.

    Raises:
        DataError: shows the names of both splits.
    """
    (first, names), *others = declared.items()
    for split, other in others:
        if tuple(other) != tuple(names):
            raise DataError(
                f"{where}: the label's numbers have other names in {split} than in {first}:"
                f" {_list(other) or 'none'}, and {_list(names) or 'none'}",
                hint="write both splits with the same names in the same order",
            )


def spell(example: Example, names: Sequence[str]) -> Example:
    """Put the name in the place of a label's number, where the data has names.

    Raises:
        DataError: the number has no name; -1 stands for rows without a label.
    """
    label = example.class_label
    if not names or label is None:
        return example
    number = int(label) if _WHOLE.fullmatch(label) else -1
    if number == -1:
        raise DataError(f"the label is {label}, which stands for none")
    if not 0 <= number < len(names):
        raise DataError(
            f"the label is {label}, but the data names the labels 0 to {len(names) - 1} only"
        )
    return example.with_label(names[number])


def find_labels(
    examples: Sequence[Example],
    declared: Sequence[str],
    task: Task,
    method: Method | None = None,
    *,
    where: str,
) -> Labels:
    """Collect the labels of the training rows, or their numbers; nothing where they have neither.

    Args:
        declared: names in the order of the data's own numbers, which then hold.
        method: says what each label counts.
        where: the recipe's file, line and key of the task.

    Raises:
        DataError: there is one label alone, or they are no classes.
    """
    values = [example.value for example in examples if example.value is not None]
    if values:
        return _find_numbers(values, task, where=where)
    counts = Counter(one.class_label for one in examples if one.class_label is not None)
    if not counts:
        return Labels()
    names = tuple(declared) or tuple(sorted(counts, key=_order))
    if len(counts) < 2:
        raise DataError(
            f"{where}: every row of train has the label {next(iter(counts))!r}, so there is nothing"
            " to learn",
            hint="name another column as label, or mend the rows",
        )
    _check_classes(counts, where=where)
    task.check_labels(names)
    weights = method.weigh({name: counts[name] for name in names}) if method else {}
    return Labels(names, max(names, key=lambda name: counts[name]), weights)


def _check_classes(counts: Counter[str], *, where: str) -> None:
    """Refuse what is no label: numbers with fractions, or nearly as many labels as rows."""
    shown = _list(sorted(counts, key=_order))
    if all(map(_NUMBER.fullmatch, counts)) and not all(float(one).is_integer() for one in counts):
        raise DataError(
            f"{where}: the labels are numbers with fractions, {shown}: this column holds no"
            " classes",
            hint=f"name another column as label; {REGRESS}",
        )
    if len(counts) > 2 and len(counts) > counts.total() / 2:
        raise DataError(
            f"{where}: {len(counts)} labels in {counts.total()} rows, e.g. {shown}: this"
            " column holds no classes",
            hint=f"name another column as label; {REGRESS}",
        )


def _find_numbers(values: Sequence[float], task: Task, *, where: str) -> Labels:
    if len(set(values)) < 2:
        raise DataError(
            f"{where}: every row of train has the number {show_number(values[0])}, so there is"
            " nothing to learn",
            hint="name another column as label, or mend the rows",
        )
    return Labels(mean=fmean(values), number_name=task.label_column or "value")


def number_labels(
    examples: Sequence[Example], labels: Labels, index: Sequence[object], *, split: str, where: str
) -> list[Example]:
    """Give each example its label's number.

    Args:
        index: row in the source's split of each example.

    Raises:
        DataError: labels are not among those of the training rows; names them.
    """
    numbers = {name: number for number, name in enumerate(labels.names)}
    unknown: dict[str, object] = {}
    for row, example in zip(index, examples, strict=True):
        label = example.class_label
        if label is not None and label not in numbers:
            unknown.setdefault(label, row)
    if unknown:
        raise _unknown(unknown, labels, split=split, where=where)
    return [_numbered(example, numbers) for example in examples]


def _unknown(unknown: Mapping[str, object], labels: Labels, *, split: str, where: str) -> DataError:
    """Say which labels train lacks; that names differ between splits, where none agrees."""
    label, row = next(iter(unknown.items()))
    more = f", and {len(unknown) - 1} more labels are new there" if len(unknown) > 1 else ""
    near = {name.casefold(): name for name in labels.names}.get(label.casefold())
    return DataError(
        f"{where}: row {row} of {split} has the label {label!r}, which no row of"
        f" train has; train has {_list(labels.names)}{more}",
        hint=f"write it as {near!r}, as train does"
        if near
        else "mend the label, or give train rows of it",
    )


def _numbered(example: Example, numbers: Mapping[str, int]) -> Example:
    label = example.class_label
    return example if label is None else example.with_label(label, numbers[label])


def count_labels(examples: Iterable[Example], labels: Labels) -> dict[str, int]:
    """Count a split's examples by label, in the order of their numbers; nothing without labels."""
    counts = Counter(one.class_label for one in examples)
    return {label: counts[label] for label in labels.names}


def describe_numbers(examples: Iterable[Example]) -> dict[str, float]:
    """Return the least, the mean and the most of a split's numbers; nothing without numbers."""
    values = [example.value for example in examples if example.value is not None]
    if not values:
        return {}
    return {"least": min(values), "mean": fmean(values), "most": max(values)}


def labels_of_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a saved classifier's configuration says of its labels."""
    said = ("id2label", "label2id", "pad_token_id", "problem_type")
    kept = {key: config[key] for key in said if key in config}
    if "id2label" in kept:  # JSON's keys are text
        kept["id2label"] = {int(number): name for number, name in kept["id2label"].items()}
    return kept


def _order(name: str) -> tuple[int, float, str]:
    """Order labels that are numbers by value, and all others by their letters."""
    return (0, float(name), name) if _NUMBER.fullmatch(name) else (1, 0, name)


def _list(names: Sequence[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(map(repr, names[:SHOWN])) + more
