"""Docstrings come from files alone, by package, and held-out text stays out of training."""

from __future__ import annotations

import inspect
import json
import sys
from pathlib import Path

import pytest

from peftkit.errors import DataError
from peftkit.sources import docstrings
from peftkit.sources.docstrings import DocstringsConfig, DocstringsSource

FLOCK = '''"""Keep a flock of geese together.

The flock is a list of geese, and each goose knows the way home by itself, even at night.
"""
raise RuntimeError("this module must never be imported")

class Goose(Bird):
    """A goose that can be counted and fed."""

    def __init__(self, name: str, *, weight=3.5) -> None:
        """Name the goose and weigh it."""

    @property
    def mood(self):
        """Say how the goose feels today.

        Geese are calm by day. They are loud by night, when a fox may come close to the pond,
        and louder still when it does.
        """
        def inner():
            """Be left out, being inside a function."""

if True:
    async def feed(geese, *args, grain="oats", **options):
        """Feed every goose in turn.

        Like this:
            Code that stays indented.
        """

def bare(): pass
def short():
    """Too short."""
'''
COPY = "Count the geese, then count them again to be sure that none has flown away over night."


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def install(folder: Path, name: str, files: dict[str, str], version: str = "1.0") -> None:
    """Put a distribution into a folder, as `pip install --target` does."""
    info = folder / f"{name}-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    (info / "RECORD").write_text("".join(f"{path},,\n" for path in files))
    for path, text in files.items():
        file = folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")


def source(folder: Path, **packages: list[str]) -> DocstringsSource:
    return DocstringsSource(DocstringsConfig(folder=str(folder), **packages))


def function(name: str, docstring: str) -> str:
    return f'def {name}():\n    """{docstring}"""\n'


def test_rows_have_name_signature_and_text_without_importing(tmp_path: Path) -> None:
    install(tmp_path, "flock", {"flock/__init__.py": FLOCK})
    rows = source(tmp_path, packages=["flock"]).load("train").to_list()
    assert [(row["name"], row["signature"]) for row in rows] == [
        ("flock", ""),
        ("flock.Goose", "(name: str, *, weight=3.5)"),
        ("flock.Goose.__init__", "(name: str, *, weight=3.5)"),
        ("flock.Goose.mood", "()"),
        ("flock.feed", "(geese, *args, grain='oats', **options)"),
    ]
    assert rows[4]["text"] == (
        "flock.feed(geese, *args, grain='oats', **options)\n\n"
        "Feed every goose in turn.\n\nLike this:\n    Code that stays indented."
    )
    assert {(row["package"], row["version"]) for row in rows} == {("flock", "1.0")}
    assert "flock" not in sys.modules


def test_first_paragraph_is_the_summary_where_enough_follows(tmp_path: Path) -> None:
    install(tmp_path, "flock", {"flock/__init__.py": FLOCK})
    rows = source(tmp_path, packages=["flock"]).load("train").to_list()
    summaries = {row["name"]: row["summary"] for row in rows if row["summary"]}
    assert summaries == {
        "flock": "Keep a flock of geese together.",
        "flock.Goose.mood": "Say how the goose feels today.",
    }
    mood = next(row for row in rows if row["name"] == "flock.Goose.mood")
    assert mood["document"].startswith("flock.Goose.mood()\n\nGeese are calm by day.")
    assert mood["summary"] not in mood["document"]


def test_tests_copies_and_broken_files_are_left_out(tmp_path: Path) -> None:
    good = function("honk", "Make the goose honk loudly.")
    files = {
        "pond/honk.py": good,
        "pond/tests/honk.py": good,
        "pond/test_honk.py": good,
        "pond/_vendor/other/honk.py": good,
        "../bin/honk.py": good,
        "pond/old.py": "print 'python 2'",
        "pond/data.txt": good,
        "pond/gone.py": good,
    }
    install(tmp_path / "target", "pond", files)
    (tmp_path / "target/pond/gone.py").unlink()
    rows = source(tmp_path / "target", packages=["pond"]).load("train")
    assert rows["name"][:] == ["pond.honk.honk"]


