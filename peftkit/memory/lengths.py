"""The lengths of a recipe's own training rows, where its data and its tokenizer are at hand."""

from __future__ import annotations

from typing import TYPE_CHECKING

from peftkit.errors import PeftkitError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from datasets import Dataset

    from peftkit.plugins import Machine
    from peftkit.recipe.schema import Recipe


def row_lengths(recipe: Recipe, machine: Machine) -> tuple[list[int] | None, str]:
    """Read and encode the training rows, as a run would; None and the reason where that fails.

    A plan does without them: it takes the longest row that the recipe allows.
    """
    from peftkit.data import inspect_rows
    from peftkit.model import load_tokenizer
    from peftkit.recipe.build import build

    if recipe.model.config is not None:
        return None, "the tokenizer is trained first"
    if _is_on_hub(recipe):
        return None, "the tokenizer is on the Hub"
    try:
        built = build(recipe, machine, is_here=False)
        tokenizer = load_tokenizer(recipe.model, recipe.file.parent)
        rows = inspect_rows(built, tokenizer, splits=["train"]).encoded.get("train")
    except PeftkitError as error:
        return None, error.message
    if rows is None:
        return None, "no row can be used"
    found = lengths_of(rows)
    return found, f"the longest of {len(found):,} rows"


def lengths_of(rows: Dataset) -> list[int]:
    """Return the tokens of each encoded row."""
    lengths: list[int] = []
    for batch in rows.with_format("arrow").iter(10_000):
        lengths += batch["input_ids"].combine_chunks().value_lengths().to_pylist()
    return lengths


def longest_rows(lengths: Sequence[int], num_rows: int) -> list[int]:
    """Return the indices of the rows that make the largest batch: the longest ones."""
    order = sorted(range(len(lengths)), key=lambda index: -lengths[index])
    return order[:num_rows]


def _is_on_hub(recipe: Recipe) -> bool:
    from pathlib import Path

    path = recipe.model.path or ""
    return not path.startswith("embedded:") and not Path(path).expanduser().exists()
