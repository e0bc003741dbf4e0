"""The example quantizer, installed into a fresh environment, goes through every command."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import real_step
import tiny
from command_line import Outcome, run_command
from training_fixture import write_recipe

NAME = "peftkit-int8"
QUANTIZE = {"torchao_int8": {}}


@pytest.fixture
def visible(install_example, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let this process see what is installed there."""
    monkeypatch.syspath_prepend(str(install_example(NAME).site))
    yield
    for name in [name for name in sys.modules if name.startswith("peftkit_int8")]:
        del sys.modules[name]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a base, rows and a recipe."""
    made = tmp_path_factory.mktemp("int8")
    base = tiny.tiny_llama(made / "base", tie_word_embeddings=False)
    rows = tiny.write_jsonl(made / "rows.jsonl", tiny.rows(8))
    sft = {
        "max_steps": 3,
        "max_length": 128,
        "per_device_train_batch_size": 2,
        "learning_rate": 0.01,
    }
    write_recipe(
        made / "small.json", base, rows, sft=sft, evaluate=True,
        model={"path": str(base), "dtype": "float32", "quantize": QUANTIZE},
    )  # fmt: skip
    return made


@pytest.fixture(scope="module")
def outcomes(install_example, folder: Path) -> dict[str, Outcome]:
    """Take the recipe through the commands, in one process of the fresh environment."""
    commands = {
        "data": ["data", "small.json", "--json"],
        "plan": ["plan", "small.json", "--here", "--json"],
        "run": ["run", "small.json", "--out", "run"],
        "evaluate": ["evaluate", "run", "--limit", "2", "--json"],
        "generate": ["generate", "run", "read a file", "-o", "max_new_tokens=4", "--json"],
        "merge": ["merge", "run", "--out", "merged"],
        "dequantized": ["merge", "run", "--out", "plain", "--onto", "dequantized", "--json"],
        "requantized": ["merge", "run", "--out", "int8", "--onto", "requantized", "--json"],
    }
    found = install_example(NAME).peftkit(*commands.values(), cwd=folder)
    return dict(zip(commands, found, strict=True))


def answer(outcomes: dict[str, Outcome], name: str) -> Any:
    """Return what a command that succeeded printed as JSON."""
    outcome = outcomes[name]
    assert outcome.code == 0, outcome.err
    return json.loads(outcome.out)


def test_it_is_not_installed_here() -> None:
    from peftkit.plugins import plugin_names

    assert "torchao_int8" not in plugin_names("quantizers")


def test_its_recipe_is_checked_and_mistakes_are_found_at_their_line(
    install_example, visible: None, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    recipe = install_example(NAME).package / "recipes" / "summarize-int8.yaml"
    checked = run_command(capfd, "check", recipe)
    assert (checked.code, checked.out) == (0, f"{recipe}: ok\n")
    text = recipe.read_text(encoding="utf-8")
    found = []
    for options in ("group_siz: 32", "group_size: 0"):
        wrong = tmp_path / "wrong.yaml"
        wrong.write_text(text.replace("{torchao_int8: {}}", f"{{torchao_int8: {{{options}}}}}"))
        outcome = run_command(capfd, "check", "--json", wrong)
        assert outcome.code == 2
        (problem,) = json.loads(outcome.out)
        assert problem["line"] == 7
        found.append((problem["key"].rpartition(".")[2], problem["problem"], problem["suggestion"]))
    assert found == [
        ("group_siz", "torchao_int8 has no such key", "did you mean group_size?"),
        ("group_size", "is no number of columns", "write 32 or more, or delete it"),
    ]


@pytest.mark.slow
def test_the_data_is_audited(outcomes: dict[str, Outcome]) -> None:
    splits = answer(outcomes, "data")["splits"]
    assert {name: split["num_used"] for name, split in splits.items()} == {"train": 8, "test": 8}


@pytest.mark.slow
def test_the_plan_counts_a_byte_a_weight_and_five_a_row(
    outcomes: dict[str, Outcome], folder: Path
) -> None:
    """int8 numbers, and for each row a float32 scale and an int8 zero point."""
    from safetensors.numpy import load_file

    expected = 2 * 8 * 4  # rotary frequencies, as they are and as they were
    for name, weight in load_file(folder / "base" / "model.safetensors").items():
        is_int8 = name.endswith("proj.weight")
        expected += weight.size + 5 * len(weight) if is_int8 else weight.nbytes
    terms = {term["name"]: term for term in answer(outcomes, "plan")["terms"]}
    assert terms["base"]["num_bytes"] == expected


@pytest.mark.slow
def test_it_trains_and_is_scored(outcomes: dict[str, Outcome], folder: Path) -> None:
    outcome = outcomes["run"]
    assert outcome.code == 0, outcome.err
    assert "  plan     none" not in outcome.out
    assert "step 3/3" in outcome.out
    run_scores = json.loads((folder / "run" / "scores.json").read_text(encoding="utf-8"))
    scores = answer(outcomes, "evaluate")
    assert scores["tuned"] == run_scores["tuned"]
    assert scores["tuned"]["perplexity"] < scores["base"]["perplexity"]
    assert answer(outcomes, "generate")["prompt"] == "read a file"


@pytest.mark.slow
def test_plain_peft_computes_the_same(
    visible: None, outcomes: dict[str, Outcome], folder: Path
) -> None:
    """Without peftkit: transformers quantizes the base by torchao, and peft adds the adapter."""
    import torch
    from peft import PeftModel

    from peftkit.rundir.paths import RunDir
    from peftkit.training.open_run import load_tuned, open_run

    base = loaded(folder / "base", quantized=True)
    plain = PeftModel.from_pretrained(base, str(folder / "run" / "adapter")).eval()
    tuned = load_tuned(open_run(RunDir(folder / "run")))
    assert torch.equal(logits(plain), logits(tuned))
    merged = loaded(folder / "plain")
    torch.testing.assert_close(logits(merged), logits(plain), rtol=0, atol=1e-5)


def loaded(folder: Path, *, quantized: bool = False) -> Any:
    """Load a model by transformers alone, which may quantize it as it does."""
    from torchao.quantization import Int8WeightOnlyConfig
    from transformers import AutoModelForCausalLM, TorchAoConfig

    keywords = {"quantization_config": TorchAoConfig(Int8WeightOnlyConfig())} if quantized else {}
    return AutoModelForCausalLM.from_pretrained(
        folder, dtype="float32", device_map={"": "cpu"}, **keywords
    ).eval()


def logits(model: Any) -> Any:
    """Return what a model computes of some tokens."""
    import torch

    with torch.no_grad():
        return model(input_ids=torch.arange(5, 60)[None]).logits


@pytest.mark.slow
def test_a_merge_asks_which_weights_take_the_change(outcomes: dict[str, Outcome]) -> None:
    outcome = outcomes["merge"]
    assert outcome.code == 2
    assert "was quantized in training; say which weights to merge onto" in outcome.err


@pytest.mark.slow
def test_both_merges_say_how_far_they_are_from_what_was_trained(
    outcomes: dict[str, Outcome], folder: Path
) -> None:
    import torch
    from torchao.quantization import Int8Tensor, PerRow

    plain, int8 = answer(outcomes, "dequantized"), answer(outcomes, "requantized")
    assert (plain["onto"], int8["onto"]) == ("dequantized", "requantized")
    assert plain["quantized_logits"]["max_difference"] < 1e-5
    assert 1e-5 < int8["quantized_logits"]["max_difference"] < 0.05
    whole = loaded(folder / "plain").get_parameter(DOWN)
    stored = loaded(folder / "int8").get_parameter(DOWN)
    again = Int8Tensor.from_hp(whole.data, granularity=PerRow())
    assert isinstance(stored, Int8Tensor)
    assert torch.equal(stored.qdata, again.qdata)
    assert torch.equal(stored.scale, again.scale)


DOWN = "model.layers.1.mlp.down_proj.weight"


@pytest.mark.parametrize("options", [{}, pytest.param({"group_size": 16}, marks=pytest.mark.slow)])
def test_its_plan_is_the_real_step(visible: None, options: dict[str, Any], tmp_path: Path) -> None:
    from peftkit.memory.planner import plan

    real_step.save_model(tmp_path, real_step.LLAMA)
    asked = real_step.recipe_for(tmp_path, **{"model.quantize": {"torchao_int8": options}})
    rows, lengths = real_step.batch_of(asked)
    made = plan(asked, lengths=lengths, machine=real_step.CPU)
    planned = made.peak_bytes - made.term_bytes("runtime")
    assert planned == pytest.approx(real_step.real_peaks(asked, rows)["all"], rel=1e-4)


def test_fit_may_propose_it(visible: None, folder: Path) -> None:
    from peftkit.planning.levers import read_levers
    from peftkit.recipe.load import load_recipe

    recipe = load_recipe(folder / "small.json", ["model.quantize=null"])
    levers = read_levers(recipe, real_step.CPU, free=("model.quantize",))
    lever = next(lever for lever in levers.levers if lever.name == "quantization")
    assert {"model.quantize": QUANTIZE} in lever.choices


def test_a_benchmark_draws_its_weights(visible: None, folder: Path) -> None:
    import torch
    from torchao.quantization import Int8Tensor

    from peftkit.benching.random_weights import fill_with_random
    from peftkit.memory.fake import build_skeleton
    from peftkit.models.load import load_config
    from peftkit.recipe.build import build
    from peftkit.recipe.load import load_recipe

    built = build(load_recipe(folder / "small.json"), real_step.CPU)
    section = built.recipe.model
    skeleton = build_skeleton(
        load_config(section), section,
        kind=built.method.kind, quantizer=built.quantizer, adapter=built.adapter,
    )  # fmt: skip
    fill_with_random(skeleton.model, device="cpu", seed=0, storage=skeleton.storage)
    weight = skeleton.model.get_base_model().get_submodule(DOWN.rpartition(".")[0]).weight
    assert isinstance(weight, Int8Tensor)
    assert weight.dequantize().std().item() == pytest.approx(0.02, rel=0.05)
    assert torch.isfinite(logits(skeleton.model)).all()


@pytest.mark.slow
def test_its_own_tests_pass(install_example) -> None:
    found = install_example(NAME)
    done = found.run("-m", "pytest", "-p", "no:cacheprovider", cwd=found.package)
    assert done.returncode == 0, done.stdout + done.stderr
