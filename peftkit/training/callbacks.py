# ruff: noqa: ARG002 - transformers calls every event with the same arguments
"""What peftkit does between the steps of transformers' Trainer; imported once training is sure.

One callback a concern: what is shown and kept (`Watch`), numbers that are none (`Finite`), and
checkpoints with the stop at a signal (`Keeper`). Trainer calls them in every process at the same
places, and whatever makes them stop in one makes them stop in all.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from transformers import (
    EarlyStoppingCallback,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)

from peftkit.errors import DivergedError, ResourceError
from peftkit.rundir import checkpoints as resume
from peftkit.system.screen import Reading
from peftkit.system.units import gibibytes
from peftkit.training.diverged import diverged, find_broken, kept_checkpoint
from peftkit.training.shards import whole

if TYPE_CHECKING:
    from peftkit.rundir.paths import RunDir
    from peftkit.rundir.status import RunStatus
    from peftkit.system.meter import MemoryMeter, Peak
    from peftkit.system.screen import MetricsFile, TrainingBar
    from peftkit.system.signals import StopRequest

_LEFT_OUT = ("epoch", "num_input_tokens_seen", "num_tokens", "total_flos")
"""What trainers log of a training's course, which metrics.jsonl has from us."""
_TIMINGS = ("_runtime", "_per_second")


class Watch(TrainerCallback):  # type: ignore[misc] # transformers is untyped
    """Show progress, keep metrics and hold the memory budget."""

    def __init__(
        self,
        bar: TrainingBar,
        metrics: MetricsFile,
        meter: MemoryMeter,
        *,
        budget_bytes: int | None,
        seconds_before: float,
    ) -> None:
        """Watch a training.

        Args:
            seconds_before: trained before this call, by the run that is resumed.
        """
        self._bar, self._metrics, self._meter = bar, metrics, meter
        self._process = metrics.process
        self._budget_bytes = budget_bytes
        self._seconds_before = seconds_before
        self._reading = Reading()
        self._began = self._logged_at = 0.0
        self._logged_tokens = 0
        self._has_begun = False

    def has_begun(self) -> bool:
        """Tell whether a step has begun, so that what was resumed from is read."""
        return self._has_begun

    @property
    def seconds(self) -> float:
        """Return the seconds trained so far, all calls of this run together."""
        return self._seconds_before + time.monotonic() - self._began

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Start the clock, the meter and the bar."""
        self._began = self._logged_at = time.monotonic()
        self._logged_tokens = state.num_input_tokens_seen
        self._meter.start()
        self._bar.start(step=state.global_step, total=state.max_steps)

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Note that everything a checkpoint holds is read."""
        self._has_begun = True

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Hold the budget, and show the step unless its log is about to."""
        own = self._meter.peak()  # at every step: where nothing keeps the peak, it samples
        if self._budget_bytes is not None:
            self._hold_budget(self._budget_bytes, self._most_taken(own), state.global_step)
        if not control.should_log:
            self._bar.advance(state.global_step, self._reading)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **_: Any,
    ) -> None:
        """Keep what transformers logs, with our own readings."""
        logs = logs or {}
        if "loss" in logs:
            self._keep_step(state, logs)
        elif "eval_loss" in logs:
            self._metrics.append({"step": state.global_step, **_kept(logs)})

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Keep which checkpoint was the best, where that one is what is left."""
        if args.load_best_model_at_end and state.best_model_checkpoint is not None:
            self._metrics.append(
                {"step": state.global_step, "kept_step": state.best_global_step,
                 "best_metric": state.best_metric}
            )  # fmt: skip

    def _most_taken(self, own: Peak) -> Peak:
        """Return the peak of the process that took most."""
        if self._process.is_alone:
            return own
        return max(self._process.gather(own), key=lambda peak: peak.taken_bytes)

    @staticmethod
    def _hold_budget(budget_bytes: int, peak: Peak, step: int) -> None:
        if peak.taken_bytes > budget_bytes:
            raise ResourceError(
                f"memory.budget: step {step} took {gibibytes(peak.taken_bytes)} of"
                f" {peak.kind} memory, more than {gibibytes(budget_bytes)}",
                hint="a smaller per_device_train_batch_size with more gradient_accumulation_steps,"
                " a smaller max_length, or a larger memory.budget",
            )

    def _keep_step(self, state: TrainerState, logs: dict[str, Any]) -> None:
        now, num_tokens = time.monotonic(), state.num_input_tokens_seen
        speed = (num_tokens - self._logged_tokens) / max(now - self._logged_at, 1e-9)
        self._logged_at, self._logged_tokens = now, num_tokens
        peak = self._most_taken(self._meter.peak())
        self._reading = Reading(logs["loss"], speed if num_tokens else None, peak.num_bytes)
        line = {
            "step": state.global_step,
            "epoch": state.epoch,
            **_kept(logs),
            "tokens_per_second": round(speed, 1),
            "num_tokens": num_tokens,
            "peak_bytes": peak.num_bytes,
            "seconds": round(self.seconds, 3),
        }
        if peak.num_reserved_bytes is not None:
            line["peak_reserved_bytes"] = peak.num_reserved_bytes
        self._metrics.append(line)
        self._bar.advance(state.global_step, self._reading)


