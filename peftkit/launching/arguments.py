"""What stands behind `--`: arguments of `accelerate launch`, read by its own parser and checked."""

from __future__ import annotations

import contextlib
import io
import os
import socket
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from peftkit.errors import UsageError, first_line

_OURS = ("-m", "--module", "--no_python", "--no-python")
_HELP = ("-h", "--help")
_ONE_PROCESS = ("NO", "MULTI_CPU")
"""Of accelerate's distributed types: it starts one process, and leaves the others to MPI."""


@dataclass(frozen=True)
class LauncherArguments:
    """Hold the arguments of `accelerate launch`, and what they come to."""

    given: tuple[str, ...]
    num_processes: int | None
    """On all machines together; None where nothing says."""
    num_machines: int
    machine_rank: int
    port: int | None
    """Where the first machine's processes meet; None where nothing says."""
    config_file: str | None
    """The user's own."""
    states_threads: bool
    """Whether it says how many threads a process has."""
    problems: tuple[str, ...]
    """What is wrong with them by themselves."""

    @property
    def num_here(self) -> int | None:
        """Return how many processes this machine gets."""
        return None if self.num_processes is None else self.num_processes // self.num_machines

    @property
    def meets_here(self) -> bool:
        """Tell whether the processes meet at a port of this machine."""
        return self.num_machines == 1 or self.machine_rank == 0


def read_arguments(given: Sequence[str]) -> LauncherArguments:
    """Read what stands behind `--`.

    Raises:
        UsageError: accelerate knows no such argument, or not with such a value.
    """
    from accelerate.commands.launch import launch_command_parser

    parser = launch_command_parser()
    # argparse has no public list of its options, and takes what follows an unknown one for the
    # script; see `_unknown`.
    options = parser._option_string_actions
    problems = list(_unknown(given, options))
    if problems:
        raise UsageError("; ".join(problems), hint="accelerate launch --help")
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
            args = parser.parse_args([*given, "--module", "peftkit"])
    except SystemExit:
        last = said.getvalue().strip().rpartition("\n")[2]
        raise UsageError(
            f"accelerate launch refuses its arguments: {last.partition('error: ')[2] or last}",
            hint="accelerate launch --help",
        ) from None
    if args.training_script != "peftkit" or args.training_script_args:
        raise UsageError(
            f"what follows -- are options of accelerate launch: {_stray(given, args)!r} is none",
            hint="KEY=VALUE stands before --",
        )
    return _settled(tuple(given), args)


def _unknown(given: Sequence[str], options: Mapping[str, Any]) -> Iterator[str]:
    """Say which options accelerate does not know, and which are not the user's to set."""
    for word in given:
        name = word.partition("=")[0]
        if name in _HELP:
            yield f"`accelerate launch {name}` prints what may follow --"
        elif name in _OURS:
            yield f"{name} is set by peftkit: what is started is this run"
        elif name.startswith("--") and name not in options:
            known = [option for option in options if option.startswith("--")]
            close = get_close_matches(name.replace("-", "_"), known, n=1, cutoff=0.6)
            meant = f"; did you mean {close[0]}?" if close else ""
            yield f"accelerate launch has no {name}{meant}"


def _stray(given: Sequence[str], args: Any) -> str:
    return args.training_script if args.training_script != "peftkit" else given[-1]


def _settled(given: tuple[str, ...], args: Any) -> LauncherArguments:
    """Fill in what the user's config file says, and find what the arguments cannot mean."""
    problems: list[str] = []
    config = _read_config(args.config_file, problems)

    def stated(name: str, otherwise: Any) -> Any:
        value = getattr(args, name)
        return getattr(config, name, otherwise) if value is None else value

    num_processes = stated("num_processes", None)
    found = LauncherArguments(
        given,
        None if num_processes == -1 else num_processes,
        max(1, stated("num_machines", None) or 1),
        stated("machine_rank", None) or 0,
        stated("main_process_port", None),
        args.config_file,
        args.num_cpu_threads_per_process is not None,
        (),
    )
    problems += _contradictions(found, args, config)
    return LauncherArguments(**{**vars(found), "problems": tuple(problems)})


