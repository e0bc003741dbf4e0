"""What the shell offers while a command is typed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from peftkit.errors import PeftkitError

RUNS = Path("runs")


def complete_recipe(incomplete: str) -> list[str]:
    """Offer the recipe files of the folder that is being typed, and its folders."""
    return list(_below(incomplete, suffixes=(".yaml", ".yml")))


def complete_run(incomplete: str) -> list[str]:
    """Offer the runs in runs/, and those below what is being typed."""
    runs = (str(one.parent) for one in RUNS.glob("*/resolved.yaml"))
    return sorted({one for one in runs if one.startswith(incomplete)} | {*_below(incomplete)})


def complete_recipe_or_run(incomplete: str) -> list[str]:
    """Offer recipes to run and runs to go on with."""
    return [*complete_recipe(incomplete), *complete_run(incomplete)]


def complete_run_name(incomplete: str) -> list[str]:
    """Offer the names of the runs in runs/, and their folders."""
    names = sorted(one.parent.name for one in RUNS.glob("*/status.json"))
    return [*_starting(names, incomplete), *_below(incomplete)]


def complete_shipped(incomplete: str) -> list[str]:
    """Offer the names of the shipped recipes."""
    from peftkit.recipes import shipped_recipes

    return _starting((one.name for one in shipped_recipes()), incomplete)


def complete_format(incomplete: str) -> list[str]:
    """Offer the formats of `export`."""
    from peftkit.plugins import plugin_names

    return _starting(plugin_names("exporters"), incomplete)


def complete_task(incomplete: str) -> list[str]:
    """Offer the tasks."""
    from peftkit.plugins import plugin_names

    return _starting(plugin_names("tasks"), incomplete)


def complete_key(incomplete: str) -> list[str]:
    """Offer dotted keys, one part at a time."""
    return _starting(_keys(incomplete), incomplete)


def complete_override(incomplete: str) -> list[str]:
    """Offer dotted keys with the `=` that a value follows."""
    if "=" in incomplete:
        return []
    return [f"{key}." if _members(key) else f"{key}=" for key in complete_key(incomplete)]


def _keys(incomplete: str) -> Iterable[str]:
    parent = incomplete.rpartition(".")[0]
    names = _members(parent or "recipe")
    return [f"{parent}.{name}" if parent else name for name in names]


def _members(key: str) -> Sequence[str]:
    """Return the names below a key; none for one that takes a value."""
    from peftkit.explain import explain

    with suppress(PeftkitError):
        return [member.name for member in explain(key).members]
    return []


def _starting(words: Iterable[str], incomplete: str) -> list[str]:
    return [word for word in words if word.startswith(incomplete)]


def _below(incomplete: str, suffixes: tuple[str, ...] = ()) -> Iterator[str]:
    """Give the folders, and files of these suffixes, that a half-typed path may become."""
    typed = Path(incomplete)
    folder = typed if incomplete.endswith("/") else typed.parent
    if not folder.is_dir():
        return
    for one in sorted(folder.iterdir()):
        if not str(one).startswith(incomplete.removeprefix("./")) or one.name.startswith("."):
            continue
        if one.is_dir():
            yield f"{one}/"
        elif one.suffix in suffixes:
            yield str(one)


def complete_scheduler(incomplete: str) -> list[str]:
    """Offer the job systems."""
    from peftkit.plugins import plugin_names

    return _starting(plugin_names("schedulers"), incomplete)
