"""Drive a headless Chromium over its debugging pipe, with the standard library alone."""

from __future__ import annotations

import base64
import json
import os
import select
import shlex
import shutil
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

EXECUTABLE = shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = shlex.split(
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --hide-scrollbars "
    "--disable-background-networking --disable-component-update --disable-sync "
    "--disable-extensions --disable-dev-shm-usage --no-proxy-server --remote-debugging-pipe"
)


@dataclass
class Page:
    """Hold what loading one page showed."""

    overflow: int
    """Pixels by which the document is wider than the window."""
    requests: list[str] = field(default_factory=list)
    console: list[str] = field(default_factory=list)
    background: str = ""
    values: dict[str, Any] = field(default_factory=dict)


class Chromium:
    """Hold one browser process; use as a context manager."""

    def __init__(self, profile: Path) -> None:
        command_read, self._command = os.pipe()
        self._reply, reply_write = os.pipe()
        # Chromium reads commands from descriptor 3 and writes replies to 4
        command = (
            f"exec {EXECUTABLE} {' '.join(FLAGS)} --user-data-dir={profile} about:blank "
            f"3<&{command_read} 4>&{reply_write}"
        )
        self._process = subprocess.Popen(
            ["bash", "-c", command],
            pass_fds=(command_read, reply_write),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(command_read)
        os.close(reply_write)
        self._buffer = b""
        self._next_id = 0
        self._events: list[dict[str, Any]] = []

    def __enter__(self) -> Chromium:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._command)
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        os.close(self._reply)

    def load(
        self,
        file: Path,
        *,
        width: int,
        scheme: str = "light",
        screenshot: Path | None = None,
        evaluate: dict[str, str] | None = None,
    ) -> Page:
        """Open a file in a window of this width and scheme and report what happened."""
        target = self._call("Target.createTarget", url="about:blank")["targetId"]
        session = self._call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        self._events.clear()
        for domain in ("Page", "Network", "Runtime", "Log"):
            self._call(f"{domain}.enable", session)
        self._call("Emulation.setEmulatedMedia", session,
                   features=[{"name": "prefers-color-scheme", "value": scheme}])  # fmt: skip
        self._call("Emulation.setDeviceMetricsOverride", session,
                   width=width, height=900, deviceScaleFactor=1, mobile=False)  # fmt: skip
        self._call("Page.navigate", session, url=file.resolve().as_uri())
        self._wait_for("Page.loadEventFired", session)
        time.sleep(0.2)
        overflow = self._value(
            session, "document.documentElement.scrollWidth - document.documentElement.clientWidth"
        )
        background = self._value(session, "getComputedStyle(document.body).backgroundColor")
        values = {n: self._value(session, code) for n, code in (evaluate or {}).items()}
        if screenshot:
            taken = self._call("Page.captureScreenshot", session, captureBeyondViewport=True,
                               clip=self._whole(session))  # fmt: skip
            screenshot.write_bytes(base64.b64decode(taken["data"]))
        page = Page(overflow, background=background, values=values)
        for event in self._events:
            self._note(event, page, file)
        self._call("Target.closeTarget", targetId=target)
        return page

    def _note(self, event: dict[str, Any], page: Page, file: Path) -> None:
        method, params = event.get("method"), event.get("params", {})
        if method == "Network.requestWillBeSent":
            url = params["request"]["url"]
            if url != file.resolve().as_uri() and not url.startswith("data:"):
                page.requests.append(url)
        elif method == "Runtime.consoleAPICalled":
            page.console.append(json.dumps(params.get("args")))
        elif method == "Runtime.exceptionThrown":
            page.console.append(params["exceptionDetails"]["text"])
        elif method == "Log.entryAdded":
            page.console.append(params["entry"]["text"])

    def _whole(self, session: str) -> dict[str, float]:
        size = self._call("Page.getLayoutMetrics", session)["cssContentSize"]
        return {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}

    def _value(self, session: str, code: str) -> Any:
        reply = self._call("Runtime.evaluate", session, expression=code, returnByValue=True)
        return reply["result"].get("value")

    def _call(self, method: str, session: str | None = None, **params: Any) -> dict[str, Any]:
        self._next_id += 1
        message: dict[str, Any] = {"id": self._next_id, "method": method, "params": params}
        if session:
            message["sessionId"] = session
        os.write(self._command, json.dumps(message).encode() + b"\0")
        while True:
            reply = self._read()
            if reply.get("id") == self._next_id:
                if "error" in reply:
                    raise RuntimeError(f"{method}: {reply['error']['message']}")
                return reply["result"]
            self._events.append(reply)

    def _wait_for(self, method: str, session: str) -> None:
        while not any(
            e.get("method") == method and e.get("sessionId") == session for e in self._events
        ):
            self._events.append(self._read())

    def _read(self, timeout: float = 60) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._reply], [], [], timeout)
            chunk = os.read(self._reply, 1 << 20) if ready else b""
            if not chunk:
                raise RuntimeError("Chromium ended or went silent")
            self._buffer += chunk
        message, self._buffer = self._buffer.split(b"\0", 1)
        return json.loads(message)
