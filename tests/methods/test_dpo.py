"""DPO's losses are trl's; what it does not compute itself is left to trl's trainer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import real_step
import tiny
from preference_fixture import examples, method, write_recipe, write_rows

from peftkit.memory.planner import plan
from peftkit.recipe.load import load_recipe


@pytest.mark.parametrize(
    "options",
    [{"loss_type": ["robust"]}, {"ld_alpha": 0.5}, {"use_weighting": True},
     {"f_divergence_type": "js_divergence"}],
)  # fmt: skip
def test_variants_that_are_not_written_here_are_left_to_trl(options: dict[str, Any]) -> None:
    assert method("dpo", **options).loss() is None


def test_a_row_counts_as_two_sequences() -> None:
    from peftkit.plugins import Point

    one = method("dpo")
    assert one.columns(Point(3, 8))["input_ids"] == (6, 8)


@pytest.mark.parametrize("precomputes", [False, True])
def test_a_step_of_trls_trainer_takes_what_is_planned(tmp_path: Path, precomputes: bool) -> None:
    """The peak of a real step, tracked: trl's own `compute_loss`, its metrics included."""
    import numpy as np
    from datasets import Dataset

    from peftkit.memory import step
    from peftkit.memory.trace import compile_trace
    from peftkit.models.base import load_base
    from peftkit.plugins import Training
    from peftkit.plugins.quantizer import PLAIN
    from peftkit.recipe.build import build

    model = real_step.save_model(tmp_path, {**real_step.LLAMA, "num_hidden_layers": 2})
    tokenizer = tiny.tiny_tokenizer(tmp_path)
    rows_file = write_rows(tmp_path / "rows.jsonl")
    options = {"activation_checkpointing": precomputes, "precompute_ref_log_probs": precomputes}
    recipe = load_recipe(
        write_recipe(tmp_path / "r.json", "dpo", model, rows_file, max_length=48, **options)
    )
    built = build(recipe, real_step.CPU)
    rows = [
        {"prompt_ids": list(range(9, 29)), "chosen_ids": list(range(28)), "rejected_ids": [9] * n}
        for n in (12, 28)
    ]
    adapted = built.adapter.attach(load_base(recipe.model, kind=built.method.kind))
    trainer = built.method.trainer(
        Training(adapted, tokenizer, Dataset.from_list(rows), None, (), tmp_path / "out")
    )
    batch = trainer.data_collator(list(trainer.train_dataset))
    assert tuple(batch["input_ids"].shape) == (4, 48)
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


def test_pairs_are_shown_as_prompt_and_two_answers(tiny_model: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    (row,) = method("dpo").encode(examples()[:1], tokenizer)[0]
    texts = [tokenizer.decode(ids) for ids, _ in method("dpo").sequences(row)]
    trained = [
        tokenizer.decode([label for label in labels if label >= 0])
        for _, labels in method("dpo").sequences(row)
    ]
    assert all("sort keys by name" in text for text in texts)
    assert trained == ["sort the keys.<|endoftext|>\n", "a table of rows<|endoftext|>\n"]
