"""The method and the task do what peftkit expects of every plugin; the shipped rows are sound."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pairs import PAIRS, QUIET, ROWS, examples, method
from peftkit_preferences.dpo import DPO
from peftkit_preferences.preference import Preference, PreferenceTask

from peftkit.embedded import dataset_path
from peftkit.errors import DataError
from peftkit.plugins import Point
from peftkit.tasks.summarize import first_sentence
from peftkit.testing import check_method, check_task

SHIPPED = Path(__file__).resolve().parent.parent / "recipes" / "preferences.jsonl"


def test_task_and_method_conform(tokenizer: Any) -> None:
    assert check_task(PreferenceTask, {}, ROWS) == {}
    check_method(DPO, {"max_length": 64}, tokenizer, examples())


def test_a_pair_is_asked_by_its_prompt_alone() -> None:
    one, *_ = examples(system="Be brief.")
    assert one.asked == [["system", "Be brief."], ["user", "Name a colour."]]
    assert one.question().messages == one.prompt
    assert one.texts == ("Be brief.", "Name a colour.", "Blue.", "A table of rows.")
    assert one.reference == ""


def test_rows_are_encoded_as_trl_encodes_the_same_texts(tokenizer: Any, make_model: Any) -> None:
    import trl
    from datasets import Dataset
    from trl import DPOTrainer

    texts = Dataset.from_list([
        {
            "prompt": [{"role": "system", "content": "Be brief."},
                       {"role": "user", "content": prompt}],
            "chosen": [{"role": "assistant", "content": chosen}],
            "rejected": [{"role": "assistant", "content": rejected}],
        }
        for prompt, chosen, rejected in PAIRS
    ])  # fmt: skip
    config = trl.DPOConfig(output_dir="unused", max_length=64, **QUIET)
    theirs = DPOTrainer(
        make_model(), args=config, train_dataset=texts, processing_class=tokenizer
    ).train_dataset
    ours = [
        row for rows in method().encode(examples(system="Be brief."), tokenizer) for row in rows
    ]
    assert len(ours) == len(PAIRS)
    assert ours == [{name: row[name] for name in ours[0]} for row in theirs.to_list()]
    read = [[ids for ids, _ in method().sequences(row)] for row in ours]
    assert read == [
        [row["prompt_ids"] + row["chosen_ids"], row["prompt_ids"] + row["rejected_ids"]]
        for row in theirs.to_list()
    ]


def test_what_is_counted_and_cut_is_what_trls_collator_leaves(tokenizer: Any) -> None:
    from datasets import Dataset
    from trl.trainer.dpo_trainer import DataCollatorForPreference

    short = method(max_length=24)
    rows = [row for rows in short.encode(examples(), tokenizer) for row in rows]
    counts = [short.count({name: np.array(ids) for name, ids in row.items()}) for row in rows]
    collator = DataCollatorForPreference(tokenizer.pad_token_id, max_length=24)
    batches = [collator([row]) for row in rows]
    assert [c.num_tokens for c in counts] == [int(b["attention_mask"].sum()) for b in batches]
    assert [c.num_trained for c in counts] == [int(b["completion_mask"].sum()) for b in batches]
    assert any(c.is_cut for c in counts) and not all(c.is_cut for c in counts)
    arranged = short.arrange(Dataset.from_list(rows), tokenizer)
    uncut = DataCollatorForPreference(tokenizer.pad_token_id)
    for row, batch, length in zip(arranged, batches, short.lengths(arranged), strict=True):
        assert uncut([row])["input_ids"].tolist() == batch["input_ids"].tolist()
        assert length == batch["input_ids"].shape[1]


def test_a_prompt_that_fills_its_row_leaves_nothing_to_train(tokenizer: Any) -> None:
    full = method(max_length=4)
    (row,) = full.encode(examples()[:1], tokenizer)[0]
    counted = full.count({name: np.array(ids) for name, ids in row.items()})
    assert counted.num_trained == 0
    assert counted.needed == len(row["prompt_ids"]) + 1


def test_a_pair_of_equal_answers_is_refused_and_the_others_stay(tokenizer: Any) -> None:
    same = Preference(({"role": "user", "content": "Say yes."},), "Yes.", "Yes.")
    first, second = method().encode([same, *examples()[:1]], tokenizer)
    assert isinstance(first, DataError) and "the same" in first.message
    assert len(second) == 1


def test_without_a_chat_template_no_row_is_encoded() -> None:
    class Bare:
        chat_template = None

    with pytest.raises(DataError, match="no chat template"):
        method().encode(examples(), Bare())


def test_a_batch_is_planned_as_trls_collator_makes_it(tokenizer: Any) -> None:
    from trl.trainer.dpo_trainer import DataCollatorForPreference

    rows = [row for rows in method().encode(examples(), tokenizer) for row in rows]
    known = [{**row, "ref_chosen_logps": -1.0, "ref_rejected_logps": -2.0} for row in rows]
    collator = DataCollatorForPreference(tokenizer.pad_token_id)
    for given, one in ((rows, method()), (known, method(precompute_ref_log_probs=True))):
        batch = collator(given)
        batch.pop("attention_mask")  # peftkit adds it
        planned = one.columns(Point(len(rows), batch["input_ids"].shape[1]))
        assert planned == {name: tuple(values.shape) for name, values in batch.items()}


def test_the_shipped_rows_are_those_of_peftkits_sample() -> None:
    file = dataset_path("docstring-summaries") / "validation.jsonl"
    known = {}
    for line in file.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        known["Summarize the text.\n\n" + row["document"]] = row
    shipped = [json.loads(line) for line in SHIPPED.read_text(encoding="utf-8").splitlines()]
    assert len(shipped) == len({row["prompt"] for row in shipped}) == 80
    for row in shipped:
        source = known[row["prompt"]]
        assert row["chosen"] == source["summary"]
        assert row["rejected"] == first_sentence(source["document"])
