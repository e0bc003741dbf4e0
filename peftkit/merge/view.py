"""How a merge's result looks in the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from peftkit.merge.result import MergeResult

if TYPE_CHECKING:
    from rich.console import RenderableType


def render_merge(result: MergeResult) -> RenderableType:
    """Show what was written, what was measured, and what a person should know."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    table = Table.grid(padding=(0, 2))
    table.add_row("wrote", f"{result.out} ({result.num_bytes / 2**20:,.1f} MiB of weights)")
    table.add_row("from", f"{result.source} ({result.method}) and {result.base}")
    table.add_row("changed", f"{len(result.changed)} of {result.num_tensors} tensors")
    table.add_row("seconds", f"{result.seconds:.2f}")
    if result.weight_errors:
        table.add_row("onto", result.onto)
    for weights in result.weight_errors:
        table.add_row(
            f"  {weights.onto}",
            f"weights off by {weights.relative_rms:.2e} of their size (rms), at most"
            f" {weights.max_difference:.2e}, against base + adapter",
        )
    if result.quantized_logits is not None:
        error = result.quantized_logits
        table.add_row(
            "trained",
            f"logits are off from the quantized base + adapter by up to {error.max_difference:.3g}"
            f" (rms {error.rms_difference:.2g}, largest logit {error.largest_logit:.3g})",
        )
    proof = result.verification
    if proof is None:
        table.add_row(
            "verified", "no" if result.quantized_logits else "no (--verify compares logits)"
        )
    else:
        table.add_row(
            "verified",
            f"logits differ by at most {proof.max_difference:.3g} (rms {proof.rms_difference:.2g},"
            f" tolerance {proof.tolerance:.3g}) on {proof.num_tokens} tokens of {proof.rows};"
            f" {proof.num_agreeing} of {proof.num_tokens} likeliest tokens agree",
        )
    return Group(table, *(Text(note, style="dim") for note in result.notes))
