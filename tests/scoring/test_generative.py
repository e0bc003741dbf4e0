"""Every contestant gets the same questions, and reading is scored as a formula says."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import tiny
from training_fixture import write_recipe

from peftkit.preprocessing.pipeline import Prepared, inspect_rows
from peftkit.recipe.build import Built, build
from peftkit.recipe.load import load_recipe
from peftkit.recipe.schema import EvaluateSection
from peftkit.scoring.by_kind import evaluator_for
from peftkit.scoring.generative import GenerativeEvaluator
from peftkit.system.machine import describe_machine


@pytest.fixture(scope="module")
def tokenizer(tiny_model: Path):
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(tiny_model)


@pytest.fixture(scope="module")
def model(tiny_model: Path):
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(tiny_model).eval()


@pytest.fixture
def built(tmp_path: Path, tiny_model: Path) -> Built:
    return _build(tmp_path, tiny_model, tiny.rows(5))


def _build(folder: Path, model: Path, rows: list[dict], *overrides: str) -> Built:
    file = tiny.write_jsonl(folder / "rows.jsonl", rows)
    recipe = write_recipe(folder / "r.json", model, file, sft={"max_length": 1024}, evaluate=True)
    return build(load_recipe(recipe, overrides), describe_machine())


def _prepare(built: Built, tokenizer) -> Prepared:
    return inspect_rows(built, tokenizer, splits=["test"])


def _evaluator(built: Built, tokenizer, model, progress=None) -> GenerativeEvaluator:
    examples = _prepare(built, tokenizer).examples["test"]
    made = evaluator_for(built, model, tokenizer, examples, progress=progress)
    assert isinstance(made, GenerativeEvaluator)
    return made


def test_reading_is_the_mean_loss_of_the_answers_tokens(built: Built, tokenizer, model) -> None:
    import torch

    examples = _prepare(built, tokenizer).examples["test"]
    found = evaluator_for(built, model, tokenizer, examples).take(model, "tuned")

    nats, num_tokens = 0.0, 0
    for example in examples:
        prompt = tokenizer.apply_chat_template(
            list(example.prompt), add_generation_prompt=True, tokenize=False
        )
        start = len(tokenizer(prompt)["input_ids"])
        ids = torch.tensor([tokenizer(f"{prompt}{example.reference}<|endoftext|>")["input_ids"]])
        with torch.no_grad():
            logits = model(ids).logits[0, start - 1 : -1].double()
        nats += float(torch.nn.functional.cross_entropy(logits, ids[0, start:], reduction="sum"))
        num_tokens += ids.shape[1] - start
    assert found.metrics["perplexity"] == pytest.approx(math.exp(nats / num_tokens), rel=1e-5)
    assert len(found.texts) == len(examples)
    assert "bits_per_byte" not in found.metrics


def test_what_decides_the_answers_is_stated(built: Built, tokenizer, model) -> None:
    evaluator = _evaluator(built, tokenizer, model)
    assert evaluator.options["do_sample"] is False
    assert evaluator.options["max_new_tokens"] == 64
    assert evaluator.options["eos_token_id"] == [tokenizer.eos_token_id]
    json.dumps(evaluator.options)
    assert evaluator.references == [row["summary"] for row in tiny.rows(5)]


def test_prompts_that_leave_no_room_are_cut_and_counted(
    tmp_path: Path, tiny_model: Path, tokenizer, model
) -> None:
    rows = tiny.rows(3)
    rows[1]["document"] = "sort keys by name ; " * 80
    built = _build(tmp_path, tiny_model, rows)
    evaluator = _evaluator(built, tokenizer, model)
    assert evaluator.prompts is not None
    assert evaluator.prompts.num_cut == 1
    assert max(map(len, evaluator.prompts.input_ids)) == evaluator.prompts.max_tokens == 256 - 64
    evaluator.take(model, "base")


def test_progress_counts_answers_and_then_what_is_read(built: Built, tokenizer, model) -> None:
    seen: list[tuple[str, int, int]] = []
    _evaluator(built, tokenizer, model, lambda *at: seen.append(at)).take(model, "base")
    names = list(dict.fromkeys(name for name, _, _ in seen))
    assert names == ["base answers", "base reads"]
    assert [seen[-1], *[at for at in seen if at[0] == "base answers"][-1:]] == [
        ("base reads", 5, 5), ("base answers", 5, 5),
    ]  # fmt: skip


def test_as_many_prompts_share_a_batch_where_the_recipe_scores_nothing(
    tmp_path: Path, tiny_model: Path, tokenizer, model
) -> None:
    built = _build(tmp_path, tiny_model, tiny.rows(10), "evaluate=false")
    seen: list[tuple[str, int, int]] = []
    _evaluator(built, tokenizer, model, lambda *at: seen.append(at)).take(model, "base")
    assert seen[0] == ("base answers", EvaluateSection().batch_size, 10)


def test_answers_that_never_end_are_counted(
    tmp_path: Path, tiny_model: Path, tokenizer, model
) -> None:
    built = _build(tmp_path, tiny_model, tiny.rows(4), "evaluate.generation.max_new_tokens=1")
    import torch

    evaluator = _evaluator(built, tokenizer, model)
    assert evaluator.prompts is not None
    num_unfinished = 0
    for ids in evaluator.prompts.input_ids:
        with torch.no_grad():
            first = int(model(torch.tensor([ids])).logits[0, -1].argmax())
        num_unfinished += first != tokenizer.eos_token_id
    assert evaluator.take(model, "tuned").num_unfinished == num_unfinished > 0
