"""GRPO's steps are plain trl's, with rewards that are plugins or metrics of the task."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import tiny
from preference_fixture import (
    assert_same_training,
    encoded,
    method,
    tiny_policy,
)
from training_fixture import cut_back, sha256, train

from peftkit.errors import RecipeError, UsageError
from peftkit.methods.grpo import metrics_of, reward_function
from peftkit.plugins import Training
from peftkit.recipe.load import load_recipe
from peftkit.tasks.summarize import Summarize, SummarizeConfig
from peftkit.testing import check_method

ROWS = tiny.rows(8)
TASK = Summarize(SummarizeConfig())
STEPS = {"max_steps": 3, "per_device_train_batch_size": 4, "num_generations": 2,
         "learning_rate": 0.01, "max_completion_length": 6, "logging_steps": 1,
         "save_strategy": "no", "rewards": ["rougeL", "similar_length"]}  # fmt: skip


@pytest.fixture(scope="module")
def tokenizer(tiny_model: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(tiny_model)


def examples() -> list[Any]:
    return [TASK.example(row) for row in ROWS]


def trainer_of(one: Any, model: Any, tokenizer: Any, folder: Path) -> Any:
    rows = encoded(one, tokenizer, examples())
    return one.trainer(Training(model, tokenizer, rows, None, (), folder, TASK))


def test_it_conforms(tokenizer: Any) -> None:
    from peftkit.methods.grpo import GRPO

    check_method(GRPO, {"rewards": ["rougeL"]}, tokenizer, examples())


@pytest.mark.parametrize("options", [{}, {"beta": 0.1, "reward_weights": [1.0, 0.5]}], ids=str)
def test_steps_are_those_of_plain_trl(
    options: dict[str, Any], tokenizer: Any, tiny_model: Path, tmp_path: Path
) -> None:
    """Prompts go in as messages there, and rewards as functions written by hand."""
    import copy
    import math

    from datasets import Dataset
    from rouge_score.rouge_scorer import RougeScorer
    from trl import GRPOTrainer

    one = method("grpo", **{**STEPS, **options})
    ours = trainer_of(one, tiny_policy(tiny_model), tokenizer, tmp_path / "ours")
    scorer = RougeScorer(["rougeL"], use_stemmer=True)

    def said(completions: Any) -> list[str]:
        return [completion[0]["content"] for completion in completions]

    def rouge(completions: Any, answer: list[str], **_: Any) -> list[float]:
        pairs = zip(said(completions), answer, strict=True)
        return [scorer.score(theirs, mine)["rougeL"].fmeasure for mine, theirs in pairs]

    def length(completions: Any, answer: list[str], **_: Any) -> list[float]:
        pairs = zip(said(completions), answer, strict=True)
        ratios = [max(len(a.split()), 1) / max(len(b.split()), 1) for a, b in pairs]
        return [math.exp(-abs(math.log(ratio))) for ratio in ratios]

    texts = Dataset.from_list([
        {"prompt": [dict(m) for m in example.prompt], "answer": example.reference}
        for example in examples()
    ])  # fmt: skip
    args = copy.copy(one.config)
    args.output_dir = str(tmp_path / "theirs")
    theirs = GRPOTrainer(
        tiny_policy(tiny_model), reward_funcs=[rouge, length], args=args, train_dataset=texts,
        processing_class=tokenizer,
    )  # fmt: skip
    assert_same_training(ours, theirs)


def test_prompt_and_reference_are_those_of_the_last_answer(tokenizer: Any) -> None:
    from peftkit.plugins import Conversation

    turns = [("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", "d")]
    chat = tuple({"role": role, "content": content} for role, content in turns)
    (row,) = encoded(method("grpo", **STEPS), tokenizer, [Conversation(chat)]).to_list()
    expected = tokenizer.apply_chat_template(
        [dict(m) for m in chat[:3]], add_generation_prompt=True, return_dict=True
    )["input_ids"]
    assert row["prompt"] == expected
    assert tokenizer.decode(row["reference"]) == "d<|endoftext|>"
    one = method("grpo", **STEPS)
    assert one.lengths(encoded(one, tokenizer, [Conversation(chat)])) == [len(expected) + 6]


def test_rewards_are_metrics_of_the_task_or_plugins(tokenizer: Any) -> None:
    ids = tokenizer(["read a file", "sort keys"])["input_ids"]
    rouge = reward_function("rougeL", TASK, tokenizer)
    assert rouge(ids, ["read a file", "write"], reference=ids) == [1.0, 0.0]
    length = reward_function("similar_length", None, tokenizer)
    assert length(ids, ["a b c", "a"], reference=ids) == pytest.approx([1.0, 0.5])
    assert rouge.__name__ == "rougeL"
    assert set(metrics_of(Summarize, {})) >= {"rougeL", "bleu"}


def recipe_of(file: Path, model: Path, rows: Path, **options: Any) -> Path:
    grpo = {**STEPS, "use_cpu": True, **options}
    recipe = {
        "name": "grpo",
        "model": {"path": str(model), "dtype": "float32"},
        "data": {
            "source": {"json": {"files": {"train": str(rows), "test": str(rows)}}},
            "splits": {"train": "train", "test": "test"},
            "task": {"summarize": {}},
        },
        "adapter": {"lora": {"r": 4, "target_modules": "all-linear"}},
        "method": {"grpo": grpo},
        "evaluate": {"split": "test", "limit": 2, "generation": {"max_new_tokens": 4}},
    }
    file.write_text(json.dumps(recipe, indent=1), encoding="utf-8")
    return file


@pytest.fixture
def rows_file(tmp_path: Path) -> Path:
    return tiny.write_jsonl(tmp_path / "rows.jsonl", ROWS)


def test_a_reward_that_is_none_is_refused_at_check(
    tmp_path: Path, tiny_model: Path, rows_file: Path
) -> None:
    file = recipe_of(tmp_path / "r.json", tiny_model, rows_file, rewards=["rougL"])
    with pytest.raises(RecipeError, match="there is no reward 'rougL'") as caught:
        load_recipe(file)
    (problem,) = caught.value.problems
    assert problem.key == "method.grpo.rewards" and problem.line
    assert "rougeL" in str(problem.suggestion) and "exact_match" in str(problem.suggestion)


def test_a_resumed_run_is_the_one_that_was_never_stopped(
    tmp_path: Path, tiny_model: Path, rows_file: Path
) -> None:
    options = {"max_steps": 4, "save_strategy": "steps", "save_steps": 2}
    recipe = recipe_of(tmp_path / "r.json", tiny_model, rows_file, **options)
    whole = train(recipe, tmp_path / "whole", "evaluate=false")
    expected = sha256(whole)
    lines = [json.loads(line) for line in whole.metrics.read_text().splitlines()]
    assert all(line["num_tokens"] > 0 for line in lines if "loss" in line)
    cut_back(whole, step=2)
    assert sha256(train(recipe, tmp_path / "whole", "evaluate=false")) == expected


def test_a_reference_that_is_not_the_base_is_refused(
    tokenizer: Any, tiny_model: Path, tmp_path: Path
) -> None:
    one = method("grpo", **STEPS, beta=0.1)
    with pytest.raises(UsageError, match="changes the model before its first step"):
        trainer_of(one, tiny_policy(tiny_model, moved=True), tokenizer, tmp_path)
    with pytest.raises(UsageError, match="without an adapter there is no reference"):
        trainer_of(one, tiny_policy(tiny_model, adapted=False), tokenizer, tmp_path)


def test_the_tasks_first_metric_rewards_where_none_is_named(
    tokenizer: Any, tiny_model: Path, tmp_path: Path
) -> None:
    one = method("grpo", **{**STEPS, "rewards": []})
    trainer = trainer_of(one, tiny_policy(tiny_model), tokenizer, tmp_path)
    assert trainer.reward_func_names == ["rougeL"]


def test_what_a_step_takes_is_said_to_be_unknown() -> None:
    one = method("grpo", **STEPS)
    assert one.loss() is None and "generates" in one.unplanned
