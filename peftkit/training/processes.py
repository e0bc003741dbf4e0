"""What several processes of one run must share, and what becomes of them when one is lost."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from peftkit.errors import PeftkitError, ResourceError, UsageError, first_line
from peftkit.rundir.checkpoints import differences
from peftkit.system.process import Process

if TYPE_CHECKING:
    from peftkit.plugins import Method
    from peftkit.recipe.schema import Recipe
    from peftkit.system.signals import StopRequest


def is_cut(recipe: Recipe) -> bool:
    """Tell whether the recipe asks for shards of the model; all that plans goes by this."""
    return bool(recipe.method.options.get("fsdp"))


def check_device(process: Process) -> None:
    """Refuse a process for which its host has no accelerator, where it has some.

    Raises:
        UsageError: says how many there are.
    """
    if process.is_alone:
        return
    import torch

    if not torch.accelerator.is_available():
        return
    num_devices = torch.accelerator.device_count()
    if process.local_rank >= num_devices:
        raise UsageError(
            f"process {process.rank} is number {process.local_rank + 1} of its host, which has"
            f" {num_devices} device{'s' * (num_devices != 1)}",
            hint=f"--num_processes {num_devices} a host, or another CUDA_VISIBLE_DEVICES",
        )


def check_sharding(recipe: Recipe, process: Process) -> None:
    """Refuse to cut a model into shards where nothing is there to hold them, or plans for them.

    Raises:
        UsageError: there is one process, or there are no accelerators; or the launcher alone asks
            for shards, so that plan and budget would be those of replicas.
    """
    method = recipe.method
    key = f"method.{method.name}.fsdp"
    if not is_cut(recipe):
        if not process.is_alone and _is_cut_by_launcher():
            raise UsageError(
                f"the launcher's own config cuts the model into shards (FSDP), and {key} says"
                " nothing of it: plan and budget would be those of whole models",
                hint=f"{key}=true",
            )
        return
    if process.is_alone:
        raise UsageError(
            f"{key} shards a model over processes, and a run has one",
            hint=f"delete it, or start several: peftkit run {recipe.file} --launch accelerate --"
            f" --num_processes 2; `peftkit plan {recipe.file} --num-processes N` says what they"
            " would take",
        )
    import torch

    if method.options.get("use_cpu") or not torch.accelerator.is_available():
        raise UsageError(
            f"{key} shards a model over accelerators: accelerate has no FSDP for CPUs",
            hint=f"{key}=false, with which every process holds all of it",
        )


def _is_cut_by_launcher() -> bool:
    from accelerate.utils import parse_flag_from_env

    return bool(parse_flag_from_env("ACCELERATE_USE_FSDP"))


def check_alike(recipe: Recipe, process: Process) -> None:
    """Refuse processes that were started with another recipe, or on another stack.

    Raises:
        UsageError: in every process; says which one differs from the first, and in what.
    """
    if process.is_alone:
        return
    from peftkit.models.versions import stack_versions

    own = {
        "recipe": {"text": recipe.text, "overrides": list(recipe.overrides)},
        "versions": stack_versions(),
    }
    first, *others = process.gather(own)
    for rank, other in enumerate(others, start=1):
        found = differences(first, other)
        if found:
            raise UsageError(
                f"process {rank} is not of the same run as process 0: {_shown(found)}",
                hint="start all of them with one command, from one recipe and one environment",
            )


def _shown(found: Mapping[str, tuple[Any, Any]]) -> str:
    if "recipe.text" in found:
        return "its recipe is another one"
    return ", ".join(
        f"{key} {one or 'absent'} -> {other or 'absent'}" for key, (one, other) in found.items()
    )


def repeated_rows(method: Method, rows: Any, process: Process) -> int:
    """Count the rows that an epoch reads a second time, so that every process has as many."""
    if process.is_alone or not len(rows) or method.untrained(rows[0]) is not None:
        return 0
    num_together: int = method.config.per_device_train_batch_size * process.world_size
    return -len(rows) % num_together


@contextmanager
def loss_of_others_explained(process: Process, stop: StopRequest) -> Iterator[None]:
    """Say that another process is gone, where an exchange with it failed.

    Raises:
        ResourceError: says what is on disk and what the same command does.
    """
    try:
        yield
    except PeftkitError:
        raise
    except RuntimeError as error:
        if process.is_alone or not _is_broken_exchange(error):
            raise
        raise ResourceError(
            f"another of the {process.world_size} processes ended without a word, and process"
            f" {process.rank} cannot go on without it: {first_line(error)}; {stop.consequence}",
            hint="the launcher or the kernel's log says what ended it: memory, as a rule",
        ) from error


def _is_broken_exchange(error: RuntimeError) -> bool:
    """Tell an exchange that failed from other errors: some have a type, gloo's has only words."""
    from torch.distributed import DistError

    said = str(error).lower()
    return isinstance(error, DistError) or "gloo" in said or "connection closed by peer" in said
