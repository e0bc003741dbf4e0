"""Run `peftkit run` in a fork of this process, and have something happen at its n-th write.

A write is what changes a file of the run: one opened to be written, made, renamed or deleted, as
Python's own audit tells, and every fsync. What safetensors writes by itself lies between two.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

CHANGES = ("os.rename", "os.remove", "os.mkdir", "os.rmdir")


def run_forked(recipe: Path, out: Path, at_write: Callable[[int], None] = lambda _: None) -> int:
    """Run a recipe in a child; return its exit code, or minus the signal that ended it.

    Args:
        at_write: called before each write with its number, from 1.
    """
    child = os.fork()
    if child == 0:
        code = 99
        try:
            code = _run(recipe, out, at_write)
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def run_words(words: list[str], said: Path) -> tuple[int, str]:
    """Run a command in a fork of this process; return its exit code and what it said."""
    child = os.fork()
    if child == 0:
        code = 99
        try:
            _speak_into(said)
            code = call(words)
        finally:
            os._exit(code)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return code, said.read_text("utf-8", errors="replace")


def call(words: list[str]) -> int:
    """Run a command in this process, as a shell does; return its exit code."""
    from peftkit.cli import main

    warnings.resetwarnings()  # which are errors here, and none in a shell
    try:
        main(words)
    except SystemExit as left:
        return int(left.code or 0)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
    return 98


def _speak_into(said: Path) -> None:
    stream = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(stream, 1)
    os.dup2(stream, 2)
    sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w")


def num_writes(recipe: Path, out: Path) -> int:
    """Run a recipe to its end and count its writes."""
    counted = out.with_name("counted")
    assert run_forked(recipe, out, lambda number: _note(counted, number)) == 0
    return counted.stat().st_size


def _note(file: Path, _number: int) -> None:
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.write(descriptor, b".")
    os.close(descriptor)


def _run(recipe: Path, out: Path, at_write: Callable[[int], None]) -> int:
    _speak_into(out.with_name("said"))
    _watch(str(out), at_write)
    return call(["run", str(recipe), "--out", str(out)])


def _watch(inside: str, at_write: Callable[[int], None]) -> None:
    number = 0

    def happen() -> None:
        nonlocal number
        number += 1
        at_write(number)

    def hear(event: str, arguments: tuple[Any, ...]) -> None:
        is_write = event == "open" and bool(
            isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR)
        )
        if (is_write or event in CHANGES) and str(arguments[0]).startswith(inside):
            happen()

    plain = os.fsync

    def fsync(descriptor: int) -> None:
        happen()
        plain(descriptor)

    os.fsync = fsync  # of this child alone; Python tells nobody of it
    sys.addaudithook(hear)
