"""SkyPilot: a managed job, which goes on on another machine where one is taken away."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from peftkit.errors import UsageError
from peftkit.launching.documents import dump_document
from peftkit.plugins import Rendered, Scheduler, Work
from peftkit.plugins.scheduled import RESUMABLE

_HEAD = """\
# A managed job: where its machine is taken away, another goes on from the last checkpoint, which
# lies in the bucket. A run that was stopped kindly ({code}) is started again.
"""


@dataclass(frozen=True)
class Config:
    """Say what SkyPilot must know, under its own names where it has them."""

    bucket: str = field(kw_only=True)
    """Where runs are kept beyond a machine's life: `s3://NAME`, `gs://NAME`; mounted at `runs`."""
    accelerators: str | None = None
    """The GPU's name, e.g. `H100`; how many follows from the processes."""
    infra: str | None = None
    """Where, e.g. `aws/us-east-1`; the cheapest place otherwise."""
    use_spot: bool = True
    """Take machines that may be taken away, at a fraction of the price."""
    max_restarts_on_errors: int = 3
    """How often another failure than a taken machine is tried again."""
    setup: str = "pip install peftkit"
    """Lines of the shell that install what the run needs, once a machine."""


class SkyPilot(Scheduler):
    """Render a task for sky jobs launch."""

    Config = Config

    def render(self, work: Work) -> Rendered:
        """Return the task; each node runs the same command under its own rank."""
        config = self.config
        resources: dict[str, Any] = {
            "use_spot": config.use_spot,
            "job_recovery": {
                "max_restarts_on_errors": config.max_restarts_on_errors,
                "recover_on_exit_codes": [RESUMABLE],
            },
        }
        if work.gpus_per_machine:
            if config.accelerators is None:
                raise UsageError(
                    "--on skypilot must know which GPU", hint="--option accelerators=H100"
                )
            resources["accelerators"] = f"{config.accelerators}:{work.gpus_per_machine}"
        if config.infra is not None:
            resources["infra"] = config.infra
        address = '$(echo "$SKYPILOT_NODE_IPS" | head -n 1)'
        command = work.shell(rank="$SKYPILOT_NODE_RANK", address="$MAIN")
        meeting = f"MAIN={address}\n" if work.num_machines > 1 else ""
        task = {
            "name": work.label,
            "num_nodes": work.num_machines,
            "workdir": ".",
            "resources": resources,
            # Cached, since a checkpoint is renamed once it is whole: a plain mount cannot.
            "file_mounts": {
                "~/sky_workdir/runs": {"source": config.bucket, "mode": "MOUNT_CACHED"}
            },
            "setup": config.setup,
            "run": f"{meeting}exec {command}\n",
        }
        return Rendered(
            _HEAD.format(code=RESUMABLE) + dump_document(task),
            f"sky jobs launch -n {work.label} FILE",
        )
