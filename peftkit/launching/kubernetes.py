"""Kubernetes: a Job whose pods save when they are told to go, and are started again."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from peftkit.launching.documents import dump_document
from peftkit.plugins import Rendered, Scheduler, Work
from peftkit.plugins.scheduled import HOPELESS, PORT, RESUMABLE

_FOLDER = "/work"
_HEAD = """\
# A pod that is told to go has {grace} s to save; it, and a run that was stopped kindly ({code}), is
# started again, and the same command resumes. Recipe, data and runs lie in {folder}.
"""


@dataclass(frozen=True)
class Config:
    """Say what the cluster must know."""

    image: str = field(kw_only=True)
    """A container image with peftkit in it."""
    claim: str = field(kw_only=True)
    """The PersistentVolumeClaim that holds recipe, data and runs; all machines mount it."""
    namespace: str | None = None
    """The one that kubectl uses where absent."""
    gpu: str = "nvidia.com/gpu"
    """What the cluster calls a GPU."""
    cpu: str | None = None
    """Cores of each machine, e.g. `16`."""
    memory: str | None = None
    """Memory of each machine, e.g. `200Gi`."""
    backoff_limit: int = 6
    """How often a failure is tried again; kind stops and evictions do not count."""
    setup: str = ""
    """Lines of the shell before the command."""


class Kubernetes(Scheduler):
    """Render a Job of batch/v1."""

    Config = Config

    def render(self, work: Work) -> Rendered:
        """Return the Job, and the Service by which several pods find the first."""
        documents: list[dict[str, Any]] = []
        if work.num_machines > 1:
            documents.append(self._service(work))
        documents.append(self._job(work))
        head = _HEAD.format(grace=work.grace_seconds, code=RESUMABLE, folder=_FOLDER)
        text = head + "---\n".join(map(dump_document, documents))
        return Rendered(text, "kubectl apply -f FILE")

    def _metadata(self, work: Work) -> dict[str, Any]:
        named = {"name": work.label}
        return {**named, "namespace": self.config.namespace} if self.config.namespace else named

    def _service(self, work: Work) -> dict[str, Any]:
        return {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": self._metadata(work),
            "spec": {
                "clusterIP": "None",
                # A pod's name leads to it as soon as it has an address, before it is ready.
                "publishNotReadyAddresses": True,
                "selector": {"job-name": work.label},
                "ports": [{"name": "meeting", "port": PORT}],
            },
        }

    def _job(self, work: Work) -> dict[str, Any]:
        several = work.num_machines > 1
        indexed = {
            "completionMode": "Indexed",
            "completions": work.num_machines,
            "parallelism": work.num_machines,
        }
        return {
            "apiVersion": "batch/v1",
            "kind": "Job",
            "metadata": self._metadata(work),
            "spec": {
                **(indexed if several else {}),
                "backoffLimit": self.config.backoff_limit,
                "podFailurePolicy": {"rules": _rules()},
                "template": {"spec": self._pod(work)},
            },
        }

    def _pod(self, work: Work) -> dict[str, Any]:
        command = work.shell(rank="$JOB_COMPLETION_INDEX", address=f"{work.label}-0.{work.label}")
        setup = f"{self.config.setup.rstrip()}\n" if self.config.setup else ""
        limits = {
            key: value
            for key, value in (
                (self.config.gpu, work.gpus_per_machine or None),
                ("cpu", self.config.cpu),
                ("memory", self.config.memory),
            )
            if value is not None
        }
        return {
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": work.grace_seconds,
            **({"subdomain": work.label} if work.num_machines > 1 else {}),
            "containers": [
                {
                    "name": "run",
                    "image": self.config.image,
                    "workingDir": _FOLDER,
                    # The run takes the shell's place, since signals come to the first process.
                    "command": ["bash", "-c", f"{setup}exec {command}"],
                    "resources": {"limits": limits},
                    "volumeMounts": [
                        {"name": "work", "mountPath": _FOLDER},
                        {"name": "shared-memory", "mountPath": "/dev/shm"},  # noqa: S108
                    ],
                }
            ],
            "volumes": [
                {"name": "work", "persistentVolumeClaim": {"claimName": self.config.claim}},
                # A container's own is 64 MiB, and processes pass tensors through it.
                {"name": "shared-memory", "emptyDir": {"medium": "Memory"}},
            ],
        }


def _rules() -> list[dict[str, Any]]:
    """Return which endings of a pod are tried again."""
    return [
        {"action": "Ignore", "onExitCodes": _codes(RESUMABLE)},
        {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
        {"action": "FailJob", "onExitCodes": _codes(*HOPELESS)},
    ]


def _codes(*codes: int) -> dict[str, Any]:
    return {"containerName": "run", "operator": "In", "values": list(codes)}
