"""Say which line of a recipe an error is about, where the error itself cannot know."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from peftkit.errors import PeftkitError, RecipeError
from peftkit.recipe.schema import Recipe


@contextmanager
def blamed(recipe: Recipe, *keys: str) -> Iterator[None]:
    """Begin the message of an error inside with the recipe's file, line and key.

    Args:
        keys: what the error is about; the first that stands in the recipe is named. A message
            that begins with a key of its own keeps that one, and without `keys` others pass.
    """
    try:
        yield
    except RecipeError:
        raise
    except PeftkitError as error:
        own, colon, rest = error.message.partition(": ")
        has_own = bool(colon) and _is_key(own)
        if error.message.startswith(str(recipe.file)) or not (has_own or keys):
            raise
        message = (
            f"{recipe.place(own, *_above(own), say=own)}: {rest}"
            if has_own
            else f"{recipe.place(*keys)}: {error.message}"
        )
        raise type(error)(message, hint=error.hint) from error


def _is_key(text: str) -> bool:
    parts = text.split(".")
    return len(parts) > 1 and all(part.isidentifier() for part in parts)


def _above(key: str) -> list[str]:
    """List the sections that a key stands in, the nearest first."""
    parts = key.split(".")
    return [".".join(parts[:length]) for length in range(len(parts) - 1, 0, -1)]
