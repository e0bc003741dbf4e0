"""Two runs are the same where they train the same on the same rows."""

from __future__ import annotations

from pathlib import Path

from test_build import GOOD, make

from peftkit.recipe.identity import identity, rows_per_step


def test_identity_changes_with_what_is_trained_and_not_with_where_it_lies(
    tmp_path: Path,
) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    text = GOOD.replace("path: model", f"path: {tmp_path / 'a' / 'model'}")
    here, there = make(tmp_path / "a", text), make(tmp_path / "b", text)
    assert here.resolved != there.resolved
    assert identity(here.resolved, "f") == identity(there.resolved, "f")
    other = make(tmp_path / "a", text, "method.sft.seed=1")
    moved = make(tmp_path / "b")
    identities = {identity(b.resolved, "f") for b in (here, other, moved)}
    assert len(identities) == 3
    assert identity(here.resolved, "f") != identity(here.resolved, "g")


def test_identity_counts_the_rows_of_a_step_and_not_how_they_are_dealt_out(tmp_path: Path) -> None:
    batch, accumulated = (
        "method.sft.per_device_train_batch_size",
        "method.sft.gradient_accumulation_steps",
    )
    alone = make(tmp_path, GOOD, f"{batch}=2", f"{accumulated}=6").resolved
    dealt = make(tmp_path, GOOD, f"{batch}=2", f"{accumulated}=3").resolved
    assert identity(alone, "f") == identity(dealt, "f", num_processes=2)
    assert identity(alone, "f") != identity(dealt, "f")
    assert rows_per_step(alone, 1) == rows_per_step(dealt, 2) == 12
