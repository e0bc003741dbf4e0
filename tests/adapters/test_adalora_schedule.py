"""AdaLoRA's penalty is PEFT's own, and its ranks really move."""

from __future__ import annotations

import pytest
import torch

from peftkit.adapters.adalora_schedule import orthogonality, rank_schedule
from peftkit.adapters.peft_types import AdaLora
from peftkit.errors import UsageError

IDS = torch.arange(10, 26).unsqueeze(0)


@pytest.fixture
def attached(tiny_model):
    from peft import AdaLoraConfig
    from transformers import AutoModelForCausalLM

    torch.manual_seed(0)
    config = AdaLoraConfig(
        total_step=6, tinit=1, tfinal=2, deltaT=1, init_r=6, target_r=2, target_modules=["q_proj"]
    )
    return AdaLora(config).attach(AutoModelForCausalLM.from_pretrained(tiny_model))


def test_penalty_is_what_peft_adds_to_the_loss(attached) -> None:
    labels = IDS.clone()
    with_penalty = attached(input_ids=IDS, labels=labels).loss
    without = attached.base_model.model(input_ids=IDS, labels=labels).loss
    torch.testing.assert_close(orthogonality(attached), with_penalty - without, rtol=0, atol=1e-6)


def test_ranks_shrink_to_the_budget(attached) -> None:
    from transformers import TrainerControl, TrainerState, TrainingArguments

    schedule, state, control = rank_schedule(), TrainerState(), TrainerControl()
    parameters = [p for p in attached.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=1e-2)
    for step in range(6):
        state.global_step = step
        optimizer.zero_grad()
        attached.base_model.model(input_ids=IDS, labels=IDS.clone()).loss.backward()
        before = [p.grad.clone() for p in parameters]
        schedule.on_pre_optimizer_step(None, state, control, model=attached)
        assert any(not torch.equal(p.grad, g) for p, g in zip(parameters, before, strict=True))
        optimizer.step()
        schedule.on_optimizer_step(None, state, control, model=attached)
        # A checkpoint would drop the masked ranks otherwise, which a later step may take up again.
        assert attached.peft_config["default"].rank_pattern is None
    schedule.on_train_end(TrainingArguments(use_cpu=True), state, control, model=attached)
    pattern = attached.peft_config["default"].rank_pattern
    assert sum(sum(kept) for kept in pattern.values()) == 2 * len(pattern)


def test_a_schedule_that_the_run_would_break_off_is_refused(attached) -> None:
    from transformers import TrainerState

    with pytest.raises(UsageError) as caught:
        rank_schedule().on_train_begin(None, TrainerState(max_steps=4), None, model=attached)
    assert caught.value.message.startswith("adapter.adalora.total_step: 6, but this run takes 4")
    assert caught.value.hint == "adapter.adalora.total_step=4"
