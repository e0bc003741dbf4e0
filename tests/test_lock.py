"""The lock names what constraints.txt and pyproject.toml name, with a hash of each file."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

from lock import HEAD, locked
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
LINES = (ROOT / "lock.txt").read_text(encoding="utf-8").splitlines()[1:]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
LINE = re.compile(r"([a-z0-9-]+)==(\S+)((?: --hash=sha256:[0-9a-f]{64})+)")


def versions() -> dict[str, str]:
    found = [LINE.fullmatch(line) for line in LINES]
    assert all(found), [line for line, one in zip(LINES, found, strict=True) if one is None]
    return {one[1]: one[2] for one in found if one is not None}


def test_what_is_pinned_and_locked_has_one_version() -> None:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pinned = (line.split("==") for line in lines if "==" in line)
    pins, lock = {canonicalize_name(name): version for name, version in pinned}, versions()
    both = pins.keys() & lock.keys()
    assert len(both) > 80
    assert {name: lock[name] for name in both} == {name: pins[name] for name in both}


def test_every_dependency_is_locked_in_a_version_that_is_allowed() -> None:
    extras, lock = PROJECT["optional-dependencies"], versions()
    (own,) = (r for r in map(Requirement, extras["test"]) if r.name == "peftkit")
    named = [*PROJECT["dependencies"], *extras["test"], *(r for e in own.extras for r in extras[e])]
    wanted = [r for r in map(Requirement, named) if r.name != "peftkit"]
    missing = [
        str(one)
        for one in wanted
        if (found := lock.get(canonicalize_name(one.name))) is None
        or not one.specifier.contains(found)
    ]
    assert not missing


def test_a_lock_of_pips_becomes_lines_without_addresses() -> None:
    wheel = {"url": "https://index/b.whl", "hashes": {"sha256": "1" * 64}}
    packages = [
        {"name": "b", "version": "2", "wheels": [wheel]},
        {"name": "a", "version": "1", "sdist": {"hashes": {"sha256": "0" * 64}}},
        {"name": "peftkit", "directory": {"path": "."}},
    ]
    wanted = f"a==1 --hash=sha256:{'0' * 64}\nb==2 --hash=sha256:{'1' * 64}\n"
    assert locked({"packages": packages}) == HEAD + wanted
