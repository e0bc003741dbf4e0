"""Errors of the stack before the first step, told of the option that they are about."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from peftkit.errors import PeftkitError, UsageError, first_line
from peftkit.recipe.build import UPSTREAM_ERRORS, blame_option
from peftkit.recipe.schema import Recipe
from peftkit.system.exhaustion import is_exhaustion


@contextmanager
def refusal_explained(
    recipe: Recipe, has_begun: Callable[[], bool] = lambda: False
) -> Iterator[None]:
    """Turn what the trainer raises of a method's options into a refusal that names one.

    Args:
        has_begun: whether a step has begun, after which an error is about something else.

    Raises:
        UsageError: names the option that the error names, or the method.
    """
    try:
        yield
    except (*UPSTREAM_ERRORS, AssertionError) as error:
        if isinstance(error, PeftkitError) or has_begun() or is_exhaustion(error):
            raise
        name, options = recipe.method.name, recipe.method.options
        text = first_line(error)
        key = blame_option(f"method.{name}", text, options)
        raise UsageError(
            f"{key}: the trainer cannot be made with these options: {type(error).__name__}: {text};"
            " nothing was trained",
            hint=f"change them, or delete those that {name} does well without; --traceback shows"
            " where this was raised",
        ) from error


def refused_optimizer(recipe: Recipe, error: BaseException | None) -> UsageError:
    """Tell of the option which makes an optimizer that cannot be made, or take a step."""
    at, options = f"method.{recipe.method.name}", recipe.method.options
    key = next((f"{at}.{name}" for name in ("optim_args", "optim") if options.get(name)), at)
    text = first_line(error) if error else ""
    return UsageError(
        f"{recipe.place(key)}: the optimizer cannot take a step: {type(error).__name__}: {text};"
        " nothing was trained",
        hint=f"change it, or delete it: {at}.optim=adamw_torch steps everywhere",
    )
