"""Scored rows are read as they were written, or refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from peftkit.errors import ArtefactError
from peftkit.rundir.paths import RunDir, write_json
from peftkit.rundir.samples import read_samples, text_of
from peftkit.rundir.whole import seal_of_samples

ROWS = '{"prompt": "a", "reference": "b"}\n{"prompt": [{"content": "c"}], "reference": "d"}\n'


def test_the_first_rows_are_read_and_what_is_none_is_refused(tmp_path: Path) -> None:
    run_dir = RunDir(tmp_path)
    assert read_samples(run_dir) == []
    run_dir.samples.write_text(ROWS)
    first, second = read_samples(run_dir)
    assert (text_of(first, "prompt"), text_of(second, "prompt")) == ("a", "c")
    assert text_of(second, "tuned") == ""
    assert len(read_samples(run_dir, 1)) == 1
    for wrong in ("[1]\n", "{", "[" * 100_000):
        run_dir.samples.write_text(wrong)
        with pytest.raises(ArtefactError, match="is not what an evaluation wrote"):
            read_samples(run_dir)


def test_rows_that_changed_since_they_were_scored_are_refused(tmp_path: Path) -> None:
    run_dir = RunDir(tmp_path)
    run_dir.samples.write_text(ROWS)
    write_json(run_dir.scores, seal_of_samples(run_dir.samples))
    assert len(read_samples(run_dir)) == 2
    run_dir.samples.write_text(ROWS.replace("b", "B"))
    with pytest.raises(ArtefactError, match=r"samples\.jsonl is damaged") as caught:
        read_samples(run_dir)
    assert caught.value.hint == f"peftkit run {tmp_path}"
