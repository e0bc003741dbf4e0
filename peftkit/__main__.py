"""Begin `peftkit`, and `python -m peftkit`."""

import gc
import sys


def main() -> None:
    """Run the command line; a Ctrl-C while it is still being imported ends it without a word."""
    try:
        from peftkit.system.allocator import take_large_pages
        from peftkit.system.waiting import wait_asleep_if_busy

        wait_asleep_if_busy()
        take_large_pages()
        from peftkit import cli
    except KeyboardInterrupt:
        sys.exit(130)
    try:
        cli.main()
    finally:
        gc.freeze()  # what is left goes with the process: looking for garbage in it takes 1.5 s


if __name__ == "__main__":
    main()
