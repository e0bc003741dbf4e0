"""A training method that no file of peftkit knows is checked, planned, trained, scored and merged.

Its own tests hold it against plain trl; see `test_example_plugin.py` for what all examples share.
"""

from __future__ import annotations

import json
import random
import re
from pathlib import Path
from typing import Any

import pytest
import real_step
import tiny
from command_line import Outcome
from training_fixture import LORA, cut_back, sha256, train

from peftkit.plugins import find, plugin_names
from peftkit.recipe.load import load_recipe

NAME = "peftkit-preferences"


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a file of prompts, each with its summary and another row's."""
    rows = tiny.rows(24)
    others = random.Random(1).sample(rows, len(rows))
    made = [
        {"prompt": row["document"], "chosen": f"{row['summary']} so", "reference": row["summary"],
         "rejected": f"no {other['summary']}"}
        for row, other in zip(rows, others, strict=True)
    ]  # fmt: skip
    return tiny.write_jsonl(tmp_path_factory.mktemp("pairs") / "pairs.jsonl", made)


def write(file: Path, model: Path, pairs: Path, **options: Any) -> Path:
    """Write a recipe of a few steps."""
    tpo = {"max_steps": 3, "per_device_train_batch_size": 2, "learning_rate": 0.01,
           "max_length": 128, "use_cpu": True, **options}  # fmt: skip
    recipe = {
        "name": "preferring",
        "model": {"path": str(model), "dtype": "float32"},
        "data": {
            "source": {"json": {"files": str(pairs)}},
            "splits": {"train": "train", "test": "30%"},
            "task": {"triple": {}},
        },
        "adapter": {"lora": LORA},
        "method": {"tpo": tpo},
        "evaluate": {"split": "test"},
    }
    file.write_text(json.dumps(recipe, indent=1), encoding="utf-8")
    return file


@pytest.fixture(scope="module")
def line(
    install_example, tmp_path_factory: pytest.TempPathFactory, tiny_model: Path, pairs: Path
) -> tuple[dict[str, Outcome], Path]:
    """Take a recipe through every command in the example's own environment."""
    folder = tmp_path_factory.mktemp("line")
    recipe = write(folder / "preferring.json", tiny_model, pairs)
    commands: dict[str, list[Any]] = {
        "check": ["check", recipe],
        "data": ["data", recipe, "--json"],
        "data shown": ["data", recipe],
        "plan": ["plan", recipe, "--here", "--json"],
        "run": ["run", recipe, "--out", "run"],
        "run again": ["run", recipe, "--out", "run"],
        "evaluate": ["evaluate", "run", "--json"],
        "generate": ["generate", "run", "sort keys by name", "--json", "-o", "max_new_tokens=4"],
        "merge": ["merge", "run", "--out", "merged", "--json"],
        "wrong": ["check", recipe, "method.tpo.bet=1", "method.tpo.truncation_mode=keep_end"],
        "no task": ["check", recipe, "data.task={summarize: {document: prompt, summary: chosen}}"],
        "unknown": ["plan", recipe, "--here", "method.tpo.loss_type=hinge"],
    }
    found = install_example(NAME).peftkit(*commands.values(), cwd=folder)
    return dict(zip(commands, found, strict=True)), folder


def succeeded(found: Outcome) -> str:
    assert found.code == 0, found.out + found.err
    return found.out


def test_check(line) -> None:
    assert succeeded(line[0]["check"]).endswith("preferring.json: ok\n")


def test_check_refuses_what_is_not_an_option_of_trls_and_what_is_not_meant(line) -> None:
    wrong = line[0]["wrong"]
    assert wrong.code == 2
    said = " ".join((wrong.out + wrong.err).split())
    assert "did you mean beta?" in said
    assert "answers are cut at their end" in said
    no_task = line[0]["no task"]
    assert no_task.code == 2
    said = " ".join((no_task.out + no_task.err).split())
    assert "makes Conversation examples, tpo trains on Triple" in said
    assert "the task triple" in said


def test_data_shows_all_answers(line) -> None:
    document = json.loads(succeeded(line[0]["data"]))
    train, test = (document["splits"][name] for name in ("train", "test"))
    assert train["num_used"] + test["num_used"] == 24
    row = document["mask_samples"]["train"][0]
    text = "".join(row["tokens"])
    assert text.count("<|user|>") == text.count("<|assistant|>") == 3
    trained = "".join(t for t, is_in in zip(row["tokens"], row["trained"], strict=True) if is_in)
    first, second, gold, _ = trained.split("<|endoftext|>\n")
    assert second.startswith("no ") and first == f"{gold} so"
    shown = succeeded(line[0]["data shown"])
    assert (
        shown.count("[[") == shown.count("]]") == 6 + 1
    )  # three of each split, and what they mean


def test_plan(line) -> None:
    plan = json.loads(succeeded(line[0]["plan"]))
    assert plan["micro_batch"] == 2
    assert plan["peak_bytes"] == sum(term["num_bytes"] for term in plan["terms"])
    assert plan["unknown"] == ["scoring after training, which method.tpo does in a way of its own"]
    unknown = line[0]["unknown"]
    assert unknown.code == 5
    said = " ".join(unknown.err.split())
    assert "what a step of method.tpo takes is unknown: its loss is computed by its trainer" in said


def test_run(line) -> None:
    said = succeeded(line[0]["run"])
    assert "probed   the longest batch" in said
    assert "trained  3 steps" in said
    folder = line[1] / "run"
    assert sorted(file.name for file in (folder / "adapter").iterdir() if file.is_dir()) == []
    steps = [json.loads(text) for text in (folder / "metrics.jsonl").read_text().splitlines()]
    losses = [step["loss"] for step in steps if "loss" in step]
    assert losses[-1] < losses[0]
    assert "already finished" in succeeded(line[0]["run again"])
    assert "Accuracy" in (folder / "report.html").read_text()


