"""Slurm: a batch script that saves before its time is over, and queues itself again."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields

from peftkit.plugins import Rendered, Scheduler, Work
from peftkit.plugins.scheduled import RESUMABLE


@dataclass(frozen=True)
class Config:
    """Say what the cluster must know, under sbatch's own names."""

    partition: str | None = None
    """The cluster's own where absent."""
    account: str | None = None
    """Whom the time is charged to."""
    qos: str | None = None
    """Quality of service."""
    time: str | None = None
    """Limit of one start, e.g. `8:00:00`; a run that needs longer goes on in the next."""
    cpus_per_task: int | None = None
    """Cores of each machine."""
    mem: str | None = None
    """Memory of each machine, e.g. `200G`."""
    constraint: str | None = None
    """Features of the machines."""
    more: tuple[str, ...] = ()
    """Other options of sbatch, e.g. `--exclude=node7`."""
    setup: str = ""
    """Lines of the shell before the command, e.g. `source .venv/bin/activate`."""


class Slurm(Scheduler):
    """Render a batch script for sbatch."""

    Config = Config

    def render(self, work: Work) -> Rendered:
        """Return the script; each machine has one task, which starts its processes."""
        several = work.num_machines > 1
        command = work.shell(rank="$SLURM_NODEID", address="$MAIN")
        script = "\n".join(
            [
                "#!/bin/bash",
                *(f"#SBATCH {option}" for option in self._options(work)),
                *(["", self.config.setup.rstrip()] if self.config.setup else []),
                *(["", _MEETING] if several else []),
                "",
                f"export COMMAND={_quoted(command)}",
                _BODY,
            ]
        )
        return Rendered(script, "sbatch FILE")

    def _options(self, work: Work) -> Iterator[str]:
        """Give sbatch's options."""
        yield f"--job-name={work.label}"
        yield f"--output={work.label}-%j.log"
        yield "--open-mode=append"
        yield f"--nodes={work.num_machines}"
        yield "--ntasks-per-node=1"
        if work.gpus_per_machine:
            yield f"--gpus-per-node={work.gpus_per_machine}"
        for field in fields(self.config):
            value = getattr(self.config, field.name)
            if field.name not in ("more", "setup") and value is not None:
                yield f"--{field.name.replace('_', '-')}={value}"
        yield "--requeue"
        # To this script alone, so that it knows the limit from a `scancel`.
        yield f"--signal=B:USR1@{work.grace_seconds}"
        yield from self.config.more


def _quoted(command: str) -> str:
    """Quote a command whose variables the tasks expand, each for itself."""
    return "'" + command.replace("'", "'\\''") + "'"


_MEETING = 'export MAIN=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)'
_BODY = f"""
# Near the limit: stop kindly, and queue the same job again. A preempted job is queued by Slurm
# itself, and one that was cancelled by nobody; both stop as kindly.
again=0
stop() {{ interrupted=1; kill -TERM "$task"; }}
trap 'again=1; stop' USR1
trap stop TERM

srun --kill-on-bad-exit=1 bash -c 'eval "exec $COMMAND"' &
task=$!
interrupted=1
while [ "$interrupted" -eq 1 ]; do # a signal ends the shell's wait, not the task
    interrupted=0
    wait "$task"
    code=$?
done
if [ "$code" -eq {RESUMABLE} ] && [ "$again" -eq 1 ]; then
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
"""
