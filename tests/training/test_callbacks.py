"""Between two steps: numbers that are none, checkpoints that are owed, and what is kept."""

from __future__ import annotations

import io
import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from transformers import TrainerControl, TrainerState, TrainingArguments

from peftkit.errors import DivergedError, ResourceError
from peftkit.rundir.checkpoints import Checkpoint
from peftkit.rundir.paths import RunDir
from peftkit.rundir.status import RunStatus, read_status
from peftkit.system.meter import Peak
from peftkit.system.screen import MetricsFile, Screen, TrainingBar
from peftkit.system.signals import StopRequest
from peftkit.training.callbacks import Ceiling, Finite, Keeper, Watch


@pytest.fixture
def args(tmp_path: Path) -> TrainingArguments:
    return TrainingArguments(
        output_dir=str(tmp_path / "checkpoints"), use_cpu=True, learning_rate=1e-2,
        save_total_limit=2, report_to="none",
    )  # fmt: skip


def model_with(*gradients: float) -> torch.nn.Module:
    model = torch.nn.Linear(1, 1)
    for parameter, value in zip(model.parameters(), gradients, strict=True):
        parameter.grad = torch.full_like(parameter, value)
    return model


# -- Finite -------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_gradient_that_is_no_number_stops_before_the_step(
    args: TrainingArguments, tmp_path: Path, value: float
) -> None:
    finite = Finite("sft", RunDir(tmp_path))
    with pytest.raises(DivergedError) as caught:
        finite.on_pre_optimizer_step(
            args, TrainerState(global_step=6), TrainerControl(), model=model_with(1.0, value)
        )
    assert caught.value.message == (
        "method.sft.learning_rate: step 7: the gradient is not a finite number, so the step was not"
        " taken (learning_rate 0.01, max_grad_norm 1); no checkpoint was due before it"
    )
    assert caught.value.hint is not None
    assert caught.value.hint.startswith("method.sft.learning_rate=0.0002 and another --out")


def test_numbers_pass_and_fp16_skips_such_steps_itself(
    args: TrainingArguments, tmp_path: Path
) -> None:
    finite, state, control = Finite("sft", RunDir(tmp_path)), TrainerState(), TrainerControl()
    finite.on_pre_optimizer_step(args, state, control, model=model_with(1.0, 1e10))
    args.fp16 = True
    finite.on_pre_optimizer_step(args, state, control, model=model_with(1.0, math.inf))
    finite.on_log(args, state, control, logs={"loss": 3.0})
    finite.on_log(args, state, control, logs={"eval_loss": math.nan})


def test_a_loss_that_is_no_number_names_the_checkpoint_that_is_kept(
    args: TrainingArguments, tmp_path: Path
) -> None:
    run_dir = RunDir(tmp_path)
    (run_dir.checkpoints / "step-4").mkdir(parents=True)
    state = TrainerState(global_step=5)
    with pytest.raises(DivergedError, match=r"step 5: the loss is nan .*step-4 is kept"):
        Finite("sft", run_dir).on_log(args, state, TrainerControl(), logs={"loss": math.nan})


# -- Keeper -------------------------------------------------------------------------------------


class Told(StopRequest):
    """Be a stop that was asked for."""

    def poll(self) -> bool:
        return True


def keeper(tmp_path: Path, stop: StopRequest | None = None) -> Keeper:
    (tmp_path / "run").mkdir(exist_ok=True)
    status = RunStatus(RunDir(tmp_path / "run"), identity="0" * 64)
    return Keeper(stop or StopRequest(), status)


def at(step: int, epoch: float, *, last: int = 10) -> TrainerState:
    return TrainerState(global_step=step, epoch=epoch, max_steps=last)


def wishes(control: TrainerControl) -> dict[str, bool]:
    names = ("should_save", "should_log", "should_evaluate", "should_training_stop")
    return {name: True for name in names if getattr(control, name)}