def _kept(logs: Mapping[str, Any]) -> dict[str, float]:
    """Return what a trainer logs of its losses, whatever its method calls them."""
    return {
        key: value
        for key, value in logs.items()
        if isinstance(value, int | float) and key not in _LEFT_OUT and not key.endswith(_TIMINGS)
    }


class Finite(TrainerCallback):  # type: ignore[misc] # transformers is untyped
    """Stop before a step whose gradient or loss is not a number reaches the weights."""

    def __init__(self, method: str, run_dir: RunDir) -> None:
        """Take the method's name, whose keys an error shows, and where good weights are kept."""
        self._method, self._checkpoints = method, run_dir.checkpoints
        self._process = run_dir.process

    def on_pre_optimizer_step(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: torch.nn.Module | None = None,
        **_: Any,
    ) -> None:
        """Look at the gradients; under fp16 the loss scaler skips such steps by itself."""
        if args.fp16 or model is None:
            return
        gradients = [p.grad for p in model.parameters() if p.grad is not None]
        # One number in all processes: theirs are reduced already, or it is reduced here.
        norm = whole(torch.nn.utils.get_total_norm(gradients)).item()
        if not math.isfinite(norm):
            what = "the gradient is not a finite number, so the step was not taken"
            raise self._diverged(state.global_step + 1, what, args)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **_: Any,
    ) -> None:
        """Look at the loss."""
        logs = logs or {}
        if "loss" not in logs:
            return
        loss = logs["loss"]  # the mean over all processes
        if not math.isfinite(loss):
            raise self._diverged(state.global_step, f"the loss is {loss}", args)

    def on_save(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: torch.nn.Module | None = None,
        **_: Any,
    ) -> None:
        """Look at the weights before their checkpoint is sealed: it would be resumed from."""
        broken = None if model is None else find_broken(model)
        if self._process.any_of(broken is not None):
            raise self._diverged(state.global_step, str(broken), args)

    def _diverged(self, step: int, what: str, args: TrainingArguments) -> DivergedError:
        return diverged(self._method, self._checkpoints, step, what, args)


class Ceiling(TrainerCallback):  # type: ignore[misc] # transformers is untyped
    """Give a training up whose loss stays above a bound; it counts from the trainer's own log."""

    def __init__(self, loss: float, steps: int, run_dir: RunDir) -> None:
        """Take the loss above which a step counts, and how many in a row are too many."""
        self._loss, self._steps, self._checkpoints = loss, steps, run_dir.checkpoints
        self._process = run_dir.process

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **_: Any,
    ) -> None:
        """Count the steps since the loss was last low enough."""
        if "loss" not in (logs or {}):
            return
        logged = [entry for entry in state.log_history if "loss" in entry]
        low = [entry["step"] for entry in logged if entry["loss"] <= self._loss]
        num_steps = state.global_step - max(low, default=0)
        if self._process.any_of(num_steps >= self._steps):
            raise DivergedError(
                f"stop_above: the loss has been above {self._loss:g} for {num_steps} steps, and is"
                f" {logged[-1]['loss']:.4g} at step {state.global_step};"
                f" {kept_checkpoint(self._checkpoints)}",
                hint="a smaller learning_rate and another --out; `peftkit data` shows what is"
                " trained; or a larger stop_above.loss",
            )


