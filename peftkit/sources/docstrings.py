"""Read the docstrings of installed packages as documents, with no network and no import.

Every module, class and function whose docstring says at least a few words becomes one row. The
splits are by package, and text that a held-out package contains is kept out of training.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.metadata
import json
import os
import platform
import re
import sys
import sysconfig
import tempfile
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, ClassVar, TypedDict

from peftkit.errors import DataError
from peftkit.plugins import Source

if TYPE_CHECKING:
    from datasets import Dataset

STDLIB = "stdlib"
CACHE_FORMAT = "v1"
"""Part of the cache's path; change it whenever `extract_rows` gives other rows."""

TEST_FOLDERS = {"test", "tests"}
COPY_FOLDERS = {"_vendor", "vendor", "vendored", "_vendored", "externals", "extern", "third_party"}
FOREIGN_FOLDERS = {"site-packages", "dist-packages", "idlelib", "lib2to3"}
SKIPPED_FOLDERS = TEST_FOLDERS | COPY_FOLDERS | FOREIGN_FOLDERS
MAX_SIGNATURE_CHARS = 120
MIN_WORDS = 4
SUMMARY_LAST = "\n\nIn short: "
LONG_PARAGRAPH_CHARS = 60
"""Shorter paragraphs ("Returns\\n-------") repeat everywhere and say nothing about copying."""


class Row(TypedDict):
    """Hold one docstring with where it came from; `text` is name, signature and docstring."""

    package: str
    version: str
    name: str
    signature: str
    text: str
    document: str
    summary: str


@dataclass(frozen=True)
class DocstringsConfig:
    """Choose the packages of each split."""

    packages: list[str]
    """Distributions of the split `train`; `stdlib` is the running Python's standard library."""
    validation_packages: list[str] = field(default_factory=list)
    """Distributions of the split `validation`."""
    test_packages: list[str] = field(default_factory=list)
    """Distributions of the split `test`."""
    summary_last_share: float = 0.0
    """Share of `train`'s documents with a natural summary that are written with it at their end."""
    folder: str | None = None
    """Where `pip install --no-deps --target FOLDER` put packages; searched first."""


class DocstringsSource(Source):
    """Give the docstrings of installed packages as a dataset."""

    Config: ClassVar[type | str] = DocstringsConfig

    def splits(self) -> list[str]:
        """List the splits that have packages."""
        return [split for split, packages in self._packages().items() if packages]

    def load(self, split: str) -> Dataset:
        """Load one split.

        Returns: columns `package, version, name, signature, text, document, summary`; the last two
            are empty where the docstring has no natural summary.
        Raises: DataError for an unknown split or package.
        """
        from datasets import Dataset

        if split not in self.splits():
            raise DataError(f"docstrings: no split {split!r}", hint=f"use one of {self.splits()}")
        rows = self._rows(split)
        if split == "train":
            rows = [put_summary_last(row, self.config.summary_last_share) for row in rows]
        return Dataset.from_list([dict(row) for row in rows])

    def _packages(self) -> dict[str, list[str]]:
        config = self.config
        return {
            "train": config.packages,
            "validation": config.validation_packages,
            "test": config.test_packages,
        }

    def _rows(self, split: str) -> list[Row]:
        """Read a split after the splits that it must not repeat: test, validation, train."""
        seen = Seen()
        for name, packages in reversed(self._packages().items()):
            found = (row for package in packages for row in read_package(package, self._path()))
            rows = [row for row in found if seen.is_new(docstring_of(row))]
            if name == split:
                return rows
        raise DataError(f"docstrings: no split {split!r}")

    def _path(self) -> list[str]:
        folder = self.config.folder
        if folder is None:
            return list(sys.path)
        if not Path(folder).is_dir():
            hint = f"pip install --no-deps --target {folder} PACKAGE..."
            raise DataError(f"docstrings: there is no folder {folder!r}", hint=hint)
        return [folder, *sys.path]


class Seen:
    """Remember texts and their longer paragraphs, to drop copies and boilerplate."""

    def __init__(self) -> None:
        self._hashes: set[bytes] = set()

    def is_new(self, text: str) -> bool:
        """Add the text; say whether it is no copy and at least half of it had not been seen."""
        paragraphs = [" ".join(p.split()) for p in text.split("\n\n")]
        long = {_hash(p): len(p) for p in paragraphs if len(p) > LONG_PARAGRAPH_CHARS}
        whole = _hash(" ".join(text.split()))
        num_seen = sum(length for key, length in long.items() if key in self._hashes)
        is_new = whole not in self._hashes and num_seen <= 0.5 * sum(map(len, paragraphs))
        self._hashes.update(long, [whole])
        return is_new


def put_summary_last(row: Row, share: float) -> Row:
    """Move a natural summary behind its document, for this share of rows, chosen by a hash."""
    chosen = int.from_bytes(_hash(row["name"] + row["document"])) < share * 2**64
    if not row["summary"] or not chosen:
        return row
    return {**row, "text": f"{row['document']}{SUMMARY_LAST}{row['summary']}"}


def docstring_of(row: Row) -> str:
    """Give the docstring alone, without the name and signature that its `text` begins with."""
    return row["text"].partition("\n\n")[2]


