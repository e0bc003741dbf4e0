"""Find the command that a refused command line meant, whole, so that it can be pasted."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from peftkit.cli.app import CommandLineError
from peftkit.cli.words import (
    DATA_SUFFIXES,
    DRY_RUN,
    OPTIONS,
    POSITIONAL,
    RECIPE_SUFFIXES,
    SAME_COMMAND,
    VERBS,
    WHOLE,
)
from peftkit.errors import PeftkitError

OF_RECIPES = frozenset({"run", "launch", "check", "data", "plan", "fit"})
OF_RUNS = frozenset({"evaluate", "generate", "report", "export", "push", "merge"})
RUNS = Path("runs")
_HELP = frozenset({"--help", "-h"})


def command_for(program: Any, given: Sequence[str]) -> str | None:
    """Return the whole command line that was probably meant, or None where none is clear.

    Args:
        program: the command line's root command, of click's kind.
        given: what was typed after the program's name.
    """
    words = [word for word in given if word != "--traceback"]
    if not words or "--" in words:  # what follows it are words of another program
        return None
    verb, rest = _verb(program, words)
    if not verb:
        return None
    if _HELP & {*rest}:
        return f"peftkit {shlex.join(verb)} --help"
    if not verb[0].startswith("-"):
        command = _command(program, verb)
        given_in_order = _words_first(command, words[len(verb) :])
        rest = _words_first(command, list(_arguments(command, verb, rest)))
        verb, rest = _paths(verb, rest)
        command = _command(program, verb)
        lacks = verb[0] in OF_RECIPES and bool(rest) and not Path(rest[0]).exists()
        if lacks or command is None or not _is_parsed(command, rest):
            return None
        if [*verb, *rest] == [*words[: len(verb)], *given_in_order]:
            return None
    return f"peftkit {shlex.join([*verb, *rest])}"


def _verb(program: Any, words: Sequence[str]) -> tuple[tuple[str, ...], list[str]]:
    """Read the command, and what follows it; an empty command where none is clear."""
    first, rest = words[0], list(words[1:])
    if first in program.commands:
        return _known_verb(program, first, rest)
    if first in VERBS:
        return VERBS[first], rest
    if first.startswith("-"):
        asked = first.lstrip("-")
        return VERBS.get(asked, ()) if asked in ("version", "help") else (), []
    if first in {*DRY_RUN, *_formats()}:
        is_dry = first in DRY_RUN
        return (("run",), [*rest, "--dry-run"]) if is_dry else (("export",), [*rest, "--to", first])
    if by_file := _verb_of_file(Path(first)):
        return (by_file,), list(words)
    close = get_close_matches(first, [*program.commands, *VERBS], n=1, cutoff=0.7)
    return VERBS.get(close[0], (close[0],)) if close else (), rest


def _known_verb(program: Any, first: str, rest: list[str]) -> tuple[tuple[str, ...], list[str]]:
    """Read the second word of a command that has commands of its own."""
    inner = getattr(program.commands[first], "commands", {})
    if not inner or not rest or rest[0].startswith("-"):
        return (first,), rest
    known = VERBS.get(rest[0], (rest[0],))[-1]
    return ((first, known), rest[1:]) if known in inner else ((first,), [])


def _verb_of_file(path: Path) -> str:
    """Say what is done with a file or folder that stands where a command should."""
    if path.suffix in RECIPE_SUFFIXES:
        return "run"
    if path.suffix in DATA_SUFFIXES:
        return "init"
    if _is_run(path) or _is_run(RUNS / path):
        return "generate"
    return "recipes" if str(path) in _shipped() else ""


def _command(program: Any, verb: Sequence[str]) -> Any:
    command = program
    for word in verb:
        command = getattr(command, "commands", {}).get(word)
        if command is None:
            return None
    return command


def _arguments(command: Any, verb: Sequence[str], rest: list[str]) -> Iterator[str]:
    """Give what follows the verb, with options and keys of other tools in peftkit's words."""
    if command is None:
        yield from rest
        return
    flags, valued = _options(command)
    recipe = _recipe_in(rest) if verb[0] in OF_RECIPES else {}
    left = list(rest)
    while left:
        word = left.pop(0)
        name, equals, value = word.partition("=")
        if name in flags or name in valued:
            yield word
            if name in valued and not equals and left:
                yield left.pop(0)
        elif name.startswith("-") and len(name) > 1:
            if not equals and left and not left[0].startswith("--"):
                value, equals = left.pop(0), "="
            yield from _option(name.lstrip("-"), value if equals else None, flags, valued, recipe)
        elif equals and verb[0] in OF_RECIPES:
            yield _override(name, value, recipe) or word
        else:
            yield word


def _words_first(command: Any, rest: Sequence[str]) -> list[str]:
    """Put options behind the words that are none, which mean the same and are read by place."""
    _, valued = _options(command) if command is not None else (frozenset(), frozenset())
    plain, options, left = list[str](), list[str](), list(rest)
    while left:
        word = left.pop(0)
        is_option = word.startswith("-") and len(word) > 1
        (options if is_option else plain).append(word)
        if is_option and word in valued and left:
            options.append(left.pop(0))
    return [*plain, *options]


def _option(
    name: str,
    value: str | None,
    flags: frozenset[str],
    valued: frozenset[str],
    recipe: Mapping[str, Any],
) -> list[str]:
    """Return what an unknown option means: an option of this command, a key, or nothing."""
    plain, after = name.lower().replace("_", "-"), [] if value is None else [value]
    known = {
        option
        for option in (*OPTIONS.get(plain, ()), f"--{plain}")
        if option in flags or (option in valued and after)
    }
    if plain in SAME_COMMAND:
        return []
    if known:
        return [min(known), *after]
    if plain in POSITIONAL:
        return after
    if override := _override(plain, value or "true", recipe):
        return [override]
    if "--option" in valued and value is not None:
        return ["--option", f"{plain.replace('-', '_')}={value}"]
    return [f"--{name}"]


