"""What happens between the trainer's steps: watched, stopped at numbers that are none, sealed."""

from __future__ import annotations

import io
import json
import math
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from transformers import TrainerControl, TrainerState, TrainingArguments

from peftkit.callbacks import Finite, Keeper, Watch
from peftkit.errors import DivergedError, ResourceError
from peftkit.memory.measure import MemoryMeter
from peftkit.progress import MetricsFile, Screen, TrainingBar
from peftkit.recipe.load import load_recipe
from peftkit.recipe.schema import Recipe
from peftkit.resume import MANIFEST, find_checkpoint
from peftkit.run_dir import RunDir
from peftkit.run_state import Ledger, read_status
from peftkit.stop import StopRequest


@pytest.fixture
def arguments(tmp_path: Path) -> TrainingArguments:
    return TrainingArguments(
        output_dir=str(tmp_path / "checkpoints"), use_cpu=True, learning_rate=0.5, max_grad_norm=1.0
    )


@pytest.fixture
def recipe(tiny_recipe: Path) -> Recipe:
    return load_recipe(tiny_recipe)


def _state(step: int, *, total: int = 10, epoch: float = 0.5, **fields: Any) -> TrainerState:
    return TrainerState(global_step=step, max_steps=total, epoch=epoch, **fields)


def _watch(
    metrics: MetricsFile, *, budget_bytes: int | None = None, seconds_before: float = 0.0
) -> Watch:
    bar = TrainingBar(Screen(Console(file=io.StringIO())))
    meter = MemoryMeter("cpu")
    return Watch(bar, metrics, meter, budget_bytes=budget_bytes, seconds_before=seconds_before)