def test_training_never_repeats_what_a_held_out_package_says(tmp_path: Path) -> None:
    own = "Call the geese home across the water before the sun sets behind the old grey mill."
    files = {
        "exact": function("count", COPY),
        "mostly": function("recount", f"{COPY}\n\n    It takes a while."),
        "partly": function("call", f"{COPY}\n\n    {own} {own}"),
    }
    for name, text in files.items():
        install(tmp_path, name, {f"{name}.py": text})
    install(tmp_path, "held", {"held.py": function("count_all", COPY)})
    packages = {"packages": list(files), "test_packages": ["held"]}
    held_out = source(tmp_path, **packages)
    assert held_out.splits() == ["train", "test"]
    assert held_out.load("test")["name"][:] == ["held.count_all"]
    assert held_out.load("train")["name"][:] == ["partly.call"]
    assert source(tmp_path, packages=["exact"]).load("train").num_rows == 1


def test_unknown_package_names_the_nearest(tmp_path: Path) -> None:
    install(tmp_path, "goosefeed", {"goosefeed.py": FLOCK})
    with pytest.raises(DataError) as caught:
        source(tmp_path, packages=["goosefed"]).load("train")
    assert caught.value.message == "docstrings: no installed package is called 'goosefed'"
    assert caught.value.hint.startswith("did you mean goosefeed")


def test_unknown_split_and_folder_and_empty_package_are_data_errors(tmp_path: Path) -> None:
    install(tmp_path, "silent", {"silent.py": "x = 1\n"})
    with pytest.raises(DataError, match="no split 'validation'"):
        source(tmp_path, packages=["silent"]).load("validation")
    with pytest.raises(DataError, match=r"silent 1\.0 has no Python files with docstrings"):
        source(tmp_path, packages=["silent"]).load("train")
    with pytest.raises(DataError, match="there is no folder"):
        source(tmp_path / "nowhere", packages=["silent"]).load("train")


def test_a_version_is_read_once_and_a_new_one_again(tmp_path: Path) -> None:
    install(tmp_path / "a", "flock", {"flock.py": function("one", "Give the first of all geese.")})
    first = source(tmp_path / "a", packages=["flock"])
    assert first.load("train")["name"][:] == ["flock.one"]
    (tmp_path / "a/flock.py").unlink()
    assert first.load("train")["name"][:] == ["flock.one"]
    cached = list((tmp_path / "cache/peftkit/docstrings").rglob("*"))
    assert [file.name for file in cached if file.is_file()] == ["flock-1.0.jsonl"]
    assert json.loads(cached[-1].read_text())["name"] == "flock.one"
    text = function("two", "Give the second of all geese.")
    install(tmp_path / "b", "flock", {"flock.py": text}, version="2.0")
    assert source(tmp_path / "b", packages=["flock"]).load("train")["name"][:] == ["flock.two"]


def test_installed_package_and_standard_library_agree_with_inspect(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import textwrap

    place = Path(textwrap.__file__)
    monkeypatch.setattr(docstrings.sysconfig, "get_paths", lambda: {"stdlib": str(tmp_path)})
    (tmp_path / "textwrap.py").write_text(place.read_text("utf-8"), "utf-8")
    rows = DocstringsSource(DocstringsConfig(packages=["stdlib"])).load("train").to_list()
    texts = {row["name"]: row["text"].partition("\n\n")[2] for row in rows}
    assert texts["textwrap.wrap"] == inspect.getdoc(textwrap.wrap).strip()
    assert texts["textwrap.TextWrapper"] == inspect.getdoc(textwrap.TextWrapper).strip()
    version, files = docstrings.find_files("pytest", sys.path)
    assert version == pytest.__version__
    assert files


def test_long_signatures_are_cut_and_foreign_text_is_left_out() -> None:
    names = ", ".join(f"argument_{i}" for i in range(40))
    code = f'def f({names}):\n    """Take far too many arguments."""\n'
    code += 'def g():\n    """Zähle die Gänse über Nöte hinüber."""\n'
    found = list(docstrings.extract_docstrings(code, "m"))
    assert [name for name, _, _ in found] == ["m.f"]
    assert len(found[0][1]) <= 122
    assert found[0][1].endswith("...)")
