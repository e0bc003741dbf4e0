"""One adapter opened: its config, its tensors, and the base tensors it changes."""

from __future__ import annotations