class Patience(EarlyStoppingCallback):  # type: ignore[misc] # transformers is untyped
    """Stop when evaluations no longer improve, and go on counting after a resume."""

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Take up the count of the checkpoint that is resumed."""
        super().on_train_begin(args, state, control)
        saved = (state.stateful_callbacks or {}).get(type(self).__name__)
        if isinstance(saved, dict):
            for name, value in saved["attributes"].items():
                setattr(self, name, value)


class Keeper(TrainerCallback):  # type: ignore[misc] # transformers is untyped
    """Seal checkpoints, prune old ones, and stop at a step's end once a signal has come."""

    def __init__(self, stop: StopRequest, status: RunStatus, best: Path | None = None) -> None:
        """Take the best checkpoint up to the one that is resumed, if any was compared."""
        self._stop, self._status, self._best = stop, status, best
        self._process = status.run_dir.process
        self._is_owed = False

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Name the best checkpoint where the run lies now: the state says where it lay then."""
        if self._best is not None:
            state.best_model_checkpoint = str(self._best)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Ask for a checkpoint if a signal has come; an epoch's last one waits for its end.

        An evaluation at the end of an epoch draws random numbers: a checkpoint before it would
        resume without them, and differ from a run that was never stopped.
        """
        self._process.by_main(self._status.check_place)  # before a checkpoint makes it anew
        if state.global_step >= state.max_steps:
            control.should_log = True  # so that the metrics end with the training
        if self._stop.poll():
            control.should_log = control.should_save = control.should_training_stop = True
        if control.should_save and _is_epoch_end(state):
            control.should_save, self._is_owed = False, True

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Pay the owed checkpoint; after a stop within the epoch, undo what its end asks for."""
        if not _is_epoch_end(state):
            control.should_log = control.should_evaluate = control.should_save = False
        elif self._is_owed or self._stop.poll():
            control.should_save, self._is_owed = True, False

    def on_evaluate(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Ask for a checkpoint if the signal came during an evaluation."""
        if self._stop.poll():
            control.should_save = control.should_training_stop = True

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Make `checkpoint-N` a sealed `step-N`, and delete what save_total_limit does not keep."""
        checkpoints = Path(str(args.output_dir))
        folder = resume.unsealed_folder(checkpoints, state.global_step)
        if state.best_model_checkpoint == str(folder):
            sealed = resume.sealed_folder(checkpoints, state.global_step)
            state.best_model_checkpoint = str(sealed)
        self._status.step, self._status.total_steps = state.global_step, state.max_steps
        self._process.wait()  # every process adds its random state
        self._process.by_main(self._seal, folder, args, state)
        self._stop.consequence = f"the same command resumes at step {state.global_step}"

    def _seal(self, folder: Path, args: TrainingArguments, state: TrainerState) -> None:
        checkpoints, best = folder.parent, state.best_model_checkpoint
        state.save_to_json(str(folder / "trainer_state.json"))  # which names the best anew
        identity, told = str(self._status.identity), self._status.told
        resume.seal(folder, step=state.global_step, identity=identity, told=told)
        (checkpoints / "README.md").unlink(missing_ok=True)  # trl's card of no model
        resume.prune(checkpoints, keep=args.save_total_limit, also=Path(best) if best else None)
        self._status.write("running")


def _is_epoch_end(state: TrainerState) -> bool:
    return state.epoch is not None and float(state.epoch).is_integer()
