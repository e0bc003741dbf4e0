"""A job's command is the same at each start, and a name is one that DNS takes."""

from __future__ import annotations

import shlex

import pytest

from peftkit.plugins import Work

RUN = ("peftkit", "run", "a b.yaml", "seed=3")


def test_one_process_needs_no_launcher() -> None:
    assert shlex.split(Work("r", RUN).shell(rank="$R", address="$A")) == list(RUN)


def test_machines_are_counted_as_accelerate_counts_them() -> None:
    work = Work("r", RUN, ("--launch", "accelerate", "--engine", "fsdp2"), 2, 8)
    assert shlex.split(work.shell(rank="$R", address="$A")) == [
        *RUN, "--launch", "accelerate", "--engine", "fsdp2", "--", "--num_processes", "16",
        "--num_machines", "2", "--machine_rank", "$R", "--main_process_ip", "$A",
        "--main_process_port", "29500",
    ]  # fmt: skip
    assert work.gpus_per_machine == 8
    assert Work("r", RUN, uses_gpus=False).gpus_per_machine == 0


@pytest.mark.parametrize(
    ("name", "label"),
    [("My_Run.2", "my-run-2"), ("--", "run"), ("é", "run"), ("a" * 80, "a" * 50)],
)
def test_a_label_is_a_name_of_dns(name: str, label: str) -> None:
    assert Work(name, RUN).label == label
