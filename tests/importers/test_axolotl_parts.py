"""What axolotl says by several keys together."""

from __future__ import annotations

import pytest
from imported import imported, recipe_of

BASE = "base_model: a/b\nadapter: lora\nmicro_batch_size: 2\nsequence_len: 64\nval_set_size: 0.1\n"
ROWS = "datasets: [{path: a.jsonl, type: chat_template}]\n"


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ("warmup_ratio: 0.1", {"warmup_steps": 0.1}),
        ("warmup_ratio: 0.1\nwarmup_steps: 20", {"warmup_steps": 20}),
        ("batch_size: 16", {"gradient_accumulation_steps": 8}),
        ("cosine_min_lr_ratio: 0.1", {"lr_scheduler_type": "cosine_with_min_lr",
                                      "lr_scheduler_kwargs": {"min_lr_rate": 0.1}}),
        ("eval_steps: 50", {"eval_strategy": "steps", "eval_steps": 50}),
        ("evaluation_strategy: epoch", {"eval_strategy": "epoch"}),
        ("group_by_length: true", {"train_sampling_strategy": "group_by_length"}),
        ("wandb_project: mine", {"report_to": "wandb"}),
        ("optim_args: {betas: 0.9}", {"optim_args": "betas=0.9"}),
    ],
)  # fmt: skip
def test_keys_that_belong_together(tmp_path, lines, said):
    sft = recipe_of(imported(tmp_path, BASE + ROWS + lines + "\n"))["method"]["sft"]
    assert said.items() <= sft.items()


def test_an_adapter_that_goes_on_says_its_own_options(tmp_path):
    recipe = recipe_of(imported(tmp_path, BASE + ROWS + "lora_model_dir: ./first\nlora_r: 8\n"))
    assert recipe["adapter"] == {"from": "./first"}


def test_a_bound_on_the_loss_and_parameters_by_pattern(tmp_path):
    text = BASE + ROWS + "loss_watchdog_threshold: 5.0\nloss_watchdog_patience: 3\n"
    assert recipe_of(imported(tmp_path, text))["stop_above"] == {"loss": 5.0, "steps": 3}
    part = text.replace("adapter: lora", "unfrozen_parameters: ['layers.1.']")
    assert recipe_of(imported(tmp_path, part))["adapter"] == {"full": {"train": ["layers.1."]}}


def test_patience_without_rows_to_watch_is_dropped(tmp_path):
    text = BASE + ROWS + "early_stopping_patience: 3\neval_steps: 5\n"
    assert recipe_of(imported(tmp_path, text))["early_stopping"] == {"patience": 3}
    unseen = text.replace("val_set_size: 0.1\n", "")
    assert "early_stopping" not in recipe_of(imported(tmp_path, unseen))
