"""The command line: each command parses, calls one function, prints."""

from __future__ import annotations

import sys

from peftkit.cli import artefacts, memory, recipes, runs  # noqa: F401 - each registers its commands
from peftkit.cli.app import app, print_error
from peftkit.errors import PeftkitError


def main() -> None:
    """Run the command line and leave with a documented exit code."""
    try:
        app()
    except PeftkitError as error:
        if "--traceback" in sys.argv:
            raise
        print_error(error)
        sys.exit(error.exit_code)
    except BrokenPipeError:
        # The reader (`| head`) has gone; closing stdout ourselves keeps Python from complaining.
        sys.stderr.close()
        sys.exit(0)
    except Exception as error:
        if "--traceback" in sys.argv:
            raise
        print(  # noqa: T201
            f"peftkit: {type(error).__name__}: {error}\n"
            "This is a bug in peftkit: please report it with what --traceback prints "
            "(peftkit --traceback VERB ...).",
            file=sys.stderr,
        )
        sys.exit(1)
