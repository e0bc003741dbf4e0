"""Load a recipe: read, override, check every section, resolve paths, all problems at once.

Relative paths start at the recipe's folder, wherever the command is run.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

from peftkit.errors import Problem, RecipeError
from peftkit.recipe.contradictions import find_contradictions
from peftkit.recipe.foreign import describe_foreign
from peftkit.recipe.overrides import apply_overrides, without_decisions
from peftkit.recipe.schema import Recipe
from peftkit.recipe.sections import read_sections
from peftkit.recipe.strict import Gate
from peftkit.recipe.yaml_file import read_yaml


def load_recipe(
    file: str | Path, overrides: Sequence[str] = (), *, unneeded: Collection[str] = ()
) -> Recipe:
    """Load and check a recipe.

    Args:
        overrides: `a.b.c=value` each, checked like the file itself.
        unneeded: sections whose files and folders need not be there, since nothing reads them.

    Raises:
        RecipeError: with every problem, its line, its key and what to do.
    """
    try:
        document = read_yaml(Path(file))
    except RecipeError:
        _refuse_foreign(Path(file))
        raise
    if "method" not in document.data:
        _refuse_foreign(Path(file))
    data, is_resolved = without_decisions(document.data)
    overridden = apply_overrides(document.file, data, overrides)
    gate = Gate(document.file, document.lines, overridden.keys, unneeded)
    gate.problems.extend(overridden.problems)
    sections = read_sections(gate, overridden.data)
    if not is_resolved:
        find_contradictions(gate, sections)
    if gate.problems:
        raise RecipeError(document.file, gate.sorted_problems())
    return Recipe(
        **sections,
        file=Path(file),
        text=document.text,
        lines={k: v for k, v in document.lines.items() if not _is_below(k, overridden.keys)},
        overrides=tuple(overrides),
        replaced=overridden.replaced,
    )


def _refuse_foreign(file: Path) -> None:
    """Say in one line that a file is another tool's, where it is, instead of all that it lacks."""
    described = describe_foreign(file)
    if described is not None:
        hint = f"peftkit init {file} writes the recipe that does the same"
        raise RecipeError(str(file), [Problem(str(file), None, "", described, hint)])


def _is_below(key: str, parents: frozenset[str]) -> bool:
    return any(key == parent or key.startswith(parent + ".") for parent in parents)
