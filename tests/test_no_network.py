"""The tests' own promise: a connection that would leave this machine is refused."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest


def test_this_process_refuses_the_network() -> None:
    with pytest.raises(ConnectionRefusedError, match="tests refuse the network"):
        socket.create_connection(("192.0.2.1", 80), timeout=1)
    with pytest.raises(ConnectionRefusedError, match="tests refuse the network"):
        socket.getaddrinfo("example.org", 443)


def test_child_processes_refuse_it_too() -> None:
    script = "import socket; socket.create_connection(('192.0.2.1', 80), timeout=1)"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert "tests refuse the network" in done.stderr


VERBS = """
import sys
import sitecustomize
from peftkit.cli import main

recipe, run = sys.argv[1:]
for command in (
    ["check", "--build", recipe],
    ["data", recipe],
    ["run", recipe, "--out", run],
    ["evaluate", run, "--limit", "2"],
    ["generate", run, "return the sum", "-o", "max_new_tokens=4"],
    ["report", run],
    ["doctor"],
):
    try:
        main(command)
    except SystemExit as left:
        assert not left.code, (command, left.code)
assert sitecustomize.attempts == [], sitecustomize.attempts
"""


def test_no_verb_even_tries(tiny_recipe: Path, tmp_path: Path) -> None:
    # An empty cache and a home that holds nothing: what a library wants to fetch, it must ask for.
    fresh = {"HOME": str(tmp_path / "home"), "HF_HOME": str(tmp_path / "hub")}
    done = subprocess.run(
        [sys.executable, "-c", VERBS, str(tiny_recipe), str(tmp_path / "run")],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        env={**os.environ, **fresh},
    )
    assert done.returncode == 0, done.stdout + done.stderr
