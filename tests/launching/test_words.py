"""Words are taken apart at the first dash, and put together as `peftkit run` reads them."""

from __future__ import annotations

from pathlib import Path

from peftkit.launching.words import run_options, split_words


def test_words_behind_the_dashes_are_told_apart() -> None:
    assert split_words(["a=1", "--num_processes", "2"]) == (["a=1"], ["--num_processes", "2"])
    assert split_words(["a=1"]) == (["a=1"], [])


def test_options_are_said_again() -> None:
    assert run_options(None) == ()
    assert run_options(Path("o"), dry_run=True) == ("--out", "o", "--dry-run")
    assert run_options(None, allow_drift=True) == ("--allow-drift",)
