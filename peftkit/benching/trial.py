"""Train a few steps for real, through the method's own trainer, on random weights and rows.

Nothing is simulated: where memory runs out, it runs out. Phases are those that can be told from
outside a trainer: `forward` holds the loss's forward and `backward` its backward.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peftkit.plugins import Training
from peftkit.system.meter import MemoryMeter, Peak

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import TrainerCallback

    from peftkit.benching.grid import Cell
    from peftkit.plugins import Machine
    from peftkit.recipe.build import Built


_STACK = (
    "datasets",
    "peft",
    "transformers.models.auto.modeling_auto",
    "transformers.trainer",
    "trl.trainer.sft_trainer",
)


@dataclass(frozen=True)
class Trial:
    """Hold what really happened."""

    peak_bytes: int
    """As `kind` says; over all measured steps."""
    kind: str
    """`device` or `resident`."""
    baseline_bytes: int
    """In use before the model was built: resident memory of Python and the stack; 0 on a device."""
    reserved_bytes: int | None
    """What torch's allocator took from the device; None on a CPU."""
    phase_bytes: Mapping[str, int]
    """Phase -> its own peak."""
    step_seconds: tuple[float, ...]
    """Each measured step's time."""
    num_tokens: int
    """Tokens of one step."""
    num_parameters: int
    num_trainable: int
    final_loss: float

    @property
    def tokens_per_second(self) -> float:
        """Return the median step's rate."""
        import statistics

        return self.num_tokens / statistics.median(self.step_seconds)

    def to_json(self) -> dict[str, Any]:
        """Return plain data."""
        return {**asdict(self), "tokens_per_second": self.tokens_per_second}


@dataclass
class _Readings:
    """Gather peaks by phase and times by step."""

    meter: MemoryMeter
    wait: Callable[[], None]
    """Wait until the device has done what it was told."""
    num_warm_up: int
    phase: str = ""
    step: int = 0
    began: float = 0.0
    peaks: dict[str, Peak] = field(default_factory=dict)
    seconds: list[float] = field(default_factory=list)

    def enter(self, phase: str) -> None:
        """Close a phase and open the next."""
        if self.phase and self.step >= self.num_warm_up:
            peak, before = self.meter.peak(), self.peaks.get(self.phase)
            if before is None or peak.num_bytes > before.num_bytes:
                self.peaks[self.phase] = peak
        self.phase = phase
        self.meter.start()

    def begin_step(self) -> None:
        """Start the clock."""
        self.wait()
        self.began = time.perf_counter()

    def end_step(self) -> None:
        """Stop the clock and close the last phase."""
        self.wait()
        if self.step >= self.num_warm_up:
            self.seconds.append(time.perf_counter() - self.began)
        self.enter("")
        self.step += 1


def run_trial(
    cell: Cell, built: Built, machine: Machine, folder: Path, *, rows: Dataset | None = None
) -> Trial:
    """Build the cell's model with random weights and train its steps.

    Args:
        folder: holds the model's `config.json`; the trainer may write into it.
        rows: as the method has arranged them; full rows of random tokens when absent.

    Raises:
        torch.OutOfMemoryError: the device does not suffice, which is a result.
    """
    from peftkit.adapters.base import count_parameters
    from peftkit.embedded import model_path

    _import_stack()
    tokenizer = _load_tokenizer(model_path("docstring-lm"))
    rows = _random_rows(cell, built) if rows is None else rows
    meter = MemoryMeter(machine.device)
    meter.start()
    baseline = meter.peak()
    model = _build_model(cell, built, machine, folder)
    readings = _Readings(meter, _waiter(machine.device), num_warm_up=1)
    trainer = built.method.trainer(
        Training(model, tokenizer, rows, None, [_watch(readings)], folder / "trainer")
    )
    model.register_forward_hook(lambda *_: readings.enter("backward") if model.training else None)
    losses = trainer.train()
    trained, num = count_parameters(model, built.quantizer)
    peaks = readings.peaks
    highest = max(peaks.values(), key=lambda peak: peak.num_bytes)
    reserved = [p.num_reserved_bytes for p in peaks.values() if p.num_reserved_bytes is not None]
    return Trial(
        peak_bytes=highest.num_bytes,
        kind=highest.kind,
        baseline_bytes=baseline.num_bytes if baseline.kind == "resident" else 0,
        reserved_bytes=max(reserved) if reserved else None,
        phase_bytes={phase: peak.num_bytes for phase, peak in peaks.items()},
        step_seconds=tuple(readings.seconds),
        num_tokens=_tokens_of_a_step(cell, rows, trainer.args.gradient_accumulation_steps),
        num_parameters=num,
        num_trainable=trained,
        final_loss=float(losses.training_loss),
    )


def _import_stack() -> None:
    """Import what a training imports and start its threads, so that the baseline holds them."""
    from peftkit.system.quiet import quiet_stack

    quiet_stack()
    for name in _STACK:
        import_module(name)
    import torch

    torch.autograd.backward(torch.ones(256, 256, requires_grad=True).mm(torch.ones(256, 256)).sum())


def _build_model(cell: Cell, built: Built, machine: Machine, folder: Path) -> Any:
    from transformers import AutoConfig

    from peftkit.benching.random_weights import fill_with_random
    from peftkit.memory.fake import build_skeleton

    skeleton = build_skeleton(
        AutoConfig.from_pretrained(str(folder)),
        built.recipe.model,
        kind=built.method.kind,
        quantizer=built.quantizer,
        adapter=built.adapter,
    )
    fill_with_random(
        skeleton.model, device=machine.device, seed=cell.seed, storage=skeleton.storage
    )
    return skeleton.model


def _load_tokenizer(folder: Path) -> Any:
    """Load a tokenizer for its padding token; rows are numbers already."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(str(folder))


def _random_rows(cell: Cell, built: Built) -> Dataset:
    """Draw full rows, every token trained, as many as all steps need."""
    import numpy as np
    from datasets import Dataset

    accumulation = int(built.method.config.gradient_accumulation_steps)
    num_rows = cell.micro_batch * accumulation * (cell.num_steps + 1)
    text = cell.config.get("text_config", cell.config)
    draw = np.random.default_rng(cell.seed)
    ids = draw.integers(text.get("vocab_size", 1000), size=(num_rows, cell.length))
    return Dataset.from_dict({"input_ids": ids, "labels": ids})


def _tokens_of_a_step(cell: Cell, rows: Dataset, accumulation: int) -> int:
    """Return the tokens of an average step."""
    lengths = [len(ids) for ids in rows["input_ids"]]
    return round(sum(lengths) / len(lengths) * cell.micro_batch * accumulation)


def _waiter(device: str) -> Callable[[], None]:
    if device == "cpu":
        return lambda: None
    import torch

    return torch.accelerator.synchronize


def _watch(readings: _Readings) -> TrainerCallback:
    """Make the callback that tells readings where steps and phases begin."""
    from transformers import TrainerCallback

    class Watch(TrainerCallback):  # type: ignore[misc] # transformers is untyped
        """Read between the trainer's steps."""

        def on_step_begin(self, *_: Any, **__: Any) -> None:
            """Open the step's readings."""
            readings.begin_step()
            readings.enter("forward")

        def on_substep_end(self, *_: Any, **__: Any) -> None:
            """Begin the next micro-batch."""
            readings.enter("forward")

        def on_pre_optimizer_step(self, *_: Any, **__: Any) -> None:
            """Begin the update."""
            readings.enter("step")

        def on_step_end(self, *_: Any, **__: Any) -> None:
            """Close the step's readings."""
            readings.end_step()

    return Watch()
