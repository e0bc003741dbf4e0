"""A quantizer of another package is one file and one entry point; no file of ours knows it."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest
import real_step
import tiny
from training_fixture import train, write_recipe

from peftkit.check import check_files
from peftkit.errors import UsageError
from peftkit.merge import merge
from peftkit.plugins import find
from peftkit.testing import check_quantizer

QUANTIZE = {"rows_int8": {"largest": 100}}


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Install the file as a distribution of its own."""
    place = tmp_path / "site"
    info = place / "acme-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: acme\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[peftkit.quantizers]\nrows_int8 = acme_rows_int8:RowsInt8\n"
    )
    shutil.copy(Path(__file__).with_name("rows_int8.py"), place / "acme_rows_int8.py")
    monkeypatch.syspath_prepend(str(place))
    monkeypatch.setenv("PYTHONPATH", str(place), prepend=":")
    yield
    sys.modules.pop("acme_rows_int8", None)


@pytest.fixture
def recipe(tmp_path: Path, installed: None) -> Path:
    base = tiny.tiny_llama(tmp_path / "base", tie_word_embeddings=False)
    rows = tiny.write_jsonl(tmp_path / "rows.jsonl", tiny.rows(8))
    return write_recipe(
        tmp_path / "r.json", base, rows,
        sft={"max_steps": 2, "max_length": 64, "per_device_train_batch_size": 2},
        model={"path": str(base), "dtype": "float32", "quantize": QUANTIZE},
    )  # fmt: skip


def test_it_conforms(installed: None) -> None:
    check_quantizer(find("quantizers", "rows_int8"), {"largest": 100})


def test_its_mistakes_are_found_at_their_line(recipe: Path) -> None:
    assert check_files([recipe]) == []
    (unknown,) = check_files([recipe], ["model.quantize.rows_int8.larges=1"])
    assert unknown.suggestion == "did you mean largest?"
    (conflict,) = check_files([recipe], ["model.quantize.rows_int8.largest=128"])
    assert conflict.key == "model.quantize.rows_int8.largest"
    assert conflict.problem == "is more than an int8 holds"


def test_its_plan_is_the_real_step(tmp_path: Path, installed: None) -> None:
    from peftkit.memory.planner import plan

    real_step.save_model(tmp_path, real_step.LLAMA)
    asked = real_step.recipe_for(tmp_path, **{"model.quantize": QUANTIZE})
    rows, lengths = real_step.batch_of(asked)
    made = plan(asked, lengths=lengths, machine=real_step.CPU)
    planned = made.peak_bytes - made.term_bytes("runtime")
    assert planned == pytest.approx(real_step.real_peaks(asked, rows)["all"], rel=5e-3)


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated")
def test_it_trains_and_merges(recipe: Path, tmp_path: Path) -> None:
    run = train(recipe, tmp_path / "run")
    assert run.read_json(run.measured)["num_trainable"] > 0
    with pytest.raises(UsageError, match="say which weights to merge onto"):
        merge(run.path, out=tmp_path / "out")
    result = merge(run.path, out=tmp_path / "out", onto="dequantized")
    assert result.quantized_logits is not None
    assert result.quantized_logits.max_difference < 1e-4
    errors = {error.onto: error.relative_rms for error in result.weight_errors}
    assert errors["dequantized"] < 1e-6 < errors["requantized"] < 0.05
    with pytest.raises(UsageError, match="no format of checkpoints"):
        merge(run.path, out=tmp_path / "again", onto="requantized")
