"""Give labels their numbers, the same in every split: the data's own, or by the training rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from peftkit.errors import DataError
from peftkit.plugins import Example, Task

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase

SHOWN = 10
"""Labels that an error lists."""


@dataclass(frozen=True)
class Labels:
    """Hold the labels of a recipe's rows by their numbers; none where rows have no label."""

    names: tuple[str, ...] = ()
    most_frequent: str = ""
    """Of the training rows."""

    def model_options(self, tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
        """Return what a classifier's configuration must say; nothing without labels.

        A decoder finds a row's last token by the padding token's id.
        """
        if not self.names:
            return {}
        return {
            "id2label": dict(enumerate(self.names)),
            "label2id": {name: number for number, name in enumerate(self.names)},
            "pad_token_id": tokenizer.pad_token_id,
        }


def declared_names(table: Dataset, task: Task) -> tuple[str, ...]:
    """Return the names that the data itself gives its labels by number (`ClassLabel`)."""
    from datasets import ClassLabel

    if task.label_column is None:
        return ()
    feature = table.features.get(task.label_column)
    return tuple(feature.names) if isinstance(feature, ClassLabel) else ()


def spell(example: Example, names: Sequence[str]) -> Example:
    """Put the name in the place of a label's number, where the data has names.

    Raises:
        DataError: the number has no name; -1 stands for rows without a label.
    """
    label = example.class_label
    if not names or label is None:
        return example
    number = int(label) if label.lstrip("-").isdigit() else -1
    if not 0 <= number < len(names):
        raise DataError(f"the label is {label}, which stands for none")
    return example.with_label(names[number])


def find_labels(
    examples: Iterable[Example], declared: Sequence[str], task: Task, *, where: str
) -> Labels:
    """Collect the labels of the training rows; no labels where examples have none.

    Args:
        declared: names in the order of the data's own numbers, which then hold.
        where: the recipe's file, line and key of the task.

    Raises:
        DataError: there is one label alone, or nearly as many as rows.
    """
    counts = Counter(one.class_label for one in examples if one.class_label is not None)
    if not counts:
        return Labels()
    names = tuple(declared) or tuple(sorted(counts, key=_order))
    if len(names) < 2:
        raise DataError(
            f"{where}: every row of train has the label {names[0]!r}, so there is nothing to learn",
            hint="name another column as label, or mend the rows",
        )
    if len(counts) > 2 and len(counts) > counts.total() / 2:
        raise DataError(
            f"{where}: {len(counts)} labels in {counts.total()} rows, e.g. {_list(names)}: this"
            " column holds no classes",
            hint="name another column as label; numbers cannot be predicted as such (regression)",
        )
    task.check_labels(names)
    return Labels(names, max(names, key=lambda name: counts[name]))


def number_labels(
    examples: Sequence[Example], labels: Labels, index: Sequence[int], *, split: str, where: str
) -> list[Example]:
    """Give each example its label's number.

    Args:
        index: row in the source's split of each example.

    Raises:
        DataError: a label is not among those of the training rows; names it.
    """
    numbers = {name: number for number, name in enumerate(labels.names)}
    for row, example in zip(index, examples, strict=True):
        label = example.class_label
        if label is not None and label not in numbers:
            raise DataError(
                f"{where}: row {row} of {split} has the label {label!r}, which no row of"
                f" train has; train has {_list(labels.names)}",
                hint="mend the label, or give train rows of it",
            )
    return [_numbered(example, numbers) for example in examples]


def _numbered(example: Example, numbers: Mapping[str, int]) -> Example:
    label = example.class_label
    return example if label is None else example.with_label(label, numbers[label])


def count_labels(examples: Iterable[Example], labels: Labels) -> dict[str, int]:
    """Count a split's examples by label, in the order of their numbers; nothing without labels."""
    counts = Counter(one.class_label for one in examples)
    return {label: counts[label] for label in labels.names if counts[label]}


def labels_of_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a saved classifier's configuration says of its labels."""
    kept = {key: config[key] for key in ("id2label", "label2id", "pad_token_id") if key in config}
    if "id2label" in kept:  # JSON's keys are text
        kept["id2label"] = {int(number): name for number, name in kept["id2label"].items()}
    return kept


def _order(name: str) -> tuple[int, int, str]:
    """Order labels that are whole numbers by value, and all others by their letters."""
    is_number = name.lstrip("-").isdigit()
    return (0, int(name), name) if is_number else (1, 0, name)


def _list(names: Sequence[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(map(repr, names[:SHOWN])) + more
