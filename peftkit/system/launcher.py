"""Leave an error where the launcher that started this process reads it.

torch's elastic agent names a file for each of its processes and tells from it which failed first
and why; the format is that of `torch.distributed.elastic.multiprocessing.errors`.
"""

from __future__ import annotations

import json
import os
import time
from contextlib import suppress
from pathlib import Path

FILE = "TORCHELASTIC_ERROR_FILE"


def leave_for_launcher(message: str, exit_code: int) -> bool:
    """Leave a message for the launcher; tell whether there is one that reads it."""
    file = os.environ.get(FILE)
    if not file:
        return False
    extra = {"py_callstack": message, "timestamp": str(int(time.time()))}
    left = {"message": {"message": message, "errorCode": exit_code, "extraInfo": extra}}
    with suppress(OSError):
        Path(file).write_text(json.dumps(left), encoding="utf-8")
        return True
    return False
