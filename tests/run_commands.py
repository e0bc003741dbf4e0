"""Run commands of peftkit one after another in this interpreter, another environment's.

Its first argument is JSON: a name for each command -> its arguments. What each of them printed and
how it left comes out as JSON too, in the file that the second argument names.
"""

from __future__ import annotations

import contextlib
import io
import json
import sys
from collections.abc import Sequence
from pathlib import Path


def outcome_of(arguments: Sequence[str]) -> dict[str, int | str]:
    """Run one command."""
    from peftkit.cli import main

    out, err, code = io.StringIO(), io.StringIO(), 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main(list(arguments))
        except SystemExit as left:
            code = int(left.code or 0)
    return {"code": code, "out": out.getvalue(), "err": err.getvalue()}


if __name__ == "__main__":
    asked = json.loads(sys.argv[1])
    outcomes = {name: outcome_of(arguments) for name, arguments in asked.items()}
    Path(sys.argv[2]).write_text(json.dumps(outcomes), encoding="utf-8")
