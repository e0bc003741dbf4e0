"""What stands behind `--` is accelerate's own, and what it cannot mean is said at once."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
import torch

from peftkit.errors import UsageError
from peftkit.launching.arguments import (
    chosen_arguments,
    find_machine_problems,
    is_free,
    read_arguments,
)

TWO = ("--num_processes", "2")


def test_arguments_are_counted_as_accelerate_counts_them() -> None:
    address = ("--main_process_ip", "10.0.0.1", "--main_process_port", "29501")
    machines = ("--num_machines", "2", "--machine_rank", "1")
    found = read_arguments(("--num-processes=8", *machines, *address))
    assert (found.num_processes, found.num_machines, found.num_here) == (8, 2, 4)
    assert found.port == 29501
    assert not found.meets_here
    assert found.problems == ()


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (("--num_proceses", "2"), "no --num_proceses; did you mean --num_processes"),
        (("--num_processes", "two"), "invalid int value: 'two'"),
        ((*TWO, "--module"), "--module is set by peftkit"),
        ((*TWO, "seed=1"), "'seed=1' is none"),
        (("--help",), "prints what may follow"),
    ],
)
def test_what_is_no_argument_is_refused(given: tuple[str, ...], says: str) -> None:
    with pytest.raises(UsageError) as refused:
        read_arguments(given)
    assert says.lower() in str(refused.value).lower()


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ((), "how many processes?"),
        (("--num_processes", "0"), "starts none"),
        (("--num_processes", "3", "--num_machines", "2", "--main_process_ip", "a"), "share them"),
        (("--num_processes", "4", "--num_machines", "2"), "--main_process_ip"),
        ((*TWO, "--max_restarts", "1"), "--max_restarts"),
        ((*TWO, "--mixed_precision", "bf16"), "method.METHOD.bf16=true"),
        ((*TWO, "--cpu"), "gloo"),
        ((*TWO, "--config_file", "none.yaml"), "none.yaml cannot be read"),
    ],
)
def test_what_cannot_be_meant_is_listed(given: tuple[str, ...], says: str) -> None:
    assert any(says in problem for problem in read_arguments(given).problems)


def test_a_config_file_of_one_s_own_counts_too(tmp_path: Path) -> None:
    file = tmp_path / "own.yaml"
    file.write_text("distributed_type: MULTI_GPU\nnum_processes: 4\nmain_process_port: 1234\n")
    found = read_arguments(("--config_file", str(file)))
    assert (found.num_processes, found.port, found.problems) == (4, 1234, ())
    assert read_arguments(("--config_file", str(file), *TWO)).num_processes == 2
    file.write_text("distributed_type: 'NO'\n")
    assert "starts one process" in read_arguments(("--config_file", str(file), *TWO)).problems[0]
    file.write_text("distributed_type: MULTI_GPU\nnum_proceses: 4\n")
    assert "num_proceses" in read_arguments(("--config_file", str(file), *TWO)).problems[0]


def test_more_processes_than_devices_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    monkeypatch.setattr(torch.accelerator, "device_count", lambda: 1)
    found = read_arguments(TWO)
    [problem] = find_machine_problems(found, uses_cpu=False)
    assert problem.startswith("2 processes on this machine, and it has 1 device")
    assert list(find_machine_problems(found, uses_cpu=True)) == []
    monkeypatch.setattr(torch.accelerator, "device_count", lambda: 2)
    assert list(find_machine_problems(found, uses_cpu=False)) == []


def test_a_port_in_use_is_refused_and_none_is_asked_for() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert not is_free(port)
        found = read_arguments((*TWO, "--main_process_port", str(port)))
        [problem] = find_machine_problems(found, uses_cpu=True)
        assert problem.startswith(f"--main_process_port {port} is in use")
    assert is_free(port)


def test_a_free_port_and_an_even_share_of_cores_are_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS")
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {*range(17)})
    assert chosen_arguments(read_arguments(TWO)) == [
        "--main_process_port", "0", "--num_cpu_threads_per_process", "8",
    ]  # fmt: skip
    stated = (*TWO, "--main_process_port", "1234", "--num_cpu_threads_per_process", "3")
    assert chosen_arguments(read_arguments(stated)) == []
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert "--num_cpu_threads_per_process" not in chosen_arguments(read_arguments(TWO))
