"""Refuse every connection that would leave this machine, in any Python that finds this file.

An audit hook cannot be removed or bypassed by the code under test.
"""

import sys

LOCAL = ("127.", "::1", "localhost")
attempts: list[str] = []
"""What was refused, also where the code under test kept quiet about it."""


def _refuse(event: str, args: tuple) -> None:
    if event == "socket.connect":
        address = args[1]
        host = address[0] if isinstance(address, tuple) else None  # a path is a local socket
    elif event in {"socket.getaddrinfo", "socket.gethostbyname"}:
        host = args[0]
    else:
        return
    if isinstance(host, bytes):
        host = host.decode()
    if host and not str(host).startswith(LOCAL):
        attempts.append(f"{event} {host}")
        raise ConnectionRefusedError(f"tests refuse the network: {attempts[-1]}")


sys.addaudithook(_refuse)
