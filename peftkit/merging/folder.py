"""Everything in a model's folder that is not weights: configuration, tokenizer, card, manifest."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from peftkit.errors import ArtefactError, ResourceError, UsageError
from peftkit.merging.writer import JOURNAL, PARTIAL
from peftkit.rundir.paths import write_atomically
from peftkit.system.checkpoint_files import read_json
from peftkit.system.foreign_fields import check_config_fields, check_model_sizes
from peftkit.system.held_folder import held_folder
from peftkit.system.weight_folders import check_inside

MANIFEST = "merge.json"
"""Written last: a folder with it is complete, a folder without it is not."""
CONFIG = "config.json"
INDEX = "model.safetensors.index.json"
_TOKENIZER_FILES = (
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json",
    "vocab.json", "merges.txt", "vocab.txt", "spiece.model", "tokenizer.model",
    "sentencepiece.bpe.model", "chat_template.jinja", "chat_template.json",
)  # fmt: skip
GENERATION = "generation_config.json"
_MODEL_FILES = (
    GENERATION, "preprocessor_config.json", "processor_config.json",
    "video_preprocessor_config.json", "image_processor_config.json",
)  # fmt: skip
_OURS = ("README.md", CONFIG, INDEX, JOURNAL, MANIFEST, *_TOKENIZER_FILES, *_MODEL_FILES)


def prepare_out(out: Path, inputs: list[Path]) -> None:
    """Make the output folder, or recognise what an interrupted merge left in it.

    Raises:
        UsageError: it is one of the inputs, a file, or holds something else.
    """
    real = out.resolve()
    for folder in inputs:
        if real == folder.resolve() or real in folder.resolve().parents:
            raise UsageError(
                f"--out {out} is, or holds, {folder}, which the merge reads",
                hint="give a new folder",
            )
    if out.exists() and not out.is_dir():
        raise UsageError(f"--out {out} is a file", hint="give a new folder")
    out.mkdir(parents=True, exist_ok=True)
    names = {entry.name for entry in out.iterdir()}
    foreign = sorted(
        name
        for name in names - set(_OURS)
        if not name.removesuffix(PARTIAL).endswith(".safetensors")
        and name.strip(".").removesuffix(PARTIAL) not in _OURS
    )
    if foreign or (names and not names & {JOURNAL, MANIFEST}):
        listed = ", ".join(foreign or sorted(names))
        raise UsageError(
            f"--out {out} holds something else: {listed[:200]}", hint="give a new or empty folder"
        )


@contextmanager
def alone_in(out: Path) -> Iterator[None]:
    """Write into an output folder as the only process that does.

    Raises:
        ResourceError: another one is writing into it.
    """
    with ExitStack() as stack:
        try:
            stack.enter_context(held_folder(out))
        except BlockingIOError:
            raise ResourceError(
                f"another process is writing to {out}",
                hint="wait for it: the same merge then takes over what it wrote; or give another"
                " folder with --out",
            ) from None
        yield


def read_manifest(out: Path) -> dict[str, Any] | None:
    """Return a finished merge's manifest; None where there is none."""
    return read_json(out / MANIFEST) if (out / MANIFEST).is_file() else None


def is_complete(out: Path) -> bool:
    """Tell whether every file that the manifest lists is there at its size."""
    manifest = read_manifest(out)
    return manifest is not None and all(
        (out / name).is_file() and (out / name).stat().st_size == num_bytes
        for name, num_bytes in manifest["files"].items()
    )


def write_side_files(
    out: Path, *, base: Path, adapter: Path | None, index: Mapping[str, Any] | None
) -> list[str]:
    """Copy tokenizer, chat template and generation config, and write the index.

    The tokenizer that was trained with is the adapter's, if it brings one, and then all of it.

    Returns:
        The names written.
    """
    has_own = adapter is not None and any(
        (adapter / name).is_file() for name in ("tokenizer.json", "tokenizer_config.json")
    )
    tokenizer_from = adapter if has_own and adapter is not None else base
    written = _copy_some(base, out, _MODEL_FILES)
    if adapter is not None:  # how answers begin and end is what was trained
        written = [*dict.fromkeys([*written, *_copy_some(adapter, out, (GENERATION,))])]
    written += copy_tokenizer(tokenizer_from, out)
    if index is not None:
        write_atomically(out / INDEX, json.dumps(index, indent=2) + "\n")
        written.append(INDEX)
    return written


def copy_tokenizer(folder: Path, out: Path) -> list[str]:
    """Copy a tokenizer's files and its chat template; return the names copied."""
    return _copy_some(folder, out, _TOKENIZER_FILES)


def _copy_some(folder: Path, out: Path, names: Sequence[str]) -> list[str]:
    found = [name for name in names if (folder / name).is_file()]
    for name in found:
        check_inside(folder / name, folder)
        _copy(folder / name, out / name)
    return found


def write_config(out: Path, base: Path, config: Mapping[str, Any]) -> None:
    """Write `config.json`: the base's bytes where nothing in it changes.

    It comes after the weights, so that transformers loads nothing from an unfinished folder.
    """
    original = base / CONFIG
    if read_json(original) == config:
        _copy(original, out / CONFIG)
        return
    write_atomically(out / CONFIG, json.dumps(config, indent=2, ensure_ascii=False) + "\n")


def notes_on_code(base: Path) -> tuple[str, ...]:
    """Say which Python files of a base are not copied."""
    names = sorted(file.name for file in base.glob("*.py"))
    if not names:
        return ()
    return (f"The base has code of its own ({', '.join(names)}), which was not copied.",)


def model_config(base: Path) -> dict[str, Any]:
    """Read a base's `config.json`.

    Raises:
        ArtefactError: it is missing, elsewhere or no JSON.
    """
    if not (base / CONFIG).is_file():
        raise ArtefactError(f"{base} has no {CONFIG}", hint="name a folder saved by transformers")
    check_inside(base / CONFIG, base)
    config = read_json(base / CONFIG)
    check_config_fields(config, str(base / CONFIG))
    check_model_sizes(config, str(base / CONFIG))
    return config


def text_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the part of a configuration that describes the language model."""
    nested = config.get("text_config")
    found: Any = nested if isinstance(nested, dict) and "vocab_size" in nested else config
    return found  # type: ignore[no-any-return]


def _copy(source: Path, target: Path) -> None:
    """Copy a small file whole: there or not there, never half."""
    partial = target.with_name(f".{target.name}{PARTIAL}")
    with source.open("rb") as reading, partial.open("wb") as writing:
        shutil.copyfileobj(reading, writing)
        writing.flush()
        os.fsync(writing.fileno())
    partial.replace(target)
