"""Which merge combines several adapters, and its options, as `--method` says them."""

from __future__ import annotations

from typing import Any

from peftkit.errors import RecipeError, UsageError
from peftkit.plugins import Merge, find, plugin_names
from peftkit.recipe.build import UPSTREAM_ERRORS, construct
from peftkit.recipe.signatures import signature_of
from peftkit.recipe.strict import Gate, suggest
from peftkit.recipe.yaml_file import parse_value

WHERE = "--method"


def read_method(method: str | None) -> tuple[str, dict[str, Any], Merge]:
    """Read `{NAME: {OPTION: VALUE}}` through the gate and construct the merge.

    Raises:
        RecipeError: it is no YAML, or an option is unknown or wrong.
        UsageError: it does not name one merge.
    """
    if method is None:
        raise UsageError(
            "adapters can be combined in many ways; say how",
            hint="e.g. --method '{svd: {weights: [0.7, 0.3]}}'; the merges are "
            + ", ".join(plugin_names("merges")),
        )
    value = parse_value(method, WHERE)
    if isinstance(value, str):
        value = {value: {}}
    if not isinstance(value, dict) or len(value) != 1:
        raise UsageError(
            f"{WHERE} {method!r} is no mapping of one name to its options",
            hint="e.g. --method '{svd: {weights: [0.7, 0.3]}}'",
        )
    ((name, options),) = value.items()
    names = plugin_names("merges")
    if name not in names:
        raise UsageError(
            f"there is no merge {name!r}",
            hint=suggest(str(name), names) or f"the merges are {', '.join(names)}",
        )
    cls = find("merges", name)
    gate = Gate(WHERE, {})
    known = gate.check_options(name, {} if options is None else options, signature_of(cls.Config))
    if gate.problems:
        raise RecipeError(WHERE, gate.sorted_problems())
    try:
        return name, known, cls(construct(cls.Config, known))
    except UPSTREAM_ERRORS as error:
        raise UsageError(f"{WHERE} {name}: {error}") from error
