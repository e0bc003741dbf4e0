"""A function that is called apart belongs to no group, and its answer and errors come back."""

from __future__ import annotations

import os
from functools import partial

import pytest
from two_processes import fail, who_is_there

from peftkit.errors import ResourceError
from peftkit.system.apart import apart
from peftkit.system.process import ALONE, Process, this_process


def test_no_launcher_is_known_there(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1", "MASTER_ADDR": "127.0.0.1",
        "ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    pid, process, told = apart(who_is_there)
    assert (pid != os.getpid(), process, told) == (True, ALONE, [])
    assert this_process() == Process(1, 2, 1)


def test_an_error_is_raised_here_with_its_hint() -> None:
    with pytest.raises(ResourceError, match="too much") as caught:
        apart(partial(fail, ResourceError("too much", hint="fewer rows")))
    assert caught.value.hint == "fewer rows"
