"""Methods that compare answers encode, cut and count as trl does, and train the same."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from preference_fixture import (
    assert_same_training,
    conversations,
    encoded,
    examples,
    method,
    our_trainer,
    their_trainer,
    tiny_policy,
    write_recipe,
    write_rows,
)
from training_fixture import cut_back, losses, sha256, train

from peftkit.errors import DataError, UsageError
from peftkit.methods.answers import log_probabilities
from peftkit.plugins import Point, Preference
from peftkit.preprocessing.chat_labels import TemplateError
from peftkit.testing import check_method

NAMES = ("dpo", "kto", "reward")
MAX_STEPS = {"max_steps": 3, "per_device_train_batch_size": 2, "learning_rate": 0.01,
             "logging_steps": 1, "max_length": 64, "save_strategy": "no"}  # fmt: skip


@pytest.fixture(scope="module")
def tokenizer(tiny_model: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(tiny_model)


def trainer_of(name: str) -> Any:
    import trl

    return {"dpo": trl.DPOTrainer, "kto": trl.KTOTrainer, "reward": trl.RewardTrainer}[name]


@pytest.mark.parametrize("name", NAMES)
def test_it_conforms(name: str, tokenizer: Any) -> None:
    from peftkit.plugins import find

    check_method(find("methods", name), {"max_length": 64}, tokenizer, examples())


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("dpo", {}),
        ("dpo", {"loss_type": ["ipo"], "precompute_ref_log_probs": True}),
        ("dpo", {"loss_type": ["sigmoid", "hinge"], "loss_weights": [0.5, 2.0], "max_length": 36}),
        ("kto", {}),
        ("kto", {"loss_type": "apo_zero_unpaired", "max_length": 36}),
        ("kto", {"precompute_ref_log_probs": True, "undesirable_weight": 2.0}),
        ("reward", {}),
        ("reward", {"center_rewards_coefficient": 0.1}),
    ],
    ids=str,
)
def test_steps_are_those_of_plain_trl(
    name: str, options: dict[str, Any], tokenizer: Any, tiny_model: Path, tmp_path: Path
) -> None:
    """Rows go in as texts there: its own preparation is compared too."""
    one = method(name, **{**MAX_STEPS, **options})
    judged, head = name == "kto", name == "reward"
    ours = our_trainer(
        one, tiny_policy(tiny_model, head=head), tokenizer,
        encoded(one, tokenizer, examples(judged=judged)), tmp_path / "ours",
    )  # fmt: skip
    texts = conversations(judged=judged)
    if judged:
        texts = texts.shuffle(seed=one.config.seed)
    theirs = their_trainer(
        trainer_of(name), one, tiny_policy(tiny_model, head=head), tokenizer, texts, tmp_path / "t"
    )
    assert_same_training(ours, theirs)


@pytest.mark.parametrize("name", NAMES)
def test_the_loss_and_its_gradients_are_the_trainers(
    name: str, tokenizer: Any, tiny_model: Path, tmp_path: Path
) -> None:
    one = method(name, **MAX_STEPS)
    made = tiny_policy(tiny_model, head=name == "reward")
    rows = encoded(one, tokenizer, examples(judged=name == "kto"))
    trainer = our_trainer(one, made, tokenizer, rows, tmp_path)
    with torch.no_grad():
        for parameter_name, parameter in made.named_parameters():
            if "lora_B" in parameter_name:
                parameter.add_(0.05)
    batch = trainer.data_collator(list(trainer.train_dataset))
    made.train()

    def gradients(loss: torch.Tensor) -> tuple[float, list[torch.Tensor]]:
        trained = [p for p in made.parameters() if p.requires_grad]
        return float(loss.detach()), list(torch.autograd.grad(loss, trained))

    ours = gradients(one.loss()(made, batch))
    theirs = gradients(trainer.compute_loss(made, dict(batch)))
    assert ours[0] == pytest.approx(theirs[0], rel=1e-6)
    for our_gradient, gradient in zip(ours[1], theirs[1], strict=True):
        torch.testing.assert_close(our_gradient, gradient, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("name", NAMES)
def test_a_batch_is_planned_as_trls_collator_makes_it(
    name: str, tokenizer: Any, tiny_model: Path, tmp_path: Path
) -> None:
    one = method(name, **MAX_STEPS)
    rows = encoded(one, tokenizer, examples(judged=name == "kto"))
    trainer = our_trainer(
        one, tiny_policy(tiny_model, head=name == "reward"), tokenizer, rows, tmp_path
    )
    chosen = list(trainer.train_dataset)[:2]
    batch = trainer.data_collator(chosen)
    batch.pop("attention_mask")  # the planner adds it
    length = max(one.lengths(trainer.train_dataset.select([0, 1])))
    planned = one.columns(Point(2, length))
    assert planned.keys() == batch.keys()
    for column, values in batch.items():
        fits = [ours >= theirs for ours, theirs in zip(planned[column], values.shape, strict=True)]
        assert all(fits), column
    assert planned["input_ids"][0] == batch["input_ids"].shape[0]


@pytest.mark.parametrize("name", ["dpo", "kto"])
def test_what_is_counted_and_cut_is_what_trls_collator_leaves(
    name: str, tokenizer: Any, tiny_model: Path, tmp_path: Path
) -> None:
    short = method(name, **{**MAX_STEPS, "max_length": 36})
    made = examples(judged=name == "kto")
    rows = [row for rows in short.encode(made, tokenizer) for row in rows]
    counts = [short.count({key: np.asarray(ids) for key, ids in row.items()}) for row in rows]
    trainer = our_trainer(
        short, tiny_policy(tiny_model), tokenizer, encoded(short, tokenizer, made), tmp_path
    )
    batches = [trainer.data_collator([row]) for row in rows]
    assert [c.num_tokens for c in counts] == [int(b["attention_mask"].sum()) for b in batches]
    assert [c.num_trained for c in counts] == [int(b["completion_mask"].sum()) for b in batches]
    assert any(c.is_cut for c in counts) and not all(c.is_cut for c in counts)
    for row in trainer.train_dataset:
        length = int(trainer.data_collator([row])["attention_mask"].shape[1])
        assert length <= 36
        assert length == max(len(ids) for ids, _ in short.sequences(row))


def test_a_prompt_that_fills_its_row_leaves_nothing_to_train(tokenizer: Any) -> None:
    full = method("dpo", max_length=4)
    (row,) = full.encode(examples()[:1], tokenizer)[0]
    counted = full.count({name: np.array(ids) for name, ids in row.items()})
    assert counted.num_trained == 0
    assert counted.needed == len(row["prompt_ids"]) + 1


@pytest.mark.parametrize("name", NAMES)
def test_a_pair_of_equal_answers_is_refused_and_the_others_stay(name: str, tokenizer: Any) -> None:
    said = ({"role": "assistant", "content": "yes"},)
    same = Preference(({"role": "user", "content": "say yes"},), said, said)
    first, second = method(name).encode([same, *examples()[:1]], tokenizer)
    assert isinstance(first, DataError) and "both answers are the same" in first.message
    assert isinstance(second, list)


def test_without_a_chat_template_no_row_is_encoded() -> None:
    with pytest.raises(TemplateError, match="no chat template"):
        method("dpo").encode(examples(), SimpleNamespace(chat_template=None))


def test_dropout_is_off_as_trl_has_it(tokenizer: Any, tiny_model: Path, tmp_path: Path) -> None:
    one = method("dpo", **MAX_STEPS)
    ours, theirs = (tiny_policy(tiny_model, dropout=0.5) for _ in range(2))
    one.prepare_model(ours)
    our_trainer(one, theirs, tokenizer, encoded(one, tokenizer, examples()), tmp_path)
    rates = [
        [module.p for module in model.modules() if isinstance(module, torch.nn.Dropout)]
        for model in (ours, theirs)
    ]
    assert rates[0] == rates[1] and set(rates[0]) == {0.0}


@pytest.mark.parametrize("name", ["dpo", "kto"])
@pytest.mark.parametrize(
    ("options", "refusal"),
    [
        ({"moved": True}, "changes the model before its first step"),
        ({"adapted": False}, "without an adapter there is no reference"),
    ],
)
def test_what_is_not_the_base_needs_its_reference_before(
    name: str, options: dict[str, Any], refusal: str, *, tokenizer: Any, tiny_model: Path,
    tmp_path: Path,
) -> None:  # fmt: skip
    one = method(name, **MAX_STEPS)
    rows = encoded(one, tokenizer, examples(judged=name == "kto"))
    with pytest.raises(UsageError, match=refusal) as caught:
        our_trainer(one, tiny_policy(tiny_model, **options), tokenizer, rows, tmp_path)
    assert "precompute_ref_log_probs" in str(caught.value.hint)
    known = method(name, **MAX_STEPS, precompute_ref_log_probs=True)
    trainer = our_trainer(known, tiny_policy(tiny_model, **options), tokenizer, rows, tmp_path)
    batch = trainer.data_collator(list(trainer.train_dataset))
    start = {"dpo": 0.693147, "kto": 0.5}[name]
    found = known.loss()(trainer.model, batch).detach()
    assert float(found) == pytest.approx(start, abs=1e-5)


def test_what_trl_refuses_is_a_usage_error(
    tokenizer: Any, tiny_model: Path, tmp_path: Path
) -> None:
    one = method("dpo", loss_type=["exo_pair"])
    rows = encoded(one, tokenizer, examples())
    with pytest.raises(UsageError, match="trl refuses these options"):
        our_trainer(one, tiny_policy(tiny_model), tokenizer, rows, tmp_path)


@pytest.mark.parametrize("name", NAMES)
def test_a_resumed_run_is_the_one_that_was_never_stopped(
    name: str, tmp_path: Path, tiny_model: Path
) -> None:
    rows = write_rows(tmp_path / "rows.jsonl", judged=name == "kto")
    recipe = write_recipe(tmp_path / "r.json", name, tiny_model, rows, max_steps=4, save_steps=2)
    whole = train(recipe, tmp_path / "whole", "evaluate=false")
    expected = sha256(whole)
    assert losses(whole)[-1] < losses(whole)[0]
    assert not list((whole.checkpoints / "step-2").glob("*/adapter_model.safetensors"))
    cut_back(whole, step=2)
    assert sha256(train(recipe, tmp_path / "whole", "evaluate=false")) == expected


def test_log_probabilities_are_those_of_the_logits(tokenizer: Any, tiny_model: Path) -> None:
    from trl.trainer.utils import add_fused_lm_head

    model = tiny_policy(tiny_model, moved=True).eval()
    add_fused_lm_head(model.get_base_model(), outputs=("log_probs", "entropy", "mean_logits"))
    (row,) = method("dpo").encode(examples()[:1], tokenizer)[0]
    ids = torch.tensor([row["prompt_ids"] + row["chosen_ids"]])
    mask = torch.tensor([[0] * len(row["prompt_ids"]) + [1] * len(row["chosen_ids"])])
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "completion_mask": mask}
    with torch.no_grad():
        found = log_probabilities(model, batch)
        scores = model(ids).logits.double().log_softmax(-1)[0, :-1]
    picked = scores.gather(1, ids[0, 1:, None])[:, 0]
    assert float(found) == pytest.approx(float(picked[mask[0, 1:] == 1].sum()), rel=1e-5)
