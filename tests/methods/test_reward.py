"""A reward model is trained as by trl, kept with its head, merged, and scores answers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from preference_fixture import encoded, examples, method, write_recipe, write_rows
from training_fixture import train

from peftkit.errors import UsageError
from peftkit.generate import answer_file, open_answerer, read_questions
from peftkit.rundir.paths import RunDir


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> RunDir:
    folder = tmp_path_factory.mktemp("reward")
    rows = write_rows(folder / "rows.jsonl")
    recipe = write_recipe(folder / "r.json", "reward", tiny_model, rows, max_steps=12)
    return train(recipe, folder / "run")


def test_a_pair_that_does_not_fit_is_left_out_as_in_trl(tiny_model: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    one = method("reward", max_length=34)
    rows = [row for rows in one.encode(examples(), tokenizer) for row in rows]
    counts = [one.count({name: np.asarray(ids) for name, ids in row.items()}) for row in rows]
    kept = [max(len(row["chosen_ids"]), len(row["rejected_ids"])) <= 34 for row in rows]
    assert [bool(count.num_trained) for count in counts] == kept
    assert any(kept) and not all(kept)
    assert one.lengths(encoded(one, tokenizer, examples())) == [count.length for count in counts]


def test_the_run_keeps_the_head_and_scores_pairs(trained: RunDir) -> None:
    scores = trained.read_json(trained.scores)
    assert scores["headline"] == "accuracy" and scores["base"] == {}
    assert 0 <= scores["tuned"]["accuracy"] <= 1
    assert any("head is new" in note for note in scores["notes"])
    assert len(json.loads((trained.adapter / "config.json").read_text())["id2label"]) == 1


def test_plain_peft_gives_the_same_score(trained: RunDir, tiny_model: Path, tmp_path: Path) -> None:
    import torch
    from peft import PeftModel
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    answerer = open_answerer(trained.path)
    rows = [{"prompt": "sort keys", "completion": answer} for answer in ("yes", "no, never")]
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with (tmp_path / "out.jsonl").open("w") as out:
        answer_file(answerer, read_questions(answerer, file), out)
    found = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    tokenizer = AutoTokenizer.from_pretrained(trained.adapter)
    base = AutoModelForSequenceClassification.from_pretrained(
        tiny_model, num_labels=1, dtype=torch.float32, pad_token_id=tokenizer.pad_token_id
    )
    model = PeftModel.from_pretrained(base, trained.adapter).eval()
    for row, scored in zip(rows, found, strict=True):
        chat = [{"role": "user", "content": row["prompt"]},
                {"role": "assistant", "content": row["completion"]}]  # fmt: skip
        ids = torch.tensor([tokenizer.apply_chat_template(chat, return_dict=True)["input_ids"]])
        with torch.no_grad():
            assert scored["score"] == pytest.approx(float(model(ids).logits), rel=1e-4)
        assert {name: scored[name] for name in row} == row


def test_it_gives_no_answers_itself(trained: RunDir) -> None:
    from peftkit.scoring.prompts import question_of_text

    answerer = open_answerer(trained.path)
    with pytest.raises(UsageError, match="a prompt alone has none") as caught:
        answerer.reply(question_of_text(answerer.task, "sort keys"), lambda _: None)
    assert "--file" in str(caught.value.hint)
    with pytest.raises(UsageError, match="generates nothing, so max_new_tokens has no use"):
        open_answerer(trained.path, options=["max_new_tokens=3"])


def test_generation_is_refused_at_check(tmp_path: Path, tiny_model: Path) -> None:
    from peftkit.errors import RecipeError
    from peftkit.recipe.load import load_recipe

    rows = write_rows(tmp_path / "rows.jsonl")
    recipe = write_recipe(tmp_path / "r.json", "reward", tiny_model, rows)
    with pytest.raises(RecipeError, match="reward trains what generates nothing"):
        load_recipe(recipe, ["evaluate.generation={max_new_tokens: 4}"])


def test_the_merged_model_is_a_reward_model(trained: RunDir, tmp_path: Path) -> None:
    import torch
    from transformers import AutoModelForSequenceClassification

    from peftkit.merge import merge
    from peftkit.training.open_run import load_tuned, open_run

    merge(trained.path, out=tmp_path / "merged")
    whole: Any = AutoModelForSequenceClassification.from_pretrained(tmp_path / "merged")
    assert whole.config.num_labels == 1
    ids = torch.arange(20)[None]
    with torch.no_grad():
        tuned = load_tuned(open_run(trained)).eval()(ids).logits
        torch.testing.assert_close(whole(ids).logits, tuned, rtol=1e-4, atol=1e-5)
