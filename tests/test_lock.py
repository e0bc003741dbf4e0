"""The lock names what constraints.txt and pyproject.toml name, with the hashes of PyPI's files."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
LOCK = tomllib.loads((ROOT / "pylock.toml").read_text(encoding="utf-8"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
LOCKED = {package["name"]: package for package in LOCK["packages"] if "directory" not in package}


def test_what_is_pinned_and_locked_has_one_version() -> None:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pinned = (line.split("==") for line in lines if "==" in line)
    pins = {canonicalize_name(name): version for name, version in pinned}
    both = pins.keys() & LOCKED.keys()
    assert len(both) > 80
    assert {n: LOCKED[n]["version"] for n in both} == {n: pins[n] for n in both}


def test_every_dependency_is_locked_in_a_version_that_is_allowed() -> None:
    extras = PROJECT["optional-dependencies"]
    (own,) = (r for r in map(Requirement, extras["test"]) if r.name == "peftkit")
    named = [*PROJECT["dependencies"], *extras["test"], *(r for e in own.extras for r in extras[e])]
    wanted = [r for r in map(Requirement, named) if r.name != "peftkit"]
    missing = [
        str(r)
        for r in wanted
        if (found := LOCKED.get(canonicalize_name(r.name))) is None
        or not r.specifier.contains(found["version"])
    ]
    assert not missing


def test_every_locked_file_is_pypis_and_has_a_sha256() -> None:
    for name, package in LOCKED.items():
        files = [*package.get("wheels", []), *([package["sdist"]] if "sdist" in package else [])]
        assert files, name
        for file in files:
            assert file["url"].startswith("https://files.pythonhosted.org/packages/"), name
            assert re.fullmatch(r"[0-9a-f]{64}", file["hashes"]["sha256"]), name
    rest = [package for package in LOCK["packages"] if "directory" in package]
    assert [(p["name"], p["directory"]["path"]) for p in rest] == [("peftkit", ".")]
