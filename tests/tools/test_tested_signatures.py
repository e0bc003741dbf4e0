"""The shipped table is what the tested pins say; `python tools/tested_signatures.py` writes it."""

from __future__ import annotations

import json

import pytest
from tested_signatures import main, read_entries, references

from peftkit.recipe.signature_cache import CACHE_FORMAT, TESTED, is_installed


def test_the_shipped_table_equals_the_installed_stack(
    tmp_path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shipped = json.loads(TESTED.read_text(encoding="utf-8"))
    assert shipped["format"] == CACHE_FORMAT
    if not all(is_installed(entry) for entry in shipped["entries"].values()):
        pytest.skip("other versions than the tested pins are installed")
    assert read_entries() == shipped["entries"]
    monkeypatch.setattr("tested_signatures.TESTED", tmp_path / "again.json")
    main()
    assert (tmp_path / "again.json").read_bytes() == TESTED.read_bytes()


def test_every_built_in_s_native_class_is_in_it() -> None:
    shipped = json.loads(TESTED.read_text(encoding="utf-8"))["entries"]
    assert set(references()) <= set(shipped)
    assert len(references()) >= 70
