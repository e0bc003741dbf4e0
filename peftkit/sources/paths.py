"""Find the files that a recipe names, and open them as bytes."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path
from typing import BinaryIO, cast

from peftkit.errors import DataError

Files = Path | list[Path] | dict[str, Path | list[Path]]
"""One file, several, or those of each split; texts are taken for paths."""

BOM = b"\xef\xbb\xbf"
_GZIP_MAGIC = b"\x1f\x8b"
_UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")


def by_split(files: Files) -> dict[str, list[str]]:
    """Return the file names of each split; without a mapping there is only `train`."""
    mapping: Mapping[str, Path | list[Path]] = (
        files if isinstance(files, dict) else {"train": files}
    )
    return {
        split: [str(name) for name in (names if isinstance(names, list) else [names])]
        for split, names in mapping.items()
    }


def find_files(files: Files, split: str) -> list[Path]:
    """Find one split's files, in the order named; a pattern's matches are sorted.

    Raises:
        DataError: no such split, or a file is missing, a folder or an address; shows the nearest.
    """
    splits = by_split(files)
    if split not in splits:
        raise DataError(f"no split {split!r} among the files; there are {', '.join(splits)}")
    found = [_shorten(path) for name in splits[split] for path in _expand(name)]
    if not found:
        raise DataError(f"split {split!r} names no file", hint="give `files` at least one file")
    return found


def _shorten(path: Path) -> Path:
    """Return the path as a person standing here would write it."""
    here = Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path


def _expand(name: str) -> Sequence[Path]:
    if ":/" in name:  # a path keeps one of the two slashes
        raise DataError(
            f"{name} is an address, not a file",
            hint="download it first, or read the Hub with `hub: {path: ...}`",
        )
    path = Path(name).expanduser()
    if path.is_file():
        return [path]
    if any(sign in name for sign in "*?["):
        anchor = Path(path.anchor) if path.is_absolute() else Path()
        matches = sorted(p for p in anchor.glob(str(path.relative_to(anchor))) if p.is_file())
        if matches:
            return matches
        raise DataError(f"no file matches {name}")
    if path.is_dir():
        raise DataError(f"{name} is a folder", hint=f"name its files, e.g. {name.rstrip('/')}/*")
    siblings = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
    near = get_close_matches(path.name, siblings, n=1)
    hint = "in a recipe, relative paths start from its folder"
    if near:
        hint = f"did you mean {path.with_name(near[0])}?"
    raise DataError(f"there is no file {name}", hint=hint)


@contextmanager
def open_bytes(path: Path) -> Iterator[BinaryIO]:
    """Open a file for reading past its byte order mark; gzip is recognised by its first bytes.

    Raises:
        DataError: the file cannot be read, is UTF-16, or is damaged gzip.
    """
    try:
        with path.open("rb") as raw:
            is_gzip = raw.read(2) == _GZIP_MAGIC
            raw.seek(0)
            stream = cast("BinaryIO", gzip.GzipFile(fileobj=raw) if is_gzip else raw)
            head = stream.read(3)
            if head[:2] in _UTF16_MARKS:
                raise DataError(
                    f"{path} is UTF-16, not UTF-8",
                    hint=f"iconv -f UTF-16 -t UTF-8 {path} > utf8-{path.name}",
                )
            stream.seek(len(BOM) if head == BOM else 0)
            yield stream
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise DataError(
            f"{path} is damaged gzip: {error}", hint="compress or download it again"
        ) from None
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}") from None


def not_utf8(path: Path, error: UnicodeDecodeError, *, line: int, start: int) -> DataError:
    """Describe bytes that are no UTF-8.

    Args:
        line: 1-based line that was being decoded.
        start: offset in the (uncompressed) file of the bytes that were being decoded.
    """
    offset = start + error.start
    byte = error.object[error.start]
    return DataError(
        f"{path}:{line}: not UTF-8: byte 0x{byte:02x} at offset {offset}",
        hint=f"if it is Latin-1: iconv -f LATIN1 -t UTF-8 {path} > utf8-{path.name}",
    )
