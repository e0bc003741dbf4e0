"""The lengths of a recipe's own training rows, where its data and its tokenizer are at hand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from peftkit.errors import PeftkitError
from peftkit.plugins import IGNORED, Method, ModelKind, column_lengths

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PretrainedConfig

    from peftkit.plugins import Machine
    from peftkit.preprocessing.class_labels import Labels
    from peftkit.recipe.schema import Recipe


def row_lengths(recipe: Recipe, machine: Machine) -> tuple[list[int] | None, str]:
    """Read and encode the training rows, as a run would; None and the reason where that fails.

    A plan does without them: it takes the longest row that the recipe allows.
    """
    from peftkit.models.reader import load_reader
    from peftkit.preprocessing.pipeline import inspect_rows
    from peftkit.recipe.build import build

    if recipe.model.config is not None:
        return None, "the tokenizer is trained first"
    if _is_on_hub(recipe):
        return None, "the tokenizer is on the Hub"
    try:
        built = build(recipe, machine, is_here=False)
        tokenizer = load_reader(recipe.model, recipe.file.parent, built.method)
        built.task.prepare_tokenizer(tokenizer)
        prepared = inspect_rows(built, tokenizer, splits=["train"])
        rows = prepared.encoded.get("train")
    except PeftkitError as error:
        return None, error.message
    if rows is None:
        return None, "no row can be used"
    found = lengths_of(rows, built.method, prepared.labels)
    return found, f"the longest of {len(found):,} rows"


class RowLengths(list[int]):
    """Hold the tokens of each row, of its source where a target of its own is trained."""

    longest_target: int = 0
    """Tokens of the longest target; 0 where rows are one sequence."""
    num_rows: int = 0
    """Rows that the trainer gets in all, packed ones counted as one: no batch has more. 0 where the
    lengths stand for any number of rows."""
    trained: Sequence[int] = ()
    """Trained positions of each row; empty where a method does not say."""
    num_labels: int = 0
    """What the head of a model says: labels, or one number; 0 where rows have neither."""


def lengths_of(rows: Dataset, method: Method, labels: Labels | None = None) -> RowLengths:
    """Return the tokens of each row that a method has arranged.

    Args:
        labels: what rows may be labelled.
    """
    lengths = RowLengths(method.lengths(rows))
    lengths.num_rows = len(rows)
    lengths.num_labels = len(labels.outputs) if labels else 0
    if "loss" in method.speeds and "labels" in rows.column_names:
        lengths.trained = count_trained(rows)
    if method.target_option is not None and "labels" in rows.column_names:
        lengths.longest_target = max(column_lengths(rows, "labels"), default=0)
    return lengths


def count_trained(rows: Dataset) -> list[int]:
    """Count the positions of each row that predict a label, which its first token is of none."""
    import numpy as np

    counts: list[int] = []
    for batch in rows.with_format("arrow").iter(10_000):
        labels = batch["labels"].combine_chunks()
        ends = np.cumsum(labels.value_lengths().to_numpy())
        is_trained = labels.flatten().to_numpy() != IGNORED
        starts = np.concatenate([[0], ends[:-1]])
        is_trained[starts[starts < ends]] = False
        total = np.concatenate([[0], np.cumsum(is_trained)])
        counts += (total[ends] - total[starts]).tolist()
    return counts


def scored_share(lengths: Sequence[int] | None, num_rows: int) -> float:
    """Return the largest share of a batch's positions that can be trained; all, if none are known.

    Args:
        num_rows: of a batch, which is as long as its longest row.
    """
    trained = sorted(getattr(lengths, "trained", ()), reverse=True)[:num_rows]
    if not trained or lengths is None:
        return 1.0
    return float(min(1.0, sum(trained) / max(1, len(trained) * (max(lengths) - 1))))


def length_key(recipe: Recipe) -> str:
    """Return the recipe's key that says where its rows are cut, e.g. `method.sft.max_length`."""
    from peftkit.plugins import find

    name = recipe.method.name
    return f"method.{name}.{find('methods', name).length_option}"


def rows_at_most(rows: int, lengths: Sequence[int] | None) -> int:
    """Return how many of this many rows a batch can have, as far as the lengths know."""
    return min(rows, getattr(lengths, "num_rows", 0) or rows)


def longest_target(lengths: Sequence[int] | None) -> int:
    """Return the tokens of the longest target, as far as the lengths know of one."""
    return getattr(lengths, "longest_target", 0)


def fit_head(
    config: PretrainedConfig,
    kind: ModelKind,
    lengths: Sequence[int] | None,
    *,
    is_regression: bool = False,
) -> PretrainedConfig:
    """Give a classifier's configuration what training will: its labels, and a padding token.

    Args:
        is_regression: whether its head says one number.
    """
    stated = 1 if is_regression else getattr(lengths, "num_labels", 0)
    if stated or kind.reads_rows:
        text = config.get_text_config()
        if text.pad_token_id is None:
            text.pad_token_id = 0
        config.num_labels = stated or config.num_labels
    if kind.num_outputs is not None:
        config.num_labels = kind.num_outputs
    return config


def longest_rows(lengths: Sequence[int], num_rows: int) -> list[int]:
    """Return the indices of the rows that make the largest batch: the longest ones."""
    order = sorted(range(len(lengths)), key=lambda index: -lengths[index])
    return order[:num_rows]


def _is_on_hub(recipe: Recipe) -> bool:
    from pathlib import Path

    path = recipe.model.path or ""
    return not path.startswith("embedded:") and not Path(path).expanduser().exists()
