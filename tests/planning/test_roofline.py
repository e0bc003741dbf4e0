"""The roofline: seconds from work by formula, and where its limits are."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from plan_fixture import linear_plan

from peftkit.memory.planner import Work, plan
from peftkit.planning import devices, roofline
from peftkit.recipe.load import load_recipe

H200 = devices.find("h200")
COMPUTE, MEMORY = 989.4e12 * 0.80, 4.8e12 * 0.90


def plan_with(work: dict[str, Work], **options: int):
    plan = linear_plan(fixed=0, per_token=1, **options)
    object.__setattr__(plan, "work", work)
    return plan


def test_compute_bound_seconds_are_flops_over_the_achievable_peak() -> None:
    plan = plan_with({"forward": Work(10**15, 0, 1)}, length=4096)
    speed = roofline.predict(plan, H200, dtype="bfloat16")
    assert speed is not None
    assert speed.seconds_per_step == pytest.approx(1e15 / COMPUTE)
    assert speed.tokens_per_second == pytest.approx(4096 / (1e15 / COMPUTE))
    assert speed.bound == "matrix products"


def test_memory_bound_and_launch_bound() -> None:
    moving = roofline.predict(plan_with({"forward": Work(0, 10**12, 1)}), H200, dtype="bfloat16")
    launching = roofline.predict(plan_with({"forward": Work(0, 0, 10**6)}), H200, dtype="bfloat16")
    assert moving is not None and launching is not None
    assert moving.seconds_per_step == pytest.approx(1e12 / MEMORY)
    assert moving.bound == "memory traffic"
    assert launching.seconds_per_step == pytest.approx(1e6 * roofline.SECONDS_PER_OPERATOR)
    assert launching.bound == "launches"


def test_copies_to_the_host_are_added_in_full() -> None:
    work = {"forward": Work(10**15, 0, 1, copied_bytes=10**12)}
    speed = roofline.predict(plan_with(work), H200, dtype="bfloat16")
    assert speed is not None
    assert speed.seconds_per_step == pytest.approx(1e15 / COMPUTE + 1e12 / (64e9 * 0.80))
    assert speed.bound == "host copies"


def test_launches_hide_behind_the_device() -> None:
    alone = roofline.predict(plan_with({"forward": Work(10**15, 0, 1)}), H200, dtype="bfloat16")
    busy = roofline.predict(plan_with({"forward": Work(10**15, 0, 1000)}), H200, dtype="bfloat16")
    assert alone is not None and busy is not None
    assert busy.seconds_per_step == alone.seconds_per_step


def test_the_optimizer_runs_once_a_step_and_evaluation_never() -> None:
    work = {
        "forward": Work(10**15, 0, 0),
        "step": Work(0, 10**12, 0),
        "evaluate": Work(10**18, 0, 0),
        "load": Work(10**18, 0, 0),
    }
    speed = roofline.predict(plan_with(work, accumulation=8), H200, dtype="bfloat16")
    assert speed is not None
    assert speed.seconds_per_step == pytest.approx(8 * 1e15 / COMPUTE + 1e12 / MEMORY)
    assert set(speed.phase_seconds) == {"forward", "step"}


@given(rows=st.sampled_from([1, 2, 4, 8, 16]))
def test_the_same_rows_in_smaller_pieces_are_never_faster(rows: int) -> None:
    plan = linear_plan(fixed=0, per_token=1, rows=16, flops=10**13, operators=5000)
    whole = roofline.predict(plan, H200, dtype="bfloat16")
    pieces = roofline.predict(
        plan, H200, dtype="bfloat16", micro_batch=rows, accumulation=16 // rows
    )
    assert whole is not None and pieces is not None
    assert pieces.seconds_per_step >= whole.seconds_per_step * (1 - 1e-9)
    assert pieces.tokens_per_second <= whole.tokens_per_second * (1 + 1e-9)


@given(flops=st.integers(0, 10**16), moved=st.integers(0, 10**13), operators=st.integers(1, 10**5))
def test_a_faster_card_is_never_slower(flops: int, moved: int, operators: int) -> None:
    plan = plan_with({"forward": Work(flops, moved, operators)})
    slow = roofline.predict(plan, devices.find("a100"), dtype="bfloat16")
    fast = roofline.predict(plan, H200, dtype="bfloat16")
    assert slow is not None and fast is not None
    assert fast.seconds_per_step <= slow.seconds_per_step * (1 + 1e-12)


def test_a_mere_size_has_no_speed() -> None:
    assert (
        roofline.predict(linear_plan(fixed=0, per_token=1), devices.of_size(24), dtype="bfloat16")
        is None
    )


def test_padding_takes_time_and_is_no_token() -> None:
    work = {"flops": 10**15, "moved": 0, "operators": 0, "rows": 4, "length": 1000}
    full = linear_plan(fixed=0, per_token=1, **work)
    padded = linear_plan(fixed=0, per_token=1, num_tokens=1000, padded_tokens=2000, **work)
    slow = roofline.predict(full, H200, dtype="bfloat16")
    fast = roofline.predict(padded, H200, dtype="bfloat16", micro_batch=8)
    assert slow is not None and fast is not None
    # Twice the rows, half of each, and half of that is padding.
    assert fast.seconds_per_step == pytest.approx(slow.seconds_per_step, rel=1e-3)
    assert fast.tokens_per_second == pytest.approx(slow.tokens_per_second / 2, rel=1e-3)
    assert fast.to_json()["basis"] == "predicted"


RECORDED = """\
model: {path: meta-llama/Llama-3.2-3B, dtype: bfloat16}
data:
  source: {embedded: {name: docstring-summaries}}
  task: {summarize: {document: document, summary: summary}}
