"""Everything is known, and refused, before a weight is read."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
import tiny
from rich.console import Console
from training_fixture import write_recipe

from peftkit.errors import DataError, ResourceError
from peftkit.plugins import Machine
from peftkit.recipe.build import build
from peftkit.recipe.load import load_recipe
from peftkit.rundir.paths import RunDir
from peftkit.system.screen import Screen
from peftkit.training import prepare as jobs
from peftkit.training.prepare import prepare, seed_of

SFT = {"max_steps": 2, "max_length": 128, "seed": 7}


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    return tiny.write_jsonl(tmp_path / "rows.jsonl", tiny.rows(6))


@pytest.fixture
def recipe(tmp_path: Path, tiny_model: Path, rows: Path) -> Path:
    return write_recipe(tmp_path / "r.json", tiny_model, rows, sft=SFT)


def prepared(recipe: Path, *overrides: str):
    console = Console(record=True, width=200, file=io.StringIO())
    job = prepare(load_recipe(recipe, overrides), RunDir(Path("nowhere")), Screen(console))
    return job, console.export_text()


def test_a_job_says_what_was_decided_and_found(recipe: Path) -> None:
    job, text = prepared(recipe)
    lines = text.splitlines()
    assert lines[0] == "small -> nowhere"
    assert any(
        line.startswith("  decided  method.sft.bf16: false (model.dtype is float32")
        for line in lines
    )
    assert any(line.startswith("  data     train: 6 of 6 rows, 0 truncated, ") for line in lines)
    assert seed_of(job) == 7
    assert len(job.prepared.encoded["train"]) == 6


def test_identity_follows_what_is_trained_and_nothing_else(recipe: Path, rows: Path) -> None:
    identity = prepared(recipe)[0].identity
    assert prepared(recipe)[0].identity == identity
    assert prepared(recipe, "method.sft.seed=8")[0].identity != identity
    recipe.write_text(recipe.read_text().replace('"name"', ' "name"'))
    assert prepared(recipe)[0].identity == identity
    tiny.write_jsonl(rows, tiny.rows(6, seed=3))
    assert prepared(recipe)[0].identity != identity


def test_wrong_rows_are_refused_with_no_weight_to_read(tmp_path: Path, rows: Path) -> None:
    # A header that promises weights, and nothing but zeros where they should be.
    base = tiny.tiny_llama(tmp_path / "hollow")
    weights = base / "model.safetensors"
    content = weights.read_bytes()
    header = 8 + int.from_bytes(content[:8], "little")
    weights.write_bytes(content[:header] + bytes(len(content) - header))
    rows.write_text('{"document": null, "summary": null}\n')
    recipe = write_recipe(tmp_path / "r.json", base, rows, sft=SFT)
    with pytest.raises(DataError, match="1 of 1 rows cannot be used"):
        prepared(recipe)


def _machine(**changes) -> Machine:
    return Machine(**{"device": "cpu", "supports_bfloat16": False, "total_bytes": 1 << 33,
                      "free_bytes": 1 << 32, "name": "a small machine", **changes})  # fmt: skip


def test_wrong_names_are_refused_with_no_weight_to_read(
    recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from peftkit.errors import UsageError
    from peftkit.models import base as model

    monkeypatch.setattr(model, "load_base", lambda *_, **__: pytest.fail("weights were read"))
    with pytest.raises(
        UsageError, match=r"adapter\.lora\.target_modules .*'q_prj' matches nothing"
    ):
        prepared(recipe, "adapter.lora.target_modules=[q_prj]")
    prepared(recipe, "adapter.lora.target_modules=[q_proj]", "adapter.lora.init_lora_weights=pissa")


def test_weights_beyond_the_free_memory_are_refused_with_their_size(recipe: Path) -> None:
    loaded = load_recipe(recipe)
    built = build(loaded, _machine())
    jobs.check_weights_fit(loaded, built, _machine())
    with pytest.raises(ResourceError) as caught:
        jobs.check_weights_fit(loaded, built, _machine(free_bytes=1000))
    assert caught.value.message.endswith("more than what is free on a small machine: 1 KiB")


@pytest.mark.parametrize(
    ("quantize", "bits"),
    [
        ("{bitsandbytes: {load_in_4bit: true}}", 4),
        ("{bitsandbytes: {load_in_8bit: true}}", 8),
        ("{gptq: {bits: 4}}", 4),
        ("{quanto: {weights: int2}}", 2),
        ("{eetq: {}}", 8),
        ("{aqlm: {}}", None),
    ],
)
def test_weights_of_any_quantization_are_refused_by_their_own_bits(
    recipe: Path, tiny_model: Path, quantize: str, bits: int | None
) -> None:
    """Counted from the file's own shapes; one of unknown size is never refused here."""
    from safetensors import safe_open

    with safe_open(tiny_model / "model.safetensors", framework="np") as file:
        shapes = [file.get_slice(name).get_shape() for name in file.keys()]  # noqa: SIM118
    matrices = sum(shape[0] * shape[1] for shape in shapes if len(shape) == 2)
    others = sum(4 * shape[0] for shape in shapes if len(shape) == 1)
    loaded = load_recipe(recipe, [f"model.quantize={quantize}"])
    built = build(loaded, _machine())
    if bits is None:
        jobs.check_weights_fit(loaded, built, _machine(free_bytes=1))
        return
    needed = matrices * bits // 8 + others
    jobs.check_weights_fit(loaded, built, _machine(free_bytes=needed))
    with pytest.raises(ResourceError, match="alone take"):
        jobs.check_weights_fit(loaded, built, _machine(free_bytes=needed - 1))


def test_use_cpu_describes_the_machine_without_its_accelerator(
    recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from peftkit.system import machine

    gpu = _machine(device="cuda", supports_bfloat16=True)
    monkeypatch.setattr(machine, "describe_machine", lambda: gpu)
    job, _ = prepared(recipe, "method.sft.use_cpu=true")
    assert job.machine.device == "cpu"
    assert job.machine.total_bytes == machine.host_memory()[0]


def test_a_new_model_gets_a_tokenizer_of_its_own_rows(tmp_path: Path, rows: Path) -> None:
    model = {
        "config": {"model_type": "llama", "hidden_size": 32, "intermediate_size": 32,
                   "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 2,
                   "max_position_embeddings": 128},
        "tokenizer": {"bpe": {"vocab_size": 300}},
    }  # fmt: skip
    recipe = write_recipe(
        tmp_path / "r.json", tmp_path, rows, sft={**SFT, "max_length": 128},
        model=model, adapter="full",
    )  # fmt: skip
    job, _ = prepared(recipe)
    assert len(job.tokenizer) <= 300
    text = tiny.rows(6)[0]["document"]
    assert job.tokenizer.decode(job.tokenizer(text)["input_ids"]) == text
