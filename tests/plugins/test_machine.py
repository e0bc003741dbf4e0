"""What is decided yields to what a recipe states."""

from __future__ import annotations

from peftkit.plugins.machine import Chosen, Decision, decided


def test_only_what_is_open_is_decided() -> None:
    chosen = [Chosen("bf16", True, "fast"), Chosen("fp16", False, "slow")]
    assert decided("method.sft", chosen, {"fp16": None}) == [
        Decision("method.sft.bf16", True, "fast")
    ]