def _read_config(file: str | None, problems: list[str]) -> Any:
    """Read the user's config file as accelerate does; None without one, or where it cannot."""
    if file is None:
        return None
    from accelerate.commands.config import load_config_from_file

    try:
        return load_config_from_file(file)
    except Exception as error:  # whatever a YAML file may do to it
        problems.append(f"--config_file {file} cannot be read: {first_line(error)}")
    return None


def _contradictions(found: LauncherArguments, args: Any, config: Any) -> Iterator[str]:
    """Say what does not go together, or not with a run."""
    if found.num_processes is None:
        yield "how many processes? -- --num_processes 2, those of all machines together"
    elif found.num_processes < 1:
        yield f"--num_processes {found.num_processes} starts none"
    elif found.num_processes % found.num_machines:
        yield (
            f"--num_processes {found.num_processes} counts those of all machines together, and"
            f" {found.num_machines} machines cannot share them evenly"
        )
    if found.num_machines > 1 and stated_address(args, config) is None:
        yield "several machines meet at the first one: --main_process_ip, and --main_process_port"
    if args.max_restarts:
        yield (
            "--max_restarts starts a run again that a signal has stopped: delete it, and let the"
            " job system start the same command, which resumes"
        )
    if args.mixed_precision not in (None, "no"):
        yield f"--mixed_precision is the recipe's: method.METHOD.{args.mixed_precision}=true"
    if args.mpirun_hostfile is not None or args.cpu:
        yield (
            f"{'--cpu' if args.cpu else '--mpirun_hostfile'} makes accelerate start one process by"
            " itself: delete it; processes without a GPU meet by gloo (CUDA_VISIBLE_DEVICES= where"
            " there are some)"
        )
    kind = getattr(getattr(config, "distributed_type", None), "value", None)
    if kind in _ONE_PROCESS:
        yield f"--config_file: distributed_type {kind} starts one process; --engine ddp starts many"


def stated_address(args: Any, config: Any) -> str | None:
    """Return where the first of several machines is."""
    address = args.main_process_ip or getattr(config, "main_process_ip", None)
    return None if address is None else str(address)


def find_machine_problems(found: LauncherArguments, *, uses_cpu: bool) -> Iterator[str]:
    """Say what this machine lacks for these arguments.

    Args:
        uses_cpu: whether the recipe keeps to the CPU, whatever devices there are.
    """
    import torch

    if torch.accelerator.is_available() and not uses_cpu and found.num_here is not None:
        num_devices = torch.accelerator.device_count()
        if found.num_here > num_devices:
            many = "1 device" if num_devices == 1 else f"{num_devices} devices"
            yield (
                f"{found.num_here} processes on this machine, and it has {many}: each process needs"
                f" one of its own (--num_processes {num_devices * found.num_machines})"
            )
    if found.port and found.meets_here and not is_free(found.port):
        yield f"--main_process_port {found.port} is in use on this machine: take another, or 0"


def is_free(port: int) -> bool:
    """Tell whether a port of this machine can be listened at."""
    with socket.socket() as one:
        # As torch's own store listens: a port that was closed a moment ago is free.
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            one.bind(("", port))
        except OSError:
            return False
    return True


def chosen_arguments(found: LauncherArguments) -> list[str]:
    """Return what is chosen where the user says nothing: a free port, and an even share of cores.

    accelerate gives each process one thread, so that reading rows on a machine of many cores would
    take as long as on one of few.
    """
    chosen = []
    if found.num_machines == 1 and found.port is None:
        chosen += ["--main_process_port", "0"]
    if not found.states_threads and "OMP_NUM_THREADS" not in os.environ:
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        each = max(1, (cores or 1) // (found.num_here or 1))
        chosen += ["--num_cpu_threads_per_process", str(each)]
    return chosen