def test_a_logged_step_is_kept_with_our_own_readings(
    tmp_path: Path, arguments: TrainingArguments, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 100.0
    with MetricsFile(tmp_path / "metrics.jsonl").opened() as metrics:
        watch = _watch(metrics, seconds_before=50.0)
        control = TrainerControl()
        monkeypatch.setattr("peftkit.callbacks.time.monotonic", lambda: now)
        watch.on_train_begin(arguments, _state(0, num_input_tokens_seen=1000), control)
        now = 102.0
        logs = {"loss": 2.5, "learning_rate": 1e-3, "grad_norm": math.inf, "total_flos": 3}
        watch.on_log(arguments, _state(1, num_input_tokens_seen=1600), control, logs)
        watch.on_log(arguments, _state(2, num_input_tokens_seen=1600), control, {"eval_loss": 1.5})
        watch.on_log(arguments, _state(2), control, {"train_runtime": 3.0})
    step, evaluation = map(json.loads, (tmp_path / "metrics.jsonl").read_text().splitlines())
    assert step["tokens_per_second"] == 300.0  # 600 tokens in 2 seconds
    assert step["seconds"] == 52.0  # with those of the process before
    assert (step["loss"], step["grad_norm"], step["num_tokens"]) == (2.5, None, 1600)
    assert step["peak_bytes"] > 0
    assert "total_flos" not in step
    assert evaluation == {"step": 2, "eval_loss": 1.5}


def test_a_step_above_the_budget_ends_the_training(
    tmp_path: Path, arguments: TrainingArguments
) -> None:
    with MetricsFile(tmp_path / "metrics.jsonl").opened() as metrics:
        control = TrainerControl()
        generous = _watch(metrics, budget_bytes=1 << 50)
        generous.on_train_begin(arguments, _state(0), control)
        generous.on_step_end(arguments, _state(1), control)
        tight = _watch(metrics, budget_bytes=-1)
        tight.on_train_begin(arguments, _state(0), control)
        with pytest.raises(ResourceError, match=r"step 1 took .* above memory\.budget"):
            tight.on_step_end(arguments, _state(1), control)


@pytest.mark.parametrize("gradient", [math.nan, math.inf, -math.inf, 3e38])
def test_no_step_is_taken_on_a_gradient_that_is_no_number(
    tmp_path: Path, arguments: TrainingArguments, recipe: Recipe, gradient: float
) -> None:
    model = torch.nn.Linear(2, 2)
    for weight in model.parameters():
        weight.grad = torch.ones_like(weight)
    finite = Finite(recipe, tmp_path / "checkpoints")
    finite.on_pre_optimizer_step(arguments, _state(6), TrainerControl(), model=model)
    model.weight.grad[0, 0] = gradient
    with pytest.raises(DivergedError) as caught:
        finite.on_pre_optimizer_step(arguments, _state(6), TrainerControl(), model=model)
    assert "step 7: the gradient is not a finite number, so the step was not taken" in str(
        caught.value
    )
    assert caught.value.hint.startswith("method.sft.learning_rate=0.0002 ")


def test_fp16_leaves_overflowing_gradients_to_its_loss_scaler(
    tmp_path: Path, arguments: TrainingArguments, recipe: Recipe
) -> None:
    model = torch.nn.Linear(2, 2)
    model.weight.grad = torch.full_like(model.weight, math.inf)
    arguments.fp16 = True
    finite = Finite(recipe, tmp_path)
    finite.on_pre_optimizer_step(arguments, _state(6), TrainerControl(), model=model)


def test_a_logged_loss_that_is_no_number_ends_the_training(
    tmp_path: Path, arguments: TrainingArguments, recipe: Recipe
) -> None:
    finite = Finite(recipe, tmp_path)
    finite.on_log(arguments, _state(3), TrainerControl(), {"loss": 1.0})
    finite.on_log(arguments, _state(3), TrainerControl(), {"eval_loss": math.nan})
    with pytest.raises(DivergedError, match="step 3: the loss is nan"):
        finite.on_log(arguments, _state(3), TrainerControl(), {"loss": math.nan})


@pytest.fixture
def stop() -> StopRequest:
    return StopRequest()


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(RunDir(tmp_path), identity="0f")


def test_a_signal_asks_for_a_checkpoint_and_the_end(
    arguments: TrainingArguments, stop: StopRequest, ledger: Ledger
) -> None:
    keeper, control = Keeper(stop, ledger), TrainerControl()
    keeper.on_step_end(arguments, _state(3), control)
    assert not (control.should_save or control.should_training_stop)
    stop.signal = signal.SIGTERM
    keeper.on_step_end(arguments, _state(4), control)
    assert control.should_save
    assert control.should_log
    assert control.should_training_stop
    # Leaving the loop amid an epoch, transformers asks for what an epoch's end brings.
    control.should_evaluate = True
    keeper.on_epoch_end(arguments, _state(4), control)
    assert not (control.should_evaluate or control.should_save)


@pytest.mark.parametrize("is_stopped", [False, True])
def test_an_epoch_s_last_checkpoint_waits_for_the_epoch_s_evaluation(
    arguments: TrainingArguments, stop: StopRequest, ledger: Ledger, is_stopped: bool
) -> None:
    stop.signal = signal.SIGTERM if is_stopped else None
    keeper, control = Keeper(stop, ledger), TrainerControl(should_save=True)
    keeper.on_step_end(arguments, _state(5, epoch=1.0), control)
    assert not control.should_save
    keeper.on_epoch_end(arguments, _state(5, epoch=1.0), control)
    assert control.should_save
    # Paid once.
    control.should_save = False
    stop.signal = None
    keeper.on_epoch_end(arguments, _state(10, epoch=2.0), control)
    assert not control.should_save


def test_the_last_step_is_always_logged(
    arguments: TrainingArguments, stop: StopRequest, ledger: Ledger
) -> None:
    control = TrainerControl()
    Keeper(stop, ledger).on_step_end(arguments, _state(10), control)
    assert control.should_log


def test_a_saved_folder_becomes_a_sealed_checkpoint_and_old_ones_go(
    arguments: TrainingArguments, stop: StopRequest, ledger: Ledger
) -> None:
    arguments.save_total_limit = 2
    checkpoints = Path(arguments.output_dir)
    keeper = Keeper(stop, ledger)
    for step in (1, 2, 3):
        folder = checkpoints / f"checkpoint-{step}"
        folder.mkdir(parents=True)
        (folder / "weights").write_text(str(step))
        (folder / "training_args.bin").write_text("a pickle")
        keeper.on_save(arguments, _state(step), TrainerControl())
    assert sorted(path.name for path in checkpoints.iterdir()) == ["step-2", "step-3"]
    found, notes = find_checkpoint(checkpoints, identity="0f")
    assert found is not None
    assert (found.step, notes) == (3, [])
    assert {path.name for path in found.path.iterdir()} == {"weights", MANIFEST}
    assert stop.consequence == "the same command resumes at step 3"
    status = read_status(RunDir(checkpoints.parent))
    assert (status["state"], status["step"], status["total_steps"]) == ("running", 3, 10)


def test_the_best_checkpoint_outlives_newer_ones(
    arguments: TrainingArguments, stop: StopRequest, ledger: Ledger
) -> None:
    arguments.save_total_limit = 1
    checkpoints = Path(arguments.output_dir)
    state = _state(1)
    for step in (1, 2, 3):
        folder = checkpoints / f"checkpoint-{step}"
        folder.mkdir(parents=True)
        state.global_step = step
        if step == 1:
            state.best_model_checkpoint = str(folder)
        state.save_to_json(str(folder / "trainer_state.json"))
        Keeper(stop, ledger).on_save(arguments, state, TrainerControl())
    assert sorted(path.name for path in checkpoints.iterdir()) == ["step-1", "step-3"]
    kept = json.loads((checkpoints / "step-1" / "trainer_state.json").read_text())
    assert kept["best_model_checkpoint"] == str(checkpoints / "step-1")
