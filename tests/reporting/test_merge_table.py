"""What a person sees of a merge."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from rich.console import Console

from peftkit.merging.result import LogitError, MergeResult, Verification, WeightError
from peftkit.reporting.merge_table import render_merge

RESULT = MergeResult(
    out=Path("out"), source=Path("runs/x"), base="base", method="LORA", onto="full",
    changed=("a", "b"), num_tensors=5, num_bytes=3 << 20, files=(), seconds=1.5,
)  # fmt: skip


def text(result: MergeResult) -> str:
    console = Console(width=300)
    with console.capture() as capture:
        console.print(render_merge(result))
    return capture.get()


def test_a_plain_merge_says_what_changed_and_that_it_is_unproven() -> None:
    shown = text(RESULT)
    assert "out (3.0 MiB of weights)" in shown and "2 of 5 tensors" in shown
    assert "--verify" in shown and "weights off by" not in shown


def test_proof_errors_and_notes_are_shown() -> None:
    result = dataclasses.replace(
        RESULT,
        notes=("The base ties its head.",),
        weight_errors=(WeightError("requantized", 0.0894, 0.05),),
        quantized_logits=LogitError(0.156, 0.008, 1.2),
        verification=Verification(4, 100, 0.01, 0.001, 0.2, "x", "the run's rows", 99),
    )
    shown = text(result)
    assert "weights off by 8.94e-02 of their size" in shown
    assert "up to 0.156" in shown and "The base ties its head." in shown
    assert "at most 0.01" in shown and "99 of 100" in shown
    assert "rounded alike" not in shown


def test_what_rounding_costs_is_said_where_it_is_much() -> None:
    proof = Verification(4, 100, 0.01, 0.001, 0.2, "x", "the run's rows", 99, 0.3)
    shown = text(dataclasses.replace(RESULT, verification=proof))
    assert "rounding moves the logits of base + adapter by up to 0.3" in shown
