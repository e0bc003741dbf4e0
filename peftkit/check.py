"""Check recipes without loading anything: the verb `peftkit check`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from peftkit.errors import PeftkitError, Problem, RecipeError, UsageError
from peftkit.plugins import Machine
from peftkit.recipe.build import build
from peftkit.recipe.load import load_recipe


def check_files(
    files: Sequence[str | Path],
    overrides: Sequence[str] = (),
    *,
    machine: Machine | None = None,
    hints: list[str] | None = None,
) -> list[Problem]:
    """Return every problem of the recipes; a folder stands for all `.yaml` files below it.

    Args:
        machine: also construct the native objects for it (imports the stack).
        hints: takes what upstream then says of options that it will drop, each with its place.

    Raises:
        UsageError: a folder holds no recipe.
    """
    problems: list[Problem] = []
    for file in expand(files):
        try:
            found = _check(file, overrides, machine)
            if hints is not None:
                hints.extend(f"{file}: {hint}" for hint in found)
        except RecipeError as error:
            problems.extend(error.problems)
        except PeftkitError as error:
            problems.append(Problem(str(file), None, "", error.message, error.hint))
    return problems


def expand(files: Sequence[str | Path]) -> list[Path]:
    """Replace folders by the recipes in them, in order.

    Raises:
        UsageError: a folder holds none.
    """
    found: list[Path] = []
    for file in map(Path, files):
        if not file.is_dir():
            found.append(file)
            continue
        inside = sorted(file.rglob("*.yaml"))
        if not inside:
            raise UsageError(f"{file} holds no .yaml file", hint="name a recipe's file")
        found.extend(inside)
    return found


def _check(file: Path, overrides: Sequence[str], machine: Machine | None) -> tuple[str, ...]:
    recipe = load_recipe(file, overrides)
    return () if machine is None else build(recipe, machine).hints
