"""A step is plain trl's: the same loss, the same gradients, from the same rows."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from datasets import Dataset
from pairs import PAIRS, examples, method, move
from peftkit_preferences.dpo import DPO, PreferenceEvaluator

from peftkit.errors import UsageError
from peftkit.plugins import Training

BETA = 0.3


def parts(tokenizer: Any, model: Any, folder: Path, one: DPO) -> Training:
    """Return what a run gives the method."""
    rows = [row for rows in one.encode(examples(), tokenizer) for row in rows]
    return Training(model, tokenizer, Dataset.from_list(rows), None, (), folder)


def plain_trainer(tokenizer: Any, model: Any, **options: Any) -> Any:
    """Make trl's own trainer of the same texts, as its documentation says."""
    from trl import DPOConfig, DPOTrainer

    texts = Dataset.from_list([
        {
            "prompt": [{"role": "user", "content": prompt}],
            "chosen": [{"role": "assistant", "content": chosen}],
            "rejected": [{"role": "assistant", "content": rejected}],
        }
        for prompt, chosen, rejected in PAIRS
    ])  # fmt: skip
    quiet = {"use_cpu": True, "bf16": False, "report_to": "none", "gradient_checkpointing": False}
    args = DPOConfig(output_dir="unused", beta=BETA, **quiet, **options)
    return DPOTrainer(model, args=args, train_dataset=texts, processing_class=tokenizer)


def gradients(model: Any) -> dict[str, torch.Tensor]:
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"loss_type": ["hinge"]},
        {"loss_type": ["ipo"]},
        {"loss_type": ["sigmoid", "ipo"], "loss_weights": [0.7, 0.2]},
        {"precompute_ref_log_probs": True},
    ],
    ids=["sigmoid", "hinge", "ipo", "both", "precomputed"],
)
def test_loss_and_gradients_are_plain_trls(
    tokenizer: Any, make_model: Any, tmp_path: Path, options: dict[str, Any]
) -> None:
    theirs = plain_trainer(tokenizer, make_model(), **options)
    batch = theirs.data_collator(list(theirs.train_dataset))
    move(theirs.model)
    expected = theirs.compute_loss(theirs.model, dict(batch))
    expected.backward()

    one = method(beta=BETA, **options)
    given = parts(tokenizer, make_model(), tmp_path, one)
    trainer = one.trainer(given)
    own = trainer.data_collator(list(trainer.train_dataset))
    assert own.keys() == batch.keys()
    assert all(torch.equal(own[name], batch[name]) for name in batch)
    assert list(given.model.peft_config) == ["default"]
    move(given.model)
    loss = one.loss()(given.model, own)
    loss.backward()
    assert float(loss) == pytest.approx(float(expected), rel=1e-5)
    wanted, found = gradients(theirs.model), gradients(given.model)
    assert len(found) == 28 and found.keys() == wanted.keys()
    for name, gradient in found.items():
        torch.testing.assert_close(gradient, wanted[name], rtol=1e-5, atol=1e-7)
    # And what really trains is trl's trainer, which finds the same.
    assert float(trainer.compute_loss(given.model, dict(own))) == pytest.approx(
        float(loss), rel=1e-5
    )


def test_the_first_loss_is_that_of_a_coin(tokenizer: Any, make_model: Any, tmp_path: Path) -> None:
    one = method()
    trainer = one.trainer(parts(tokenizer, make_model(), tmp_path, one))
    batch = trainer.data_collator(list(trainer.train_dataset))
    assert float(one.loss()(trainer.model, batch)) == pytest.approx(0.693147, abs=1e-6)


@pytest.mark.parametrize(
    "options",
    [{"loss_type": ["robust"]}, {"ld_alpha": 0.5}, {"use_weighting": True},
     {"f_divergence_type": "js_divergence"}],
)  # fmt: skip
def test_variants_that_are_not_written_here_are_left_to_trl(options: dict[str, Any]) -> None:
    assert method(**options).loss() is None


def test_dropout_is_off_as_trl_has_it(tokenizer: Any, make_model: Any, tmp_path: Path) -> None:
    one = method()
    ours, theirs = (make_model(dropout=0.5) for _ in range(2))
    one.prepare_model(ours)
    one.trainer(parts(tokenizer, theirs, tmp_path, one))
    rates = [
        [module.p for module in model.modules() if isinstance(module, torch.nn.Dropout)]
        for model in (ours, theirs)
    ]
    assert rates[0] == rates[1] and set(rates[0]) == {0.0}


def test_an_adapter_that_is_not_the_base_needs_its_reference_before(
    tokenizer: Any, make_model: Any, tmp_path: Path
) -> None:
    one = method()
    with pytest.raises(UsageError, match="changes the model before its first step") as caught:
        one.trainer(parts(tokenizer, make_model(moved=True), tmp_path, one))
    assert "precompute_ref_log_probs" in str(caught.value.hint)
    known = method(precompute_ref_log_probs=True)
    given = parts(tokenizer, make_model(moved=True), tmp_path, known)
    trainer = known.trainer(given)
    batch = trainer.data_collator(list(trainer.train_dataset))
    assert float(known.loss()(given.model, batch)) == pytest.approx(0.693147, abs=1e-5)


def test_without_an_adapter_too(tokenizer: Any, make_model: Any, tmp_path: Path) -> None:
    one = method()
    with pytest.raises(UsageError, match="without an adapter there is no reference"):
        one.trainer(parts(tokenizer, make_model(adapted=False), tmp_path, one))
    known = method(precompute_ref_log_probs=True)
    trainer = known.trainer(parts(tokenizer, make_model(adapted=False), tmp_path, known))
    batch = trainer.data_collator(list(trainer.train_dataset))
    assert float(known.loss()(trainer.model, batch)) == pytest.approx(0.693147, abs=1e-5)


def test_what_trl_refuses_is_a_usage_error(tokenizer: Any, make_model: Any, tmp_path: Path) -> None:
    one = method(loss_type=["exo_pair"])
    with pytest.raises(UsageError, match=r"trl's DPOTrainer refuses method\.dpo"):
        one.trainer(parts(tokenizer, make_model(), tmp_path, one))


def test_answers_are_compared_by_the_log_probabilities_of_their_tokens(
    tokenizer: Any, make_model: Any
) -> None:
    model, one = make_model(moved=True), method()
    rows = one.encode(examples(), tokenizer)
    scoring: Any = SimpleNamespace(rows=rows, task=SimpleNamespace(headline=""), say=lambda _: None)
    evaluator = PreferenceEvaluator(scoring, one)
    found = evaluator.take(model, "tuned")

    margins = []
    for (row,) in rows:
        sums = []
        for name in ("chosen_ids", "rejected_ids"):
            ids = torch.tensor([row["prompt_ids"] + row[name]])
            with torch.no_grad():
                scores = model.eval()(ids).logits.double().log_softmax(-1)[0, :-1]
            picked = scores.gather(1, ids[0, 1:, None])[:, 0]
            sums.append(float(picked[len(row["prompt_ids"]) - 1 :].sum()))
        margins.append(sums[0] - sums[1])
    assert found.margins == pytest.approx(margins, rel=1e-5)
    assert found.metrics["margin"] == pytest.approx(sum(margins) / 4, rel=1e-5)
    assert found.metrics["accuracy"] == sum(margin > 0 for margin in margins) / 4
    assert evaluator.row_scores(found) == [float(margin > 0) for margin in margins]
    assert evaluator.headline == "accuracy"
