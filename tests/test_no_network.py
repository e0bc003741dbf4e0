"""The tests' own promise: a connection that would leave this machine is refused."""

from __future__ import annotations

import socket
import subprocess
import sys

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


def test_this_machine_can_be_reached() -> None:
    with socket.socket() as server, socket.socket() as client:
        server.bind(("127.0.0.1", 0))
        server.listen()
        client.connect(server.getsockname())
