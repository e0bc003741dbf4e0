"""Silence for what the stack says on import and on load, where we say it better or not at all."""

from __future__ import annotations

import logging
import os
import warnings

_QUIET_LOGGERS = (
    # "Failed to load CPU gemm_4bit_forward ...": an optional kernel; the built-in one is used.
    "bitsandbytes",
    # "Skipping import of cpp extensions ...": optional as well.
    "torchao",
    # "... register_constant() on Enum subclasses is deprecated ...": of torchao's, on import.
    "torch.utils._pytree",
)


def quiet_stack() -> None:
    """Hold the stack's advisories below errors; call it before the stack is imported."""
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    # Read by transformers when its first logger is made; a level set by the user wins.
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
    # Forked workers make tokenizers print a paragraph otherwise; one process encodes the rows.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    # peft and trl use, at every step, members that transformers has renamed.
    renamed = r"`(is_gradient_checkpointing|gradient_checkpointing_\w+)` is deprecated"
    warnings.filterwarnings("ignore", renamed, FutureWarning)
    for name in _QUIET_LOGGERS:
        logging.getLogger(name).setLevel(logging.ERROR)