def test_evaluate(line) -> None:
    scores = json.loads(succeeded(line[0]["evaluate"]))
    assert scores["headline"] == "accuracy"
    assert set(scores["base"]) == set(scores["tuned"]) == {"accuracy", "margin"}
    assert scores["tuned"]["margin"] > scores["base"]["margin"]
    assert scores["intervals"]["metric"] == "accuracy"
    kept = json.loads((line[1] / "run" / "scores.json").read_text())
    for name in ("base", "tuned"):
        assert scores[name] == pytest.approx(kept[name], rel=1e-6)


def test_generate(line) -> None:
    answer = json.loads(succeeded(line[0]["generate"]))
    assert isinstance(answer["answer"], str)


def test_merge(line) -> None:
    from transformers import AutoModelForCausalLM

    from peftkit.adapters.continued import load_adapter

    merged = json.loads(succeeded(line[0]["merge"]))
    verified = merged["verification"]
    assert verified["max_difference"] <= verified["tolerance"]
    assert verified["num_agreeing"] == verified["num_tokens"]
    whole = AutoModelForCausalLM.from_pretrained(line[1] / "merged")
    recipe = json.loads((line[1] / "preferring.json").read_text())
    base = AutoModelForCausalLM.from_pretrained(recipe["model"]["path"])
    adapted = load_adapter(base, line[1] / "run" / "adapter", is_trainable=False)
    import torch

    ids = torch.arange(20)[None]
    with torch.no_grad():
        torch.testing.assert_close(whole(ids).logits, adapted(ids).logits, rtol=1e-4, atol=1e-5)


@pytest.fixture
def in_sight(install_example, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the example's plugins known in this process."""
    monkeypatch.syspath_prepend(str(install_example(NAME).site))
    assert "tpo" in plugin_names("methods")


@pytest.mark.filterwarnings("ignore:`gradient_checkpointing_:FutureWarning")  # trl's own calls
def test_a_step_of_trls_trainer_takes_what_is_planned(
    in_sight, tmp_path: Path, pairs: Path
) -> None:
    """The peak of a real step, tracked: trl's own `compute_loss`, its metrics included."""
    import numpy as np
    from datasets import Dataset

    from peftkit.memory import step
    from peftkit.memory.planner import plan
    from peftkit.memory.trace import compile_trace
    from peftkit.models.load import load_base
    from peftkit.plugins import Training
    from peftkit.plugins.quantizer import PLAIN
    from peftkit.recipe.build import build

    model = real_step.save_model(tmp_path, real_step.LLAMA)
    tokenizer = tiny.tiny_tokenizer(tmp_path)
    recipe = load_recipe(write(tmp_path / "r.json", model, pairs, max_length=48))
    built = build(recipe, real_step.CPU)
    rows = [
        {
            "prompt_ids": list(range(9, 29)),
            "chosen_ids": list(range(28)),
            "rejected_ids": [9] * n,
            "reference_ids": [9] * n,
        }
        for n in (12, 28)
    ]
    adapted = built.adapter.attach(load_base(recipe.model, kind=built.method.kind))
    trainer = built.method.trainer(
        Training(adapted, tokenizer, Dataset.from_list(rows), None, (), tmp_path / "out")
    )
    batch = trainer.data_collator(list(trainer.train_dataset))
    assert tuple(batch["input_ids"].shape) == (6, 48)
    adapted.train()
    step.set_checkpointing(adapted, trainer.args)
    optimizer = step.make_optimizer(adapted, built.method)
    settings = step.StepSettings.of(trainer.args, "cpu")
    trained = [p for p in adapted.parameters() if p.requires_grad]
    step.forward_backward(adapted, batch, trainer.compute_loss, settings, lambda _: None)
    step.update(trained, optimizer, settings, lambda _: None)
    trace = real_step.track_step(
        adapted, batch, trainer.compute_loss, optimizer, settings, storage=PLAIN
    )
    live = compile_trace(trace).live(np.array(trace.num_bytes, np.int64))
    made = plan(recipe, lengths=[48, 48], machine=real_step.CPU)
    planned = made.peak_bytes - made.term_bytes("runtime")
    assert planned == pytest.approx(int(live.total.max()), rel=5e-3)
    for phase in ("forward", "backward", "step"):
        found = made.phase_bytes[phase] - made.term_bytes("runtime")
        assert found == pytest.approx(live.phase_peaks()[phase], rel=5e-3), phase


def test_a_resumed_run_is_the_one_that_was_never_stopped(
    in_sight, tmp_path: Path, tiny_model: Path, pairs: Path
) -> None:
    recipe = write(tmp_path / "r.json", tiny_model, pairs, max_steps=4, save_steps=2)
    whole = train(recipe, tmp_path / "whole", "evaluate=false")
    expected = sha256(whole)
    assert not list((whole.checkpoints / "step-2").glob("*/adapter_model.safetensors"))
    cut_back(whole, step=2)
    resumed = train(recipe, tmp_path / "whole", "evaluate=false")
    assert sha256(resumed) == expected


def test_nobody_in_the_house_knows_it() -> None:
    package = Path(__file__).resolve().parent.parent / "peftkit"
    named = [
        file.relative_to(package).as_posix()
        for file in package.rglob("*.py")
        if re.search(r"\btpo|TPO(Conf|Train)", file.read_text(encoding="utf-8"))
    ]
    assert named == []
    with pytest.raises(Exception, match="there is no method 'tpo'"):
        find("methods", "tpo")
