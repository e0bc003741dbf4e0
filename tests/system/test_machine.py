"""The machine is described as decisions need it, quickly."""

from __future__ import annotations

import pytest

from peftkit.system import machine


def test_describes_this_machine() -> None:
    import torch

    described = machine.describe_machine()
    assert described.device == ("cuda" if torch.cuda.is_available() else "cpu")
    assert 0 < described.free_bytes <= described.total_bytes
    assert described.name


def test_a_control_group_bounds_the_memory(tmp_path, monkeypatch) -> None:
    limit, usage = tmp_path / "memory.max", tmp_path / "memory.current"
    limit.write_text(f"{2**30}\n")
    usage.write_text(f"{2**28}\n")
    monkeypatch.setattr(machine, "_CGROUP_FILES", ((limit, usage),))
    assert machine.host_memory() == (2**30, 2**30 - 2**28)


@pytest.mark.parametrize("text", ["max\n", f"{2**63 - 4096}\n"])
def test_no_limit_leaves_the_machine_s_own(tmp_path, monkeypatch, text: str) -> None:
    import psutil

    limit = tmp_path / "memory.max"
    limit.write_text(text)
    monkeypatch.setattr(machine, "_CGROUP_FILES", ((limit, tmp_path / "none"),))
    assert machine.host_memory()[0] == psutil.virtual_memory().total


@pytest.mark.gpu
def test_a_gpu_says_its_memory_as_the_driver_does() -> None:
    import torch

    if not torch.cuda.is_available():
        pytest.skip("no GPU here")
    assert machine.describe_machine().total_bytes == torch.cuda.mem_get_info()[1]
