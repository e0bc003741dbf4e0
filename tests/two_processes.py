"""What a run's parts do in two real gloo processes, started as torchrun starts them."""

from __future__ import annotations

import io
import json
import math
import os
import signal
import socket
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from peftkit.errors import PeftkitError, ResourceError
from peftkit.system.process import Process, this_process

Part = Callable[[Process, Path], dict[str, Any]]


def in_two_processes(folder: Path, *parts: Part) -> list[dict[str, Any]]:
    """Go through these parts in two processes; return what each of them saw, by rank.

    Args:
        parts: functions of this module, which find and leave their files in the folder.
    """
    return in_processes(2, folder, *parts)


def in_processes(num_processes: int, folder: Path, *parts: Part) -> list[dict[str, Any]]:
    """Do so in as many processes."""
    from torch import multiprocessing

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    multiprocessing.spawn(_be, (num_processes, port, folder, parts), nprocs=num_processes)
    files = [folder / f"{rank}.json" for rank in range(num_processes)]
    return [json.loads(file.read_text("utf-8")) for file in files]


def _be(rank: int, num_processes: int, port: int, folder: Path, parts: tuple[Part, ...]) -> None:
    """Be one of them."""
    import torch

    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    stated = {"RANK": rank, "WORLD_SIZE": num_processes, "LOCAL_RANK": rank, "MASTER_PORT": port}
    os.environ.update({name: str(value) for name, value in stated.items()})
    # The CPU also where there is one GPU, which two processes cannot share.
    os.environ.update(MASTER_ADDR="127.0.0.1", CUDA_VISIBLE_DEVICES="")
    process = this_process()
    seen = {part.__name__: part(process, folder) for part in parts}
    (folder / f"{rank}.json").write_text(json.dumps(seen), encoding="utf-8")
    process.wait()
    torch.distributed.destroy_process_group()


def said(do: Callable[[], Any]) -> str:
    """Return what an error says, and of which kind it is."""
    try:
        do()
    except (PeftkitError, ArithmeticError, RuntimeError) as error:
        return f"{type(error).__name__}: {error}"
    return "nothing"


def fail(error: Exception) -> None:
    """Raise it."""
    raise error


def who_is_there() -> tuple[int, Process, list[str]]:
    """Say which process this is, and what is left of a launcher's variables."""
    told = [name for name in os.environ if name.startswith(("ACCELERATE_", "FSDP_", "MASTER_"))]
    return os.getpid(), this_process(), told


def meetings(process: Process, folder: Path) -> dict[str, Any]:
    """Agree on values and flags."""
    return {
        "agree": process.agree(f"of {process.rank}"),
        "gather": process.gather(process.rank),
        "one": process.any_of(process.rank == 1),
        "none": process.any_of(False),
        "by_main": process.by_main(os.getpid),
        "pid": os.getpid(),
        "is_same": this_process() == process,  # the first was told by variables, this by torch
    }


def errors(process: Process, folder: Path) -> dict[str, str]:
    """Fail in one of them."""

    class LocalError(ArithmeticError):
        """Be one that cannot be sent."""

    def other() -> None:
        with process.together():
            if process.rank == 1:
                raise ResourceError("out of memory", hint="fewer rows")

    return {
        "by_main": said(lambda: process.by_main(fail, ResourceError("no room", hint="make some"))),
        "together": said(other),
        "unsent": said(lambda: process.by_main(fail, LocalError("odd"))),
    }


def writers(process: Process, folder: Path) -> dict[str, str]:
    """Claim a directory, and write and print all that a run does."""
    from rich.console import Console

    from peftkit.rundir.paths import RunDir, is_locked
    from peftkit.rundir.status import RunStatus, claimed
    from peftkit.system.screen import MetricsFile, Reading, Screen, TrainingBar

    run_dir = RunDir(folder / "written", process)
    shown = io.StringIO()
    screen = Screen(Console(file=shown, force_terminal=True), process)
    with claimed(run_dir):
        screen.say("hello")
        with screen.counting("counting") as count:
            count("rows", 1, 2)
        bar = TrainingBar(screen)
        bar.start(step=0, total=2)
        bar.advance(1, Reading(loss=1.0))
        bar.stop()
        with MetricsFile(run_dir.metrics, process).opened() as metrics:
            metrics.append({"step": 1, "rank": process.rank})
        RunStatus(run_dir, identity=f"of {process.rank}").write("running")
        is_held = is_locked(run_dir)
        process.wait()

    def claim_what_is_no_run() -> None:
        with claimed(RunDir(folder / "thesis", process)):
            pass

    return {
        "shown": shown.getvalue(),
        "is_held": str(is_held),
        "refused": said(claim_what_is_no_run),
    }


def stops(process: Process, folder: Path) -> dict[str, str]:
    """Meet in one process what stops a training."""
    from transformers import TrainerControl, TrainerState, TrainingArguments

    from peftkit.rundir.paths import RunDir
    from peftkit.system.meter import Peak
    from peftkit.system.screen import MetricsFile, Screen, TrainingBar
    from peftkit.training.callbacks import Finite, Watch

    is_bad = process.rank == 1
    run_dir = RunDir(folder, process)
    args, state, control = TrainingArguments(use_cpu=True), TrainerState(), TrainerControl()
    finite = Finite("sft", run_dir)

    class Meter:
        def peak(self) -> Peak:
            return Peak(process.rank * 7 << 20, "resident")

    bar, metrics = TrainingBar(Screen(process=process)), MetricsFile(run_dir.metrics, process)
    watch = Watch(bar, metrics, Meter(), budget_bytes=1 << 20, seconds_before=0.0)  # type: ignore[arg-type]
    loss = math.nan if is_bad else 1.0
    return {
        "loss": said(lambda: finite.on_log(args, state, control, logs={"loss": loss})),
        "budget": said(lambda: watch.on_step_end(args, state, control)),
    }


