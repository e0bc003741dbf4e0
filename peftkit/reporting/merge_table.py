"""How a merge's result looks in the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from peftkit.merging.result import CombineResult, MergeResult, Verification
from peftkit.system.units import gibibytes

if TYPE_CHECKING:
    from rich.console import RenderableType


def render_merge(result: MergeResult) -> RenderableType:
    """Show what was written, what was measured, and what a person should know."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    table = Table.grid(padding=(0, 2))
    table.add_row("wrote", f"{result.out} ({gibibytes(result.num_bytes)} of weights)")
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
    table.add_row("verified", _proof(result.verification))
    return Group(table, *(Text(note, style="dim") for note in result.notes))


def render_combination(result: CombineResult) -> RenderableType:
    """Show what several adapters became, and what was measured."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    table = Table.grid(padding=(0, 2))
    table.add_row("wrote", f"{result.out} ({gibibytes(result.num_bytes)} of weights)")
    names = " + ".join(str(source) for source in result.sources)
    table.add_row("from", f"{names} and {result.base}")
    options = ", ".join(f"{key}: {value}" for key, value in result.options.items())
    table.add_row("method", Text(f"{result.method}: {options}"))
    noun = "tensors" if result.to == "base" else "modules"
    table.add_row("changed", f"{len(result.changed)} {noun}")
    table.add_row("seconds", f"{result.seconds:.2f}")
    if result.deviation is not None:
        table.add_row(
            "differs",
            f"by {result.deviation:.1%} from the weighted sum of the adapters' changes, which svd"
            f" and cat give: {result.method} combines A and B apart, as peft does",
        )
    if result.error is not None:
        where = f" ({result.worst[1]:.2e} in {result.worst[0]})" if result.worst else ""
        table.add_row(
            "lost", f"{result.error:.2e} of the combined change's size{where} at rank {result.rank}"
        )
    if result.to == "base":
        table.add_row("verified", _proof(result.verification))
    return Group(table, *(Text(note, style="dim") for note in result.notes))


def _proof(proof: Verification | None) -> str:
    if proof is None:
        return "no (--verify loads it and compares logits)"
    text = (
        f"logits differ by at most {proof.max_difference:.3g} (rms {proof.rms_difference:.2g},"
        f" tolerance {proof.tolerance:.3g}) at {proof.num_tokens} positions of {proof.rows};"
        f" the largest is the same at {proof.num_agreeing} of {proof.num_tokens}"
    )
    if proof.lost_to_rounding is None:
        return text
    return (
        f"{text}; this is against peft's own merge, rounded alike: the rounding moves the logits"
        f" of base + adapter by up to {proof.lost_to_rounding:.3g}, which a base of wider weights"
        " keeps (--base)"
    )
