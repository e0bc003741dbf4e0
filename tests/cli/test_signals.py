"""A signal to any verb, at any moment: a documented code, no traceback, nothing left behind."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

PEFTKIT = Path(sys.executable).with_name("peftkit")
CODES = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGHUP: 129}
VERBS = {
    "merge": ("merge", "{run}", "--out", "out"),
    "export": ("export", "{run}", "--to", "safetensors", "--out", "out"),
    "evaluate": ("evaluate", "{run}"),
    "generate": ("generate", "{run}", "read a file", "-o", "max_new_tokens=400"),
    "data": ("data", "{recipe}"),
    "plan": ("plan", "{recipe}"),
}
MOMENTS = (0.3, 1.0, 2.0, 4.0, 6.0, 8.0)


@pytest.mark.slow
@pytest.mark.parametrize("number", CODES, ids=lambda number: signal.Signals(number).name)
@pytest.mark.parametrize("verb", VERBS)
def test_a_signal_leaves_a_documented_code_and_no_scratch(
    tmp_path: Path, tiny_run: Path, verb: str, number: int
) -> None:
    places = {"run": str(tiny_run), "recipe": str(tiny_run / "recipe.yaml")}
    command = [str(PEFTKIT), *(word.format(**places) for word in VERBS[verb])]
    for moment in MOMENTS:
        started = subprocess.Popen(
            command, cwd=tmp_path, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        time.sleep(moment)
        started.send_signal(number)
        _, err = started.communicate(timeout=120)
        # Python itself is not there before about 0.1 s, and then the kernel ends it.
        assert started.returncode in (0, CODES[number], -number, 2), (moment, err)
        assert "Traceback" not in err, (moment, err)
        assert list(tmp_path.glob(".out*")) == [], moment
