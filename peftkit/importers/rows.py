"""Where another tool's rows come from, said as sources, splits and tasks of a recipe."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from peftkit.errors import PeftkitError
from peftkit.plugins import find
from peftkit.plugins.imported import Draft
from peftkit.plugins.importer import Fate
from peftkit.sources.recognise import FORMATS, recognise

_LOCAL = (".", "/", "~")


@dataclass(frozen=True)
class Rows:
    """Say one data set of a config."""

    source: Mapping[str, Any]
    """As the recipe has it: `{json: {files: a.jsonl}}`."""
    task: Mapping[str, Any]
    split: str = "train"
    """The native split, or a slice of it."""
    weight: float = 1.0


TASKS: Mapping[str, str] = {
    "sft": "chat",
    "dpo": "preference",
    "reward": "preference",
    "kto": "feedback",
    "grpo": "prompt_completion",
}
"""Method -> the task whose rows it learns from, where a config names no rows."""


def no_rows(draft: Draft, key: str) -> Rows:
    """Say that a config names no rows that can be read, and where to write them."""
    why = "no rows are named that can be read: write data.source and data.task"
    draft.say(key, Fate.UNSUPPORTED, why, value="none" if draft.get(key) is None else None)
    return Rows({"json": {"files": "ROWS.jsonl"}}, {TASKS[draft.method]: {}})


def written(draft: Draft, path: str, folder: Path) -> str:
    """Write a path of a config as the recipe in this folder has to say it."""
    found = draft.foreign.place_of(path)
    if found is None:
        return path
    return os.path.relpath(found, folder.absolute()) if not Path(path).is_absolute() else path


def is_file(path: str) -> bool:
    """Tell by its name whether a path is a file of rows."""
    suffixes = [suffix.lower() for suffix in Path(path).suffixes if suffix.lower() != ".gz"]
    return bool(suffixes) and suffixes[-1] in FORMATS


def source_of(  # noqa: PLR0913 - what data sets of the Hub have
    draft: Draft,
    path: str,
    folder: Path,
    *,
    name: str | None = None,
    data_files: Any = None,
    kind: str | None = None,
    revision: str | None = None,
) -> dict[str, Any]:
    """Say a file, a folder or a data set of the Hub as a source.

    Args:
        name: of the data set's configuration.
        data_files: which files of it.
        kind: the format that the config gives it, where its name does not.
    """
    if path in ("json", "csv", "parquet", "text", "arrow") and data_files:
        return {path: {"files": _files(draft, data_files, folder)}}
    if is_file(path):
        suffix = next(s for s in reversed(Path(path).suffixes) if s.lower() in FORMATS)
        return {FORMATS[suffix.lower()]: {"files": written(draft, path, folder)}}
    place = draft.foreign.place_of(path)
    is_local = path.startswith(_LOCAL) or path.count("/") > 1 or place is not None
    if is_local and data_files:
        inside = [data_files] if isinstance(data_files, str) else data_files
        return source_of(draft, str(Path(path) / str(inside[0])), folder, kind=kind)
    if is_local and place is not None:
        try:
            found = recognise(place)
        except PeftkitError:
            pass  # said once the rows are read
        else:
            return {found.source: {**found.options, "files": written(draft, path, folder)}}
    if is_local and kind in set(FORMATS.values()):
        return {str(kind): {"files": written(draft, path, folder)}}
    where = written(draft, path, folder)
    stated = {"name": name, "data_files": data_files, "revision": revision}
    if is_local and not where.startswith(_LOCAL):
        where = f"./{where}"
    return {"hub": {"path": where, **{k: v for k, v in stated.items() if v is not None}}}


def first_row(draft: Draft, path: str) -> Mapping[str, Any]:
    """Read the first of rows that lie here; nothing of those of the Hub, or that cannot be read."""
    place = draft.foreign.place_of(path)
    if place is None:
        return {}
    try:
        found = recognise(place)
        plugin = find("sources", found.source)
        rows = plugin(plugin.Config(**found.options)).load("train")
    except PeftkitError:  # said once the rows are read
        return {}
    return dict(rows[0]) if len(rows) else {}


def _files(draft: Draft, files: Any, folder: Path) -> Any:
    if isinstance(files, list):
        return [written(draft, str(one), folder) for one in files]
    if isinstance(files, Mapping):
        return {split: _files(draft, one, folder) for split, one in files.items()}
    return written(draft, str(files), folder)


def share(value: Any) -> str | None:
    """Say how much of the training rows is held out: a share below 1, else a number of rows."""
    if isinstance(value, bool) or not isinstance(value, int | float) or value <= 0:
        return None
    return f"{value * 100:g}%" if value < 1 else str(int(value))


def put_rows(
    draft: Draft, train: Sequence[Rows], *, held: Sequence[Rows] = (), cut: str | None = None
) -> None:
    """Write sources, splits and tasks.

    Args:
        held: the rows of the validation split, where they are others.
        cut: what is cut from the training rows instead.
    """
    trained = [(one.source, one.split) for one in train]
    own = [one for one in held if (one.source, one.split) not in trained]
    if len(own) < len(held):
        draft.remarks["data.splits"] = "rows that are trained were held out too: left out"
    held = own
    extra = {"validation": cut} if cut and not held else {}
    if len(train) == 1 and not held:
        (one,) = train
        draft.put("data.source", dict(one.source))
        draft.put("data.splits", {"train": one.split, **extra})
        draft.put("data.task", dict(one.task))
        return
    joined = _one_source(train, held)
    if joined is not None:
        draft.put("data.source", joined[0])
        draft.put("data.splits", joined[1])
        draft.put("data.task", dict(train[0].task))
        return
    tasks = [one.task for one in (*train, *held)]
    is_same = all(task == tasks[0] for task in tasks)
    parts = [
        _part(one, is_same, {"train": one.split, **extra}, needs_splits=bool(held)) for one in train
    ]
    parts += [_part(one, is_same, {"validation": one.split}, needs_splits=True) for one in held]
    draft.put("data.source", parts)
    if not held:
        draft.put("data.splits", {"train": "train", **extra})
    if is_same:
        draft.put("data.task", dict(tasks[0]))


def _one_source(
    train: Sequence[Rows], held: Sequence[Rows]
) -> tuple[dict[str, Any], dict[str, str]] | None:
    """Say a training and a validation set as one source with two splits, where they are that."""
    if len(train) != 1 or len(held) != 1 or train[0].task != held[0].task:
        return None
    (kind, first), (other, second) = *train[0].source.items(), *held[0].source.items()
    if kind != other:
        return None
    if first == second:
        return dict(train[0].source), {"train": train[0].split, "validation": held[0].split}
    rest = [{k: v for k, v in options.items() if k != "files"} for options in (first, second)]
    if "files" not in first or "files" not in second or rest[0] != rest[1]:
        return None
    files = {"train": first["files"], "validation": second["files"]}
    if (train[0].split, held[0].split) != ("train", "train"):
        return None
    return {kind: {**rest[0], "files": files}}, {"train": "train", "validation": "validation"}


def _part(
    one: Rows, is_same: bool, splits: Mapping[str, str], *, needs_splits: bool
) -> dict[str, Any]:
    part: dict[str, Any] = dict(one.source)
    if one.weight != 1:
        part["weight"] = one.weight
    if not is_same:
        part["task"] = dict(one.task)
    if needs_splits or one.split != "train":
        part["splits"] = dict(splits)
    return part
