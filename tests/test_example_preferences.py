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
import tiny
from command_line import Outcome
from training_fixture import LORA, cut_back, sha256, train

from peftkit.plugins import find, plugin_names

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
    unknown = line[0]["plan"]
    assert unknown.code == 5
    said = json.loads(unknown.out)["error"]
    assert "what a step of method.tpo takes is unknown: its loss picks the tokens" in said


def test_run(line) -> None:
    said = succeeded(line[0]["run"])
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
    assert scores["tuned"]["margin"] != scores["base"]["margin"]
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
