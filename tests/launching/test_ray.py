"""The RayJob starts the same command on a cluster of its own."""

from __future__ import annotations

import yaml

from peftkit.launching.ray import Config, Ray
from peftkit.plugins import Work
from peftkit.testing import check_scheduler

RUN = ("peftkit", "run", "r.yaml")


def test_a_job_waits_for_the_run_and_is_tried_again() -> None:
    config = Config(image="ray:1", claim="work", namespace="n", setup="export A=1\n")
    work = Work("r", RUN, ("--launch", "accelerate"), 1, 4, grace_seconds=300)
    job = yaml.safe_load(Ray(config).render(work).text)
    spec = job["spec"]
    assert job["metadata"] == {"name": "r", "namespace": "n"}
    assert spec["entrypoint"].startswith("cd /work && export A=1; exec peftkit run r.yaml --launch")
    assert (spec["entrypointNumGpus"], spec["backoffLimit"]) == (4, 6)
    waits = yaml.safe_load(spec["runtimeEnvYAML"])["env_vars"]
    assert waits == {"RAY_JOB_STOP_WAIT_TIME_S": "300"}
    pod = spec["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]
    assert pod["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == 4
    # Of KubeRay's RayJobSpec: ray-operator/apis/ray/v1/rayjob_types.go
    assert {*spec} <= {
        "entrypoint", "entrypointNumGpus", "backoffLimit", "shutdownAfterJobFinishes",
        "runtimeEnvYAML", "rayClusterSpec",
    }  # fmt: skip


def test_it_keeps_the_contract() -> None:
    check_scheduler(Ray, {"image": "ray:1", "claim": "work"})
