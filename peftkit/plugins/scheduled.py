"""What a scheduler renders: one run, on so many machines, as commands of a shell."""

from __future__ import annotations

import shlex
from dataclasses import dataclass

RESUMABLE = 75
"""A run's exit code after a signal: the same command goes on."""
HOPELESS = (2, 3, 4, 6)
"""Exit codes that another try ends with again: recipe, data, artefact, diverged."""
PORT = 29500
"""Where processes of several machines meet: accelerate's own default."""


@dataclass(frozen=True)
class Work:
    """Say what a job system is to run, and on what."""

    name: str
    """The run's name."""
    command: tuple[str, ...]
    """`peftkit run ...`, without what starts it in several processes."""
    launcher: tuple[str, ...] = ()
    """What follows the command where several processes share the run: `--launch accelerate`, and
    the engine."""
    num_machines: int = 1
    processes_per_machine: int = 1
    uses_gpus: bool = True
    """Whether each process has a GPU of its own."""
    grace_seconds: int = 120
    """What a run gets between the signal and its end, to finish a step and write a checkpoint."""

    @property
    def gpus_per_machine(self) -> int:
        """Return how many GPUs a machine needs."""
        return self.processes_per_machine if self.uses_gpus else 0

    @property
    def label(self) -> str:
        """Return the name as DNS takes it: lower case letters, digits and dashes."""
        plain = "".join(sign if sign.isalnum() else "-" for sign in self.name.lower())
        ascii_only = plain.encode("ascii", "ignore").decode("ascii")
        return ascii_only.strip("-")[:50].strip("-") or "run"

    def shell(self, *, rank: str = "", address: str = "") -> str:
        """Return the command as a line of a shell, the same on each machine.

        Args:
            rank: what the shell expands to this machine's number, where there are several.
            address: what it expands to the first machine's name.
        """
        line = shlex.join(self.command)
        num_processes = self.num_machines * self.processes_per_machine
        if num_processes == 1:
            return line
        line += f" {shlex.join(self.launcher)} -- --num_processes {num_processes}"
        if self.num_machines > 1:
            line += (
                f' --num_machines {self.num_machines} --machine_rank "{rank}"'
                f' --main_process_ip "{address}" --main_process_port {PORT}'
            )
        return line


@dataclass(frozen=True)
class Rendered:
    """Hold a job system's file, and what is done with it."""

    text: str
    submitted_by: str
    """The command that submits it, `FILE` standing for its path."""
    notes: tuple[str, ...] = ()
    """Sentences a person should read before."""