def _override(word: str, value: str, recipe: Mapping[str, Any]) -> str:
    """Write an override with its whole key; empty where the word stands for none."""
    from peftkit.recipe.shorthand import full_key

    if not recipe:
        return ""
    key = full_key(word, recipe)
    return WHOLE.get(word) or (f"{key}={value}" if key else "")


def _paths(verb: tuple[str, ...], rest: list[str]) -> tuple[tuple[str, ...], list[str]]:
    """Put a run where a run is asked for, and find the verb for a file of another kind."""
    if not rest or rest[0].startswith("-"):
        return _nearest(verb, rest)
    path = Path(rest[0])
    if verb[0] in OF_RECIPES:
        return _of_recipe(verb, path, rest)
    if verb[0] in OF_RUNS or verb[0] == "runs":
        if verb[0] != "runs" and path.suffix in RECIPE_SUFFIXES and path.is_file():
            run = RUNS / str(_read(path).get("name", path.stem))
            is_trained = (run / "adapter").is_dir() or (run / "model").is_dir()
            return (verb, [str(run), *rest[1:]]) if is_trained else (("run",), [str(path)])
        several = len(rest) if verb[0] in ("runs", "merge") else 1
        return verb, [*map(_run_path, rest[:several]), *rest[several:]]
    if verb == ("init",) and path.suffix in RECIPE_SUFFIXES and {"model", "data"} <= {*_read(path)}:
        return ("check",), [str(path)]
    return verb, rest


def _of_recipe(
    verb: tuple[str, ...], path: Path, rest: list[str]
) -> tuple[tuple[str, ...], list[str]]:
    """Find the recipe that a command about recipes means, or how to get one."""
    if path.suffix in DATA_SUFFIXES and path.exists():
        return ("init",), [str(path)]
    found = _recipe_file(verb[0], path)
    if not Path(found).exists() and rest[0] in _shipped():
        return ("recipes",), [rest[0]]
    return verb, [found, *rest[1:]]


def _nearest(verb: tuple[str, ...], rest: list[str]) -> tuple[tuple[str, ...], list[str]]:
    """Name the one recipe here, or the newest run, where the command line names none."""
    if verb[0] in OF_RUNS or verb in (("runs", "delete"), ("runs", "compare")):
        runs = sorted(filter(_is_run, RUNS.glob("*")), key=lambda run: run.stat().st_mtime)
        wanted = 2 if verb[-1] == "compare" else 1
        found = [str(run) for run in runs[-wanted:]]
        return (verb, [*found, *rest]) if len(found) == wanted else (("runs",), [])
    if verb[0] in OF_RECIPES:
        recipes = [one for one in sorted(Path().glob("*.y*ml")) if "model" in _read(one)]
        return (verb, [str(recipes[0]), *rest]) if len(recipes) == 1 else (("recipes",), [])
    return verb, rest


def _recipe_file(verb: str, path: Path) -> str:
    """Return the recipe that a word names: a file, one of a shipped name, or that of a run."""
    if path.is_dir() and (path / "resolved.yaml").is_file() and verb != "run":
        return str(path / "resolved.yaml")
    if path.exists():
        return str(path)
    for candidate in (path.with_suffix(".yaml"), Path("recipes") / path.with_suffix(".yaml")):
        if candidate.is_file():
            return str(candidate)
    folder = path.parent if path.parent.is_dir() else Path()
    names = [one.name for one in folder.iterdir() if one.suffix in RECIPE_SUFFIXES]
    close = get_close_matches(path.name, names, n=1, cutoff=0.7)
    return str(folder / close[0]) if close else str(path)


def _run_path(word: str) -> str:
    return str(RUNS / word) if not Path(word).exists() and _is_run(RUNS / word) else word


def _is_run(path: Path) -> bool:
    return (path / "resolved.yaml").is_file()


def _recipe_in(words: Sequence[str]) -> Mapping[str, Any]:
    """Return the data of the recipe among the words; one of sft where it cannot be read."""
    for word in words:
        if Path(word).suffix in RECIPE_SUFFIXES and (data := _read(Path(word))):
            return data
    return {"method": {"sft": {}}, "adapter": {"lora": {}}}


def _read(file: Path) -> Mapping[str, Any]:
    from peftkit.recipe.yaml_file import read_yaml

    with suppress(PeftkitError):
        return read_yaml(file).data
    return {}


def _options(command: Any) -> tuple[frozenset[str], frozenset[str]]:
    """Return a command's options: flags, and those that take a value."""
    flags, valued = {*_HELP}, set[str]()
    for parameter in command.params:
        if parameter.param_type_name == "option":
            names = {*parameter.opts, *parameter.secondary_opts}
            (flags if parameter.is_flag else valued).update(names)
    return frozenset(flags), frozenset(valued)


def _is_parsed(command: Any, rest: Sequence[str]) -> bool:
    """Tell whether the command takes these words."""
    try:
        command.make_context("peftkit", list(rest))
    except CommandLineError:
        return False
    return True


def _formats() -> Sequence[str]:
    from peftkit.plugins import plugin_names

    return plugin_names("exporters")


def _shipped() -> frozenset[str]:
    from peftkit.recipes import shipped_recipes

    return frozenset(one.name for one in shipped_recipes())
