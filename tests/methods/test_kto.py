"""KTO takes verdicts and pairs, lends answers within a batch as trl does, and wants both kinds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from preference_fixture import encoded, examples, method, write_recipe, write_rows

from peftkit.errors import DataError


@pytest.fixture(scope="module")
def tokenizer(tiny_model: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(tiny_model)


def test_a_pair_is_a_good_answer_and_a_bad_one(tokenizer: Any) -> None:
    one = method("kto")
    pairs = [row for rows in one.encode(examples(), tokenizer) for row in rows]
    verdicts = [row for rows in one.encode(examples(judged=True), tokenizer) for row in rows]
    assert pairs == verdicts
    assert [row["label"] for row in pairs] == [1, 0] * 4


@pytest.mark.parametrize("batch_size", [2, 3])
def test_answers_are_lent_as_trl_lends_them(batch_size: int, tokenizer: Any) -> None:
    one = method("kto", per_device_train_batch_size=batch_size)
    rows = encoded(one, tokenizer, examples(judged=True)).to_list()
    for start in range(0, len(rows), batch_size):
        batch = rows[start : start + batch_size]
        lent = [row["KL_completion_ids"] for row in batch]
        own = [row["completion_ids"] for row in batch]
        assert lent == [own[-1], *own[:-1]]


def test_the_loss_that_estimates_nothing_lends_nothing(tokenizer: Any) -> None:
    one = method("kto", loss_type="apo_zero_unpaired")
    rows = encoded(one, tokenizer, examples(judged=True))
    assert set(rows.column_names) == {"prompt_ids", "completion_ids", "label"}


@pytest.mark.parametrize(("verdict", "said"), [(True, "good"), (False, "bad")])
def test_answers_of_one_kind_alone_are_refused_before_training(
    verdict: bool, said: str, tokenizer: Any
) -> None:
    one = method("kto")
    made = [example for example in examples(judged=True) if example.is_good is verdict]
    with pytest.raises(DataError, match=f"every row's answer is called {said}") as caught:
        one.check_rows(encoded(one, tokenizer, made))
    assert "rows of both kinds" in str(caught.value.hint)


def test_a_run_of_one_kind_names_the_task(tmp_path: Path, tiny_model: Path) -> None:
    import json

    from training_fixture import train

    rows = write_rows(tmp_path / "rows.jsonl", judged=True)
    good = [json.loads(line) for line in rows.read_text().splitlines()]
    rows.write_text("".join(json.dumps({**row, "label": True}) + "\n" for row in good))
    recipe = write_recipe(tmp_path / "r.json", "kto", tiny_model, rows)
    with pytest.raises(DataError, match=r"r\.json:\d+ data.*called good"):
        train(recipe, tmp_path / "run")
