"""Render chat templates, which anybody wrote: the one place where they compute, within bounds.

transformers' sandbox keeps a template from Python; it does not keep it from looping for ever, or
from doubling a text until the memory is full, and it computes constants while it compiles.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from peftkit.errors import ArtefactError, DataError, PeftkitError, first_line
from peftkit.system.bounds import OutOfTimeError, bounded

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

SECONDS = 5.0
"""A conversation of 100,000 words takes known templates less than a hundredth of this."""
NUM_BYTES = 256 << 20
"""Beside what the process has already: a thousand times what such a conversation takes."""


class RefusedByTemplateError(DataError):
    """Raised where a template does not render messages: by its own word, or for a mistake in it."""


def render_template(tokenizer: PreTrainedTokenizerBase, messages: Any, **told: Any) -> Any:
    """Return what `apply_chat_template` returns.

    Args:
        told: its own arguments.

    Raises:
        RefusedByTemplateError: the template refuses these messages.
        ArtefactError: it computes without an end, or takes memory without one.
    """
    with template_bounds(str(tokenizer.name_or_path)):
        return tokenizer.apply_chat_template(messages, **told)


@contextmanager
def template_bounds(name: str) -> Iterator[None]:
    """Hold what renders a chat template within bounds, and tell what goes wrong in it.

    Args:
        name: of the tokenizer.

    Raises:
        RefusedByTemplateError: the template refuses the messages.
        ArtefactError: it computes without an end, or takes memory without one.
    """
    with conversation_bounds(name):
        try:
            yield
        except (PeftkitError, MemoryError, RecursionError):  # a signal's, and what bounds tell
            raise
        except Exception as error:  # its mistakes are Python's: a division by 0, no such key
            raise RefusedByTemplateError(
                f"the chat template refuses the messages: {first_line(error) or _kind(error)}",
                hint="mend those rows, or give another template as `model.chat_template: NAME`",
            ) from error


@contextmanager
def conversation_bounds(name: str) -> Iterator[None]:
    """Hold all that is rendered of one conversation within the bounds of one rendering.

    Setting them takes half as long as rendering a short conversation.

    Args:
        name: of the tokenizer.

    Raises:
        ArtefactError: it computes without an end, or takes memory without one.
    """
    try:
        with bounded(SECONDS, NUM_BYTES):
            yield
    except (OutOfTimeError, MemoryError, RecursionError) as error:
        what = {
            OutOfTimeError: f"computes for more than {SECONDS:g} seconds",
            MemoryError: f"takes more than {NUM_BYTES >> 20} MiB of memory",
        }
        said = what.get(type(error), "calls itself without an end")
        raise ArtefactError(
            f"the chat template of {name or 'this tokenizer'} {said} for one conversation",
            hint="read it before anything else; model.chat_template: NAME takes another one",
        ) from None


def _kind(error: Exception) -> str:
    return type(error).__name__
