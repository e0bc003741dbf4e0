"""Find the files that a recipe names, and open them as bytes."""

from __future__ import annotations

import gzip
import io
import re
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path
from typing import Any, BinaryIO, cast

from peftkit.errors import DataError

Files = Path | list[Path] | dict[str, Path | list[Path]]
"""One file, several, or those of each split; texts are taken for paths."""

BOM = b"\xef\xbb\xbf"
_GZIP_MAGIC = b"\x1f\x8b"
_UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")
MAX_LINE_BYTES = 32 << 20
"""Of a line: parsed, one of many small values takes twenty times as much."""
_MOST_UNPACKED = 200
"""How many times as large rows unpack: text does 3 to 20 times, and zeros a thousand."""
_SMALL_BYTES = 64 << 20
"""What unpacks to less may do so from however little."""


SPLIT_WORDS = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test", "testing", "eval", "evaluation"),
}
"""Our split -> words of a file's or folder's name that stand for it, as datasets has them."""
_NO_ROWS = ("dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json")
"""What datasets writes beside the rows."""


def by_split(files: Files, suffixes: Sequence[str] = ()) -> dict[str, list[str]]:
    """Return the file names of each split; without a mapping or a folder there is only `train`.

    A folder's files belong to the splits that they, or the folders inside it, are named for.

    Args:
        suffixes: of the files that are looked for in a folder.

    Raises:
        DataError: some of a folder's files are named for splits, and others are not.
    """
    if isinstance(files, (str, Path)) and Path(files).expanduser().is_dir():
        return _split_folder(Path(files).expanduser(), suffixes)
    mapping: Mapping[str, Path | list[Path]] = (
        files if isinstance(files, dict) else {"train": files}
    )
    return {
        split: [str(name) for name in (names if isinstance(names, list) else [names])]
        for split, names in mapping.items()
    }


def _split_folder(folder: Path, suffixes: Sequence[str]) -> dict[str, list[str]]:
    found = files_inside(folder, suffixes)
    named: dict[str | None, list[str]] = {}
    for path in found:
        split = split_of(path.relative_to(folder))
        named.setdefault(split, []).append(str(path))
    unnamed = named.pop(None, [])
    if unnamed and named:
        others = ", ".join(str(split) for split in named)
        raise DataError(
            f"{folder} has files for {others}, and also {Path(unnamed[0]).relative_to(folder)},"
            " which is named for no split",
            hint="say which are read: files: {train: ..., test: ...}",
        )
    if not named:
        return {"train": unnamed}
    return {split: named[split] for split in SPLIT_WORDS if split in named}


def split_of(path: Path) -> str | None:
    """Return the split that a file is named for: `data/train-00001.jsonl`, `valid/a.csv`."""
    for part in (path.name.partition(".")[0], *reversed(path.parts[:-1])):
        words = re.split(r"[^a-z]+", part.lower())
        for split, names in SPLIT_WORDS.items():
            if any(word in names for word in words):
                return split
    return None


def files_inside(folder: Path, suffixes: Sequence[str]) -> list[Path]:
    """Return a folder's files of one format, those of folders inside it too, by name.

    Raises:
        DataError: there are none.
    """
    found = sorted(
        path
        for path in folder.rglob("*")
        if path.is_file()
        and suffix_of(path) in suffixes
        and path.name not in _NO_ROWS
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    )
    if found:
        return found
    there = sorted({suffix_of(path) for path in folder.rglob("*") if path.is_file()} - {""})
    raise DataError(
        f"{folder} is a folder without {', '.join(suffixes)} files",
        hint=f"it has {', '.join(there)}" if there else "it is empty",
    )


def suffix_of(path: Path) -> str:
    """Return the suffix that tells a file's format: `.jsonl`, also of `rows.jsonl.gz`."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    return next((suffix for suffix in reversed(suffixes) if suffix != ".gz"), "")


def find_files(files: Files, split: str, suffixes: Sequence[str] = ()) -> list[Path]:
    """Find one split's files, in the order named; a pattern's matches are sorted.

    Args:
        suffixes: of the files that are looked for in a folder.

    Raises:
        DataError: no such split, or a file is missing or an address; shows the nearest.
    """
    splits = by_split(files, suffixes)
    if split not in splits:
        raise DataError(f"no split {split!r} among the files; there are {', '.join(splits)}")
    found = [_shorten(path) for name in splits[split] for path in _expand(name, suffixes)]
    if not found:
        raise DataError(f"split {split!r} names no file", hint="give `files` at least one file")
    return found


def _shorten(path: Path) -> Path:
    """Return the path as a person standing here would write it."""
    here = Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path


def _expand(name: str, suffixes: Sequence[str]) -> Sequence[Path]:
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
        return files_inside(path, suffixes)
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
        DataError: the file cannot be read, is UTF-16, or is gzip that is damaged or no rows.
    """
    try:
        with path.open("rb") as raw:
            is_gzip = raw.read(2) == _GZIP_MAGIC
            raw.seek(0)
            unpacked = io.BufferedReader(_Unpacked(path, raw)) if is_gzip else raw
            stream = cast("BinaryIO", unpacked)
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


class _Unpacked(io.RawIOBase):
    """Unpack gzip, and refuse what is made to unpack to more than a disk's worth."""

    def __init__(self, path: Path, raw: BinaryIO) -> None:
        self._path, self._raw, self._gzip = path, raw, gzip.GzipFile(fileobj=raw)

    def readable(self) -> bool:
        """Tell that it is read from."""
        return True

    def seekable(self) -> bool:
        """Tell that it can be read again."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go to a place of what is unpacked."""
        return self._gzip.seek(offset, whence)

    def readinto(self, buffer: Any) -> int:
        """Unpack the next bytes.

        Raises:
            DataError: they are more than rows unpack to.
        """
        block = self._gzip.read1(len(buffer))
        buffer[: len(block)] = block
        num_bytes = self._gzip.tell()
        if num_bytes > max(_SMALL_BYTES, _MOST_UNPACKED * self._raw.tell()):
            raise DataError(
                f"{self._path} unpacks to more than {_MOST_UNPACKED} times its size, as no rows do",
                hint=f"if it is what you mean: gunzip -k {self._path}, and name what comes of it",
            )
        return len(block)


def lines_of(path: Path, stream: BinaryIO, start: int = 1) -> Iterator[tuple[int, bytes]]:
    """Give a file's lines with their numbers.

    Args:
        start: number of the line at which the stream stands.

    Raises:
        DataError: a line is longer than any row.
    """
    number = start
    while line := stream.readline(MAX_LINE_BYTES + 1):
        if len(line) > MAX_LINE_BYTES:
            raise too_long(path, number)
        yield number, line
        number += 1


def too_long(path: Path, line: int) -> DataError:
    """Describe a line that is longer than any row."""
    return DataError(
        f"{path}:{line}: the line is longer than {MAX_LINE_BYTES >> 20} MiB",
        hint="a row is a line: write a long text as several",
    )


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
