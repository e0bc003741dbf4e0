"""The Job is one of batch/v1, and says which endings are tried again."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from peftkit.launching.kubernetes import Config, Kubernetes
from peftkit.plugins import Work
from peftkit.testing import check_scheduler

RUN = ("peftkit", "run", "r.yaml")


def documents(work: Work, **options: Any) -> list[dict[str, Any]]:
    config = Config(image="peftkit:1", claim="work", **options)
    return [*yaml.safe_load_all(Kubernetes(config).render(work).text)]


def test_a_stop_is_tried_again_and_what_is_hopeless_is_not() -> None:
    [job] = documents(Work("r", RUN, grace_seconds=300), setup="export A=1")
    spec = job["spec"]
    rules = {
        (rule["action"], *rule.get("onExitCodes", {}).get("values", ["disrupted"]))
        for rule in spec["podFailurePolicy"]["rules"]
    }
    assert rules == {("Ignore", 75), ("Ignore", "disrupted"), ("FailJob", 2, 3, 4, 6)}
    pod = spec["template"]["spec"]
    # A failure policy is allowed with this policy only.
    assert pod["restartPolicy"] == "Never"
    assert pod["terminationGracePeriodSeconds"] == 300
    [container] = pod["containers"]
    assert container["command"] == ["bash", "-c", "export A=1\nexec peftkit run r.yaml"]
    mounted = {mount["name"] for mount in container["volumeMounts"]}
    assert mounted == {volume["name"] for volume in pod["volumes"]}


def test_several_pods_find_the_first_by_name() -> None:
    work = Work("r", RUN, ("--launch", "accelerate"), 2, 8)
    service, job = documents(work, namespace="n", cpu="16")
    assert service["spec"]["clusterIP"] == "None"
    assert service["metadata"] == job["metadata"] == {"name": "r", "namespace": "n"}
    spec = job["spec"]
    assert (spec["completionMode"], spec["completions"], spec["parallelism"]) == ("Indexed", 2, 2)
    pod = spec["template"]["spec"]
    assert pod["subdomain"] == service["metadata"]["name"]
    assert pod["containers"][0]["resources"]["limits"] == {"nvidia.com/gpu": 8, "cpu": "16"}
    assert (
        '--machine_rank "$JOB_COMPLETION_INDEX" --main_process_ip "r-0.r"'
        in (pod["containers"][0]["command"][2])
    )


@pytest.mark.parametrize("num_machines", [1, 2])
def test_the_api_s_own_schema_takes_it(num_machines: int) -> None:
    validate = pytest.importorskip("kubernetes_validate").validate
    work = Work("r", RUN, ("--launch", "accelerate"), num_machines, 8)
    for document in documents(work, memory="200Gi"):
        validate(document, "1.31", strict=True)


def test_it_keeps_the_contract() -> None:
    check_scheduler(Kubernetes, {"image": "peftkit:1", "claim": "work"})