adapter:
  lora: {r: 32, target_modules: [q_proj, v_proj]}
method:
  sft: {bf16: false, per_device_train_batch_size: 4, activation_checkpointing: false}
"""


@pytest.mark.slow
def test_a_recorded_run_is_predicted_within_a_sixth(tmp_path: Path) -> None:
    """PEFT's own comparison of methods: 7,174 tokens/s on an L40S.

    Source: huggingface/peft, `method_comparison/MetaMathQA`: LoRA r32 on Llama-3.2-3B, batches of
    4 rows sorted by length, 4,198,051 tokens in 20,000 rows, float32 adapters, no autocast.
    """
    file = tmp_path / "recorded.yaml"
    file.write_text(RECORDED, encoding="utf-8")
    device = devices.find("l40s")
    made = plan(load_recipe(file), lengths=[210] * 4, machine=device.as_machine())
    speed = roofline.predict(made, device, dtype="bfloat16")
    assert speed is not None
    assert speed.tokens_per_second == pytest.approx(7174, rel=1 / 6)


def test_what_is_fixed_does_not_shrink_with_the_rows_and_attention_does_by_their_square() -> None:
    work = Work(7 * 10**15, 0, 0, attention_flops=4 * 10**15, fixed_flops=10**15)
    options = {"rows": 4, "length": 1000, "num_tokens": 2000, "padded_tokens": 2000}
    speed = roofline.predict(plan_with({"forward": work}, **options), H200, dtype="bfloat16")
    assert speed is not None
    assert speed.seconds_per_step == pytest.approx((1 + 2 / 2 + 4 / 4) * 1e15 / COMPUTE)


def test_the_positions_of_prompt_learning_take_time() -> None:
    plan = plan_with({"forward": Work(10**15, 0, 0)}, rows=4, num_tokens=2000, padded_tokens=2000)
    object.__setattr__(plan, "num_virtual", 500)
    speed = roofline.predict(plan, H200, dtype="bfloat16")
    assert speed is not None
    mean, longest = 500 + 500, plan.length + 500
    assert speed.seconds_per_step == pytest.approx(mean / longest * 1e15 / COMPUTE)
