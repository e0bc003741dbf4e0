"""Ray: a RayJob, which KubeRay runs on a cluster of its own and tries again."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from peftkit.launching.documents import dump_document
from peftkit.plugins import Rendered, Scheduler, Work

_FOLDER = "/work"
_HEAD = """\
# `ray job stop` gives the run {grace} s to save (Ray's own default is 3). A run that stopped or
# failed is started again on a new cluster, and the same command resumes. Recipe, data and runs lie
# in {folder}.
"""


@dataclass(frozen=True)
class Config:
    """Say what KubeRay must know."""

    image: str = field(kw_only=True)
    """A container image with ray and peftkit in it."""
    claim: str = field(kw_only=True)
    """The PersistentVolumeClaim that holds recipe, data and runs."""
    namespace: str | None = None
    """The one that kubectl uses where absent."""
    gpu: str = "nvidia.com/gpu"
    """What the cluster calls a GPU."""
    cpu: str = "8"
    """Cores of the machine."""
    memory: str = "64Gi"
    """Memory of the machine."""
    backoff_limit: int = 6
    """How often it is tried again."""
    setup: str = ""
    """Lines of the shell before the command."""


class Ray(Scheduler):
    """Render a RayJob of ray.io/v1."""

    Config = Config
    most_machines = 1  # Ray starts an entrypoint on one machine

    def render(self, work: Work) -> Rendered:
        """Return the job with its cluster: one machine, which has all the GPUs."""
        setup = "".join(f"{line}; " for line in self.config.setup.splitlines() if line.strip())
        waits = {"RAY_JOB_STOP_WAIT_TIME_S": str(work.grace_seconds)}
        named = {"name": work.label}
        job = {
            "apiVersion": "ray.io/v1",
            "kind": "RayJob",
            "metadata": {
                **named,
                **({"namespace": self.config.namespace} if self.config.namespace else {}),
            },
            "spec": {
                "entrypoint": f"cd {_FOLDER} && {setup}exec {work.shell()}",
                **({"entrypointNumGpus": work.gpus_per_machine} if work.gpus_per_machine else {}),
                "backoffLimit": self.config.backoff_limit,
                "shutdownAfterJobFinishes": True,
                "runtimeEnvYAML": dump_document({"env_vars": waits}),
                "rayClusterSpec": {"headGroupSpec": self._head(work)},
            },
        }
        text = _HEAD.format(grace=work.grace_seconds, folder=_FOLDER) + dump_document(job)
        return Rendered(text, "kubectl apply -f FILE")

    def _head(self, work: Work) -> dict[str, Any]:
        limits: dict[str, Any] = {"cpu": self.config.cpu, "memory": self.config.memory}
        if work.gpus_per_machine:
            limits[self.config.gpu] = work.gpus_per_machine
        container = {
            "name": "ray-head",
            "image": self.config.image,
            "workingDir": _FOLDER,
            "resources": {"limits": limits, "requests": dict(limits)},
            "volumeMounts": [{"name": "work", "mountPath": _FOLDER}],
        }
        claim = {"persistentVolumeClaim": {"claimName": self.config.claim}}
        return {
            "rayStartParams": {},
            "template": {
                "spec": {
                    "terminationGracePeriodSeconds": work.grace_seconds,
                    "containers": [container],
                    "volumes": [{"name": "work", **claim}],
                }
            },
        }
