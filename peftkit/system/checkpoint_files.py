"""Checks of a checkpoint's files before anything in them is believed."""

from __future__ import annotations

import json
import os
import struct
from pathlib import Path, PurePosixPath
from typing import Any

from peftkit.errors import ArtefactError, first_line
from peftkit.system.seals import check_seal

PEFT_PREFIX = "base_model.model."
"""What PEFT puts before a parameter's name in the model, in the keys of an adapter."""
_INDEX = "model.safetensors.index.json"
_WEIGHTS = "model.safetensors"
_PRIVATE = 0o600
_LONGEST_HEADER = 100_000_000
"""Bytes; safetensors' own limit."""


def follow_umask(file: Path) -> None:
    """Let a file be read by whom the umask lets: safetensors writes weights for their owner alone.

    Its files come to be as temporary ones, which are private whatever the umask is.
    """
    mask = os.umask(0)
    os.umask(mask)
    if file.stat().st_mode & 0o777 == _PRIVATE:
        file.chmod(0o666 & ~mask)


def weight_files(folder: Path) -> list[Path]:
    """List a folder's safetensors weights, in the order of its index.

    Raises:
        ArtefactError: there are none, or the index points out of the folder.
    """
    if (folder / _WEIGHTS).is_file():
        return [folder / _WEIGHTS]
    index = folder / _INDEX
    if not index.is_file():
        raise _no_safetensors(folder)
    weight_map = read_json(index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise ArtefactError(f"{index} has no weight_map", hint="download the model again")
    names = dict.fromkeys(str(name) for name in weight_map.values())
    for name in names:
        # A plain name only: `..` or `/` would read a file outside the checkpoint.
        if PurePosixPath(name).name != name or "\\" in name:
            raise ArtefactError(f"{index} names a shard outside its folder: {name!r}")
        if not (folder / name).is_file():
            raise ArtefactError(
                f"{folder} lacks the shard {name}", hint="the download broke off: fetch it again"
            )
    return [folder / name for name in names]


def check_safetensors(file: Path) -> None:
    """Read a file's header and compare what it promises with the file's length.

    Raises:
        ArtefactError: the file is torn or no safetensors.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, framework="np"):  # "pt" imports torch
            pass
    except (SafetensorError, OSError) as error:
        raise ArtefactError(
            f"{file} is torn or no safetensors file ({file.stat().st_size} bytes): {error}",
            hint="copy or download it again",
        ) from None


def read_header(file: Path) -> tuple[dict[str, Any], bytes]:
    """Read a safetensors file's header, and nothing behind it.

    Returns:
        What it says: tensor -> dtype, shape, data_offsets; and its bytes as they lie in the file,
        their number in front.

    Raises:
        ArtefactError: the file cannot be read, is cut short, or no safetensors.
    """
    try:
        with file.open("rb") as stream:
            size = os.fstat(stream.fileno()).st_size
            start = stream.read(8)
            length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
            if not 2 <= length <= min(_LONGEST_HEADER, size - 8):
                raise torn(file, f"its header is said to be {length} bytes of {size}")
            text = stream.read(length)
    except OSError as error:
        raise ArtefactError(f"{file} cannot be read: {error.strerror}") from error
    return _parse_header(file, text), start + text


def torn(file: Path, what: str) -> ArtefactError:
    """Make the refusal of a file that is not what its header promises."""
    return ArtefactError(
        f"{file} is torn or no safetensors file: {what}", hint="copy or download it again"
    )


def read_json(file: Path) -> dict[str, Any]:
    """Read a JSON object; one of ours, which is sealed, has to be what was written.

    Raises:
        ArtefactError: the file is not one.
    """
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ArtefactError(f"{file} cannot be read as JSON: {first_line(error)}") from None
    if not isinstance(content, dict):
        raise ArtefactError(f"{file} holds a {type(content).__name__}, not an object")
    return check_seal(content, file)


def _parse_header(file: Path, text: bytes) -> dict[str, Any]:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs):
            raise torn(file, "its header names a tensor twice")
        return found

    try:
        header = json.loads(text, object_pairs_hook=unique)
    except (ValueError, RecursionError) as error:
        if isinstance(error, ArtefactError):
            raise
        raise torn(file, "its header is no JSON") from None
    if not isinstance(header, dict):
        raise torn(file, "its header is no object")
    return header


def _no_safetensors(folder: Path) -> ArtefactError:
    """Explain a folder without safetensors, pickles first."""
    pickles = sorted(p.name for p in (*folder.glob("*.bin"), *folder.glob("*.pt*")))
    if pickles:
        return ArtefactError(
            f"{folder} has only pickled weights ({', '.join(pickles[:3])}), which can run code;"
            " peftkit reads safetensors only",
            hint=(
                'if you trust the file, convert it once: python -c "from transformers import'
                f" AutoModelForCausalLM as M; M.from_pretrained('{folder}')"
                f".save_pretrained('{folder}-safetensors')\""
            ),
        )
    return ArtefactError(
        f"{folder} has neither {_WEIGHTS} nor {_INDEX}", hint="name a folder with weights"
    )
