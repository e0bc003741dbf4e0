"""The task is a managed job that goes on where it was stopped."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from peftkit.errors import UsageError
from peftkit.launching.skypilot import Config, SkyPilot
from peftkit.plugins import Work
from peftkit.testing import check_scheduler

RUN = ("peftkit", "run", "r.yaml")
OPTIONS = {"bucket": "s3://runs", "accelerators": "H100"}


def task(work: Work, **options: Any) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(SkyPilot(Config(**OPTIONS, **options)).render(work).text)
    return found


def test_a_stop_is_recovered_and_runs_outlive_the_machine() -> None:
    found = task(Work("r", RUN, ("--launch", "accelerate"), 2, 8), infra="aws")
    resources = found["resources"]
    assert resources["job_recovery"]["recover_on_exit_codes"] == [75]
    assert (resources["accelerators"], resources["infra"]) == ("H100:8", "aws")
    assert found["file_mounts"]["~/sky_workdir/runs"]["source"] == "s3://runs"
    assert found["num_nodes"] == 2
    assert '--machine_rank "$SKYPILOT_NODE_RANK" --main_process_ip "$MAIN"' in found["run"]


def test_a_gpu_without_a_name_is_refused() -> None:
    nameless = SkyPilot(Config(bucket="s3://runs"))
    with pytest.raises(UsageError, match="accelerators=H100"):
        nameless.render(Work("r", RUN))
    assert "accelerators" not in nameless.render(Work("r", RUN, uses_gpus=False)).text


def test_sky_s_own_schema_takes_it() -> None:
    schemas = pytest.importorskip("sky.utils.schemas")
    jsonschema = pytest.importorskip("jsonschema")
    found = task(Work("r", RUN, ("--launch", "accelerate"), 2, 8), infra="aws/us-east-1")
    jsonschema.validate(found, schemas.get_task_schema())
    jsonschema.validate(found["resources"], schemas.get_resources_schema())


def test_it_keeps_the_contract() -> None:
    check_scheduler(SkyPilot, OPTIONS)