def stopped_training(process: Process, folder: Path) -> dict[str, Any]:
    """Train with transformers' own trainer until a signal comes to the second process."""
    import torch
    from transformers import Trainer, TrainerCallback, TrainingArguments

    from peftkit.rundir.paths import RunDir
    from peftkit.rundir.status import RunStatus, claimed, recorded
    from peftkit.system.signals import catching_signals
    from peftkit.training.callbacks import Keeper

    class Halves(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = torch.nn.Parameter(torch.ones(1))

        def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
            return {"loss": (self.scale * x).square().mean()}

    class Signal(TrainerCallback):
        begun = 0

        def on_step_begin(self, _args: Any, state: Any, _control: Any, **_: Any) -> None:
            self.begun += 1
            if process.rank == 1 and state.global_step == 2:
                os.kill(os.getpid(), signal.SIGTERM)

    run_dir = RunDir(folder / "trained", process)
    status = RunStatus(run_dir, identity="0f")
    args = TrainingArguments(
        output_dir=str(run_dir.checkpoints), use_cpu=True, max_steps=8, report_to="none",
        per_device_train_batch_size=1, save_steps=100, disable_tqdm=True, logging_strategy="no",
    )  # fmt: skip

    def train() -> None:
        with claimed(run_dir), catching_signals(process) as stop, recorded(status), stop.deferred():
            callbacks = [steps, Keeper(stop, status)]
            Trainer(Halves(), args, train_dataset=rows, callbacks=callbacks).train()

    steps, rows = Signal(), [{"x": torch.full((2,), float(number))} for number in range(8)]
    return {"said": said(train), "steps": steps.begun}


def whole_run(process: Process, folder: Path) -> dict[str, str]:
    """Run `recipe.json` until a signal comes to the second process, and the same command again."""
    from rich.console import Console
    from training_fixture import planned_only_within_a_budget

    from peftkit.recipe.load import load_recipe
    from peftkit.run import run

    recipe, shown = load_recipe(folder / "recipe.json"), io.StringIO()

    def stop_later() -> None:
        while not (folder / "run" / "checkpoints" / "step-2").exists():
            time.sleep(0.005)
        os.kill(os.getpid(), signal.SIGTERM)

    def go() -> None:
        with planned_only_within_a_budget(recipe):
            run(recipe, out=folder / "run", console=Console(file=shown, width=200))

    if process.rank == 1:
        threading.Thread(target=stop_later, daemon=True).start()
    return {"stopped": said(go), "resumed": said(go), "shown": shown.getvalue()}


def several_runs(process: Process, folder: Path) -> dict[str, str]:
    """Run each of `runs.json`: [name, recipe, overrides]; say how it ended, and keep what it said.

    A run whose recipe shards its model does so over CPUs, as it would over accelerators.
    """
    from rich.console import Console
    from training_fixture import planned_only_within_a_budget

    from peftkit.recipe.load import load_recipe
    from peftkit.run import run

    ended = {}
    for name, file, overrides in json.loads((folder / "runs.json").read_text("utf-8")):
        shown = io.StringIO()

        def go(
            name: str = name, file: str = file, overrides: Any = overrides, shown: Any = shown
        ) -> None:
            recipe = load_recipe(Path(file), overrides)
            with planned_only_within_a_budget(recipe), sharding_on_cpus():
                run(recipe, out=folder / name, console=Console(file=shown, width=200))

        try:
            go()
        except Exception as error:
            ended[name] = f"{type(error).__name__}: {error}"
        else:
            ended[name] = "nothing"
        (folder / f"{name}.{process.rank}.txt").write_text(shown.getvalue(), encoding="utf-8")
    return ended


@contextmanager
def sharding_on_cpus() -> Iterator[None]:
    """Let accelerate take processes without accelerators for such that have some.

    Nothing else differs: `fully_shard` itself cuts what lies on CPUs, over gloo.
    """
    from unittest.mock import patch

    from accelerate.state import AcceleratorState, PartialState
    from accelerate.utils import DistributedType

    made = AcceleratorState.__init__

    def make(self: Any, *args: Any, fsdp_plugin: Any = None, **options: Any) -> None:
        made(self, *args, fsdp_plugin=fsdp_plugin, **options)
        if fsdp_plugin is not None and self.distributed_type is DistributedType.MULTI_CPU:
            if self.mixed_precision != "no":
                fsdp_plugin.set_mixed_precision(self.mixed_precision)
            self.distributed_type, self.fsdp_plugin = DistributedType.FSDP, fsdp_plugin
            PartialState._shared_state["distributed_type"] = DistributedType.FSDP

    with patch.object(AcceleratorState, "__init__", make), patch("peftkit.run.check_sharding"):
        yield
