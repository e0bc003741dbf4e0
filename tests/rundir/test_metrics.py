"""metrics.jsonl: cut back, read with care, and made again from a checkpoint's own record."""

from __future__ import annotations

from pathlib import Path

import pytest

from peftkit.errors import ArtefactError
from peftkit.rundir.metrics import cut_metrics, read_metrics, restore_metrics


def test_the_metrics_of_steps_that_will_be_trained_again_are_dropped(tmp_path: Path) -> None:
    file = tmp_path / "metrics.jsonl"
    file.write_text('{"step": 1}\n{"step": 2}\n{"step": 2, "eval_loss": 1.0}\n{"step": 3}\n{"ste')
    cut_metrics(file, step=2)
    assert [line["step"] for line in read_metrics(file)] == [1, 2, 2]


@pytest.mark.parametrize("line", ["[1]", '{"loss": 1}', '{"step": "1"}', "\0\0", "[" * 100_000])
def test_what_is_no_step_is_refused(tmp_path: Path, line: str) -> None:
    file = tmp_path / "metrics.jsonl"
    file.write_text(f'{line}\n{{"step": 2}}\n')
    with pytest.raises(ArtefactError, match=r"metrics\.jsonl:1 is no"):
        read_metrics(file)


def test_losses_are_restored_from_a_history(tmp_path: Path) -> None:
    file = tmp_path / "metrics.jsonl"
    restore_metrics(file, [{"loss": 2.0, "step": 1}, {"train_runtime": 1, "step": 1}])
    assert read_metrics(file) == [{"step": 1, "loss": 2.0}]
