"""unsloth: needs a GPU, so that this comparison on a CPU can only say so."""

from __future__ import annotations

import sys

if __name__ == "__main__":
    sys.exit("unsloth runs on GPUs only, and this compares on a CPU")
