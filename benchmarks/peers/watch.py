"""Measure a command: its seconds, the processors', and the peak of all its processes."""

from __future__ import annotations

import os
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

EVERY_SECONDS = 0.05


@dataclass(frozen=True)
class Usage:
    """Say what a command took."""

    wall_seconds: float
    processor_seconds: float
    peak_bytes: int
    """Resident bytes of the command and all its children, at the worst moment."""
    exit_code: int


def watch(
    command: Sequence[str], *, environment: Mapping[str, str], log: Path, folder: Path
) -> Usage:
    """Run a command, its output in a file, and measure it."""
    done = threading.Event()
    peak = [0]
    with log.open("wb") as stream:
        began = time.perf_counter()
        process = subprocess.Popen(
            command, env=environment, stdout=stream, stderr=subprocess.STDOUT, cwd=folder,
            stdin=subprocess.DEVNULL,
        )  # fmt: skip
        sampler = threading.Thread(target=_sample, args=(process.pid, peak, done))
        sampler.start()
        _, status, used = os.wait4(process.pid, 0)  # of its children too, once it waited for them
        wall = time.perf_counter() - began
    process.returncode = os.waitstatus_to_exitcode(status)
    done.set()
    sampler.join()
    # A process that lives shorter than a sample is still known to the kernel.
    peak_bytes = max(peak[0], used.ru_maxrss * 1024)
    return Usage(wall, used.ru_utime + used.ru_stime, peak_bytes, process.returncode)


def _sample(pid: int, peak: list[int], done: threading.Event) -> None:
    while not done.wait(EVERY_SECONDS):
        try:
            root = psutil.Process(pid)
            total = 0
            for one in [root, *root.children(recursive=True)]:
                try:
                    total += one.memory_info().rss
                except psutil.Error:
                    continue
            peak[0] = max(peak[0], total)
        except psutil.Error:
            continue
