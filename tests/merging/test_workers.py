"""Workers give the results of this process; what breaks or ends in one reaches the parent."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from peftkit.errors import ArtefactError, ResourceError
from peftkit.merging.workers import Scratch, Workers

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="workers are forked on Linux only")


def test_a_buffer_is_kept_and_grows() -> None:
    scratch = Scratch()
    first = scratch.take("a", (3, 4), "float32")
    first[:] = 7
    again = scratch.take("a", (2, 2), "float32")
    assert again.base is first.base and (again == 7).all()
    assert scratch.take("b", (3, 4), "float32").base is not first.base
    larger = scratch.take("a", (100, 100), "float64")
    assert larger.shape == (100, 100) and larger.base is not first.base


@pytest.mark.parametrize("number", [1, 3])
def test_results_are_those_of_the_function_in_order(number: int) -> None:
    def square(piece: int, scratch: Scratch) -> tuple[int, int]:
        buffer = scratch.take("x", (10,), "int64")
        buffer[:] = np.arange(10) * piece
        return int((buffer**2).sum()), os.getpid()

    with Workers(square, number) as workers:
        found = [result() for result in [workers.submit(piece) for piece in range(40)]]
    assert [value for value, _ in found] == [285 * piece**2 for piece in range(40)]
    processes = {process for _, process in found}
    assert (os.getpid() in processes) == (number == 1)
    assert len(processes) <= number


@pytest.mark.parametrize("number", [1, 2])
def test_an_error_keeps_its_kind_and_its_hint(number: int) -> None:
    def refuse(piece: str, _: Scratch) -> None:
        raise ArtefactError(f"{piece} is broken", hint="mend it")

    with Workers(refuse, number) as workers:
        result = workers.submit("tensor")
        with pytest.raises(ArtefactError, match="tensor is broken") as caught:
            result()
    assert caught.value.hint == "mend it"


def test_a_worker_that_is_killed_is_said_to_be() -> None:
    def die(_: int, __: Scratch) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    with Workers(die, 2) as workers:
        result = workers.submit(0)
        with pytest.raises(ResourceError, match="a worker process was killed"):
            result()


COUNTED = """
import threading
from peftkit.merging.workers import number_of_workers
print(number_of_workers(1 << 20), number_of_workers(1 << 30))
stop = threading.Event()
threading.Thread(target=stop.wait).start()
print(number_of_workers(1 << 30))
stop.set()
"""


def test_little_work_and_threads_stay_in_this_process() -> None:
    # In a process of its own, since what runs the tests may run threads.
    command = [sys.executable, "-c", COUNTED]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["1", str(min(8, len(os.sched_getaffinity(0)))), "1"]


ORPHANS = """
import os, sys, time
from peftkit.merging.workers import Workers
def sleep(_, __):
    os.write(1, b"%d\\n" % os.getpid())  # at once: two print
    time.sleep(60)
with Workers(sleep, 2) as workers:
    results = [workers.submit(n) for n in range(2)]
    results[0]()
"""


def is_running(process: int) -> bool:
    try:
        stat = Path(f"/proc/{process}/stat").read_text()
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"  # dead, but nobody has asked yet


def test_workers_end_with_their_parent_whatever_it_dies_of() -> None:
    with subprocess.Popen([sys.executable, "-c", ORPHANS], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        workers = [int(parent.stdout.readline()) for _ in range(2)]
        parent.kill()
    deadline = time.monotonic() + 10
    while any(map(is_running, workers)):
        assert time.monotonic() < deadline
        time.sleep(0.05)