def read_package(package: str, path: list[str]) -> list[Row]:
    """Extract a distribution's docstrings, or take them from the cache of that version.

    Args:
        path: folders to search for the distribution, in order, like `sys.path`.
    Raises: DataError when the package is not installed there, or has no docstring.
    """
    version, files = find_files(package, path)
    cache = cache_folder() / f"{package}-{version}.jsonl"
    if cache.exists():
        with cache.open(encoding="utf-8") as lines:
            return [json.loads(line) for line in lines]
    rows = list(extract_package(package, version, files))
    if not rows:
        raise DataError(f"docstrings: {package} {version} has no Python files with docstrings")
    _write_rows(cache, rows)
    return rows


def find_files(package: str, path: list[str]) -> tuple[str, list[tuple[PurePosixPath, Path]]]:
    """Find a distribution's version and its Python files, as sorted (module path, place) pairs.

    Raises: DataError naming the installed packages nearest to an unknown name.
    """
    if package == STDLIB:
        root = Path(sysconfig.get_paths()["stdlib"])
        found = [(PurePosixPath(p.relative_to(root).as_posix()), p) for p in root.rglob("*.py")]
        return platform.python_version(), sorted(f for f in found if is_wanted(f[0]))
    for distribution in importlib.metadata.distributions(name=package, path=path):
        paths = (PurePosixPath(file) for file in distribution.files or [])
        wanted = sorted({p for p in paths if p.suffix == ".py" and is_wanted(p)})
        return distribution.version, [(p, Path(str(distribution.locate_file(p)))) for p in wanted]
    names = {d.metadata["Name"] for d in importlib.metadata.distributions(path=path)}
    near = get_close_matches(package, [STDLIB, *sorted(names)], n=3)
    hint = f"did you mean {', '.join(near)}?" if near else f"pip install --no-deps {package}"
    raise DataError(f"docstrings: no installed package is called {package!r}", hint=hint)


def is_wanted(path: PurePosixPath) -> bool:
    """Say whether a file is the package's own code: no tests, no vendored copies."""
    is_test = path.stem.startswith("test_") or path.stem.endswith("_test")
    is_outside = path.is_absolute() or ".." in path.parts
    return not (is_test or is_outside or SKIPPED_FOLDERS.intersection(path.parts))


def extract_package(
    package: str, version: str, files: Iterable[tuple[PurePosixPath, Path]]
) -> Iterator[Row]:
    """Give the rows of a package's files, skipping files that are not Python of this version."""
    for module_path, place in files:
        parts = module_path.with_suffix("").parts
        module = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        try:
            source = place.read_text(encoding="utf-8")
            for name, signature, docstring in extract_docstrings(source, module):
                document, summary = split_summary(name, signature, docstring)
                yield Row(
                    package=package,
                    version=version,
                    name=name,
                    signature=signature,
                    text=f"{name}{signature}\n\n{docstring}",
                    document=document,
                    summary=summary,
                )
        except (SyntaxError, ValueError, RecursionError, OSError):
            continue


def extract_docstrings(source: str, module: str) -> Iterator[tuple[str, str, str]]:
    """Give (qualified name, signature, docstring) of a module and what it defines.

    Functions inside functions are left out.
    Raises: SyntaxError or ValueError when the source cannot be parsed.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SyntaxWarning)
        warnings.simplefilter("ignore", DeprecationWarning)
        tree = ast.parse(source)
    pending: list[tuple[ast.AST, str]] = [(tree, module)]
    while pending:
        node, name = pending.pop()
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            text = (ast.get_docstring(node) or "").strip()
            if is_prose(text):
                yield name, write_signature(node), text
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.expr):
            continue
        for child in reversed(list(ast.iter_child_nodes(node))):
            own_name = getattr(child, "name", None) if isinstance(child, ast.stmt) else None
            pending.append((child, f"{name}.{own_name}" if own_name else name))


def write_signature(node: ast.AST) -> str:
    """Write a callable's arguments on one line, a class's being those of its `__init__`."""
    if isinstance(node, ast.ClassDef):
        inits = [n for n in node.body if isinstance(n, ast.FunctionDef) and n.name == "__init__"]
        return write_signature(inits[0]) if inits else ""
    if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        return ""
    signature = re.sub(r"^(self|cls)(, |$)", "", " ".join(ast.unparse(node.args).split()))
    if len(signature) > MAX_SIGNATURE_CHARS:
        signature = signature[: MAX_SIGNATURE_CHARS - 3].rstrip() + "..."
    return f"({signature})"


def is_prose(text: str) -> bool:
    """Say whether a docstring has a few words, nearly all of them in ASCII."""
    return len(text.split()) >= MIN_WORDS and sum(map(str.isascii, text)) > 0.95 * len(text)


def split_summary(name: str, signature: str, text: str) -> tuple[str, str]:
    """Cut a docstring into a document and its natural summary, the first paragraph on one line.

    Returns: `(document, summary)`, both empty where there is nothing to summarise: the first
        paragraph is no sentence of 4 to 30 words, or fewer than 15 words follow it.
    """
    first, _, rest = text.partition("\n\n")
    summary = " ".join(first.split())
    body = rest.strip("\n")
    is_sentence = summary.endswith(".") and 4 <= len(summary.split()) <= 30
    if not is_sentence or len(body.split()) < 15:
        return "", ""
    return f"{name}{signature}\n\n{body}", summary


def cache_folder() -> Path:
    """Give the folder of extracted docstrings, under the XDG cache."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "peftkit" / "docstrings" / CACHE_FORMAT


def _write_rows(path: Path, rows: list[Row]) -> None:
    """Write beside the target and rename, so that a reader never sees half a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(
        "w", dir=path.parent, encoding="utf-8", delete=False, prefix=path.name
    ) as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)
    Path(file.name).replace(path)


def _hash(text: str) -> bytes:
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