def test_a_stop_within_an_epoch_saves_at_once(args: TrainingArguments, tmp_path: Path) -> None:
    told, control = keeper(tmp_path, Told()), TrainerControl()
    told.on_step_end(args, at(3, 0.5), control)
    assert wishes(control) == {
        "should_save": True,
        "should_log": True,
        "should_training_stop": True,
    }
    # Trainer still ends the epoch then, and would log and evaluate as if it were over.
    control = TrainerControl(should_log=True, should_evaluate=True, should_save=True)
    told.on_epoch_end(args, at(3, 0.5), control)
    assert wishes(control) == {}


def test_a_checkpoint_due_with_an_epoch_waits_for_its_evaluation(
    args: TrainingArguments, tmp_path: Path
) -> None:
    one, control = keeper(tmp_path), TrainerControl(should_save=True)
    one.on_step_end(args, at(4, 1.0), control)
    assert wishes(control) == {}
    one.on_epoch_end(args, at(4, 1.0), control)
    assert wishes(control) == {"should_save": True}
    control = TrainerControl()
    one.on_epoch_end(args, at(8, 2.0), control)
    assert wishes(control) == {}, "paid once"


def test_a_stop_at_the_end_of_an_epoch_is_owed_a_checkpoint(
    args: TrainingArguments, tmp_path: Path
) -> None:
    told, control = keeper(tmp_path, Told()), TrainerControl()
    told.on_step_end(args, at(4, 1.0), control)
    assert "should_save" not in wishes(control)
    told.on_epoch_end(args, at(4, 1.0), control)
    assert "should_save" in wishes(control)


def test_a_stop_during_an_evaluation_saves_after_it(
    args: TrainingArguments, tmp_path: Path
) -> None:
    control = TrainerControl()
    keeper(tmp_path).on_evaluate(args, at(4, 1.0), control)
    assert wishes(control) == {}
    keeper(tmp_path, Told()).on_evaluate(args, at(4, 1.0), control)
    assert wishes(control) == {"should_save": True, "should_training_stop": True}


def test_the_last_step_is_always_logged(args: TrainingArguments, tmp_path: Path) -> None:
    control = TrainerControl()
    keeper(tmp_path).on_step_end(args, at(10, 0.7), control)
    assert wishes(control) == {"should_log": True}


def test_saving_seals_prunes_and_says_where_the_run_is(
    args: TrainingArguments, tmp_path: Path
) -> None:
    one = keeper(tmp_path)
    checkpoints = Path(str(args.output_dir))
    for step in (2, 4, 6, 8):
        folder = checkpoints / f"checkpoint-{step}"
        folder.mkdir(parents=True)
        (folder / "weights").write_bytes(bytes(step))
        state = at(step, 0.1)
        state.best_model_checkpoint = str(checkpoints / ("checkpoint-2" if step == 2 else "step-2"))
        one.on_save(args, state, TrainerControl())
    # The two newest, and the best, whose place in the state was mended.
    assert sorted(folder.name for folder in checkpoints.iterdir()) == ["step-2", "step-6", "step-8"]
    saved = json.loads((checkpoints / "step-2" / "trainer_state.json").read_text())
    assert saved["best_model_checkpoint"] == str(checkpoints / "step-2")
    status = read_status(RunDir(tmp_path / "run"))
    assert (status["state"], status["step"], status["total_steps"]) == ("running", 8, 10)


# -- Watch --------------------------------------------------------------------------------------


class Meter:
    """Be a meter that reads what it is told."""

    def __init__(self, num_bytes: int, reserved: int | None = None) -> None:
        self._peak = Peak(num_bytes, "device" if reserved else "resident", reserved)

    def start(self) -> None: ...

    def peak(self) -> Peak:
        return self._peak


