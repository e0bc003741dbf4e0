"""The shipped table is what the tested pins say; `python -m peftkit.recipe.tested` writes it."""

from __future__ import annotations

import json

import pytest

from peftkit.recipe.signature_cache import CACHE_FORMAT, TESTED, is_installed
from peftkit.recipe.tested import main, read_entries, references


def test_the_shipped_table_equals_the_installed_stack(
    tmp_path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shipped = json.loads(TESTED.read_text(encoding="utf-8"))
    assert shipped["format"] == CACHE_FORMAT
    if not all(is_installed(entry) for entry in shipped["entries"].values()):
        pytest.skip("other versions than the tested pins are installed")
    assert read_entries() == shipped["entries"]
    monkeypatch.setattr("peftkit.recipe.tested.TESTED", tmp_path / "again.json")
    main()
    assert (tmp_path / "again.json").read_bytes() == TESTED.read_bytes()


def test_every_built_in_s_native_class_is_in_it() -> None:
    shipped = json.loads(TESTED.read_text(encoding="utf-8"))["entries"]
    assert set(references()) <= set(shipped)
    assert len(references()) >= 70


def test_it_stays_small() -> None:
    assert TESTED.stat().st_size < 500_000