def watch(metrics: MetricsFile, meter: Meter, budget: int | None = None) -> Watch:
    bar = TrainingBar(Screen(Console(file=io.StringIO())))
    return Watch(bar, metrics, meter, budget_bytes=budget, seconds_before=100.0)  # type: ignore[arg-type]


def logged(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_a_step_is_kept_with_our_readings(args: TrainingArguments, tmp_path: Path) -> None:
    file = tmp_path / "metrics.jsonl"
    with MetricsFile(file).opened() as metrics:
        one = watch(metrics, Meter(5 << 20, reserved=8 << 20))
        state, control = at(1, 0.1), TrainerControl(should_log=True)
        one.on_train_begin(args, state, control)
        state.num_input_tokens_seen = 640
        one.on_log(args, state, control, logs={"loss": 2.5, "grad_norm": 0.5, "total_flos": 1e9})
        one.on_log(args, state, control, logs={"eval_loss": 2.0, "eval_runtime": 3.0})
        one.on_log(args, state, control, logs={"train_runtime": 3.0})
    step, evaluated = logged(file)
    assert step["seconds"] >= 100
    assert step["tokens_per_second"] > 0
    kept = {"step": 1, "epoch": 0.1, "loss": 2.5, "grad_norm": 0.5, "num_tokens": 640,
            "peak_bytes": 5 << 20, "peak_reserved_bytes": 8 << 20}  # fmt: skip
    assert {key: step[key] for key in kept} == kept
    assert evaluated == {"step": 1, "eval_loss": 2.0}


def test_the_budget_bounds_what_was_taken(args: TrainingArguments, tmp_path: Path) -> None:
    with MetricsFile(tmp_path / "metrics.jsonl").opened() as metrics:
        inside = watch(metrics, Meter(5 << 20), budget=5 << 20)
        inside.on_train_begin(args, at(0, 0.0), TrainerControl())
        inside.on_step_end(args, at(1, 0.1), TrainerControl())
        beyond = watch(metrics, Meter(5 << 20, reserved=6 << 20), budget=5 << 20)
        beyond.on_train_begin(args, at(0, 0.0), TrainerControl())
        with pytest.raises(ResourceError) as caught:
            beyond.on_step_end(args, at(1, 0.1), TrainerControl())
    assert caught.value.message == (
        "memory.budget: step 1 took 6.0 MiB of device memory, more than 5.0 MiB"
    )


def test_checkpoints_are_named_as_resume_finds_them(tmp_path: Path) -> None:
    from peftkit.rundir.checkpoints import list_checkpoints, sealed_folder

    sealed_folder(tmp_path, 3).mkdir()
    assert list_checkpoints(tmp_path) == [Checkpoint(tmp_path / "step-3", 3)]


# -- Ceiling ------------------------------------------------------------------------------------


def test_a_loss_that_stays_too_high_ends_a_training(
    args: TrainingArguments, tmp_path: Path
) -> None:
    """Counted from the trainer's log, so that a resumed training goes on counting."""

    def first_end(losses: list[float], every: int, ceiling: Ceiling) -> int | None:
        state = TrainerState()
        for number, loss in enumerate(losses, 1):
            state.global_step = number * every
            state.log_history.append({"loss": loss, "step": state.global_step})
            try:
                ceiling.on_log(args, state, TrainerControl(), logs={"loss": loss})
            except DivergedError as error:
                assert error.exit_code == 6
                assert f"stop_above: the loss has been above 5 for {20} steps" in error.message
                return state.global_step
        return None

    ceiling = Ceiling(5.0, 20, RunDir(tmp_path))
    assert first_end([6.0] * 40, 1, ceiling) == 20
    assert first_end([6.0] * 15 + [4.0] + [6.0] * 40, 1, ceiling) == 36
    assert first_end([6.0] * 40, 5, ceiling) == 20
    assert first_end([5.0] * 40, 1, ceiling) is None
    Ceiling(5.0, 20, RunDir(tmp_path)).on_log(args, TrainerState(), TrainerControl(), logs={})
