"""How large a recipe's micro-batches are, how their rows lie, and how much of them is padding."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from peftkit.memory.lengths import longest_target, rows_at_most

if TYPE_CHECKING:
    from transformers import PretrainedConfig

    from peftkit.plugins import Method
    from peftkit.recipe.build import Built


@dataclass(frozen=True)
class BatchShape:
    """Say how large a recipe's micro-batches are and how their rows lie."""

    micro_batch: int
    length: int
    """Tokens of the longest row."""
    num_tokens: int
    """Real tokens of an average micro-batch."""
    padded_tokens: int
    """The same, padding included, of one sequence a row."""
    is_flat: bool
    """Whether all rows are put into one, as trl's padding-free collator does."""
    by_rows: bool
    """Whether attention is told of the rows in it."""
    takes_mask: bool
    """Whether attention needs a dense mask to keep rows apart or to skip padding."""
    varies: bool
    """Whether rows have several lengths, so that shorter ones are padded."""
    shortest: int = 0
    """Tokens of the shortest row."""
    target_length: int = 0
    """Tokens of the longest target that a decoder writes; 0 where there is none."""
    num_sequences: int = 1
    """See `Method.num_sequences`."""

    def layout(self, rows: int) -> str:
        """Return the layout of a micro-batch of this many rows; see `Point`."""
        if self.by_rows:
            return "rows"
        if self.is_flat:
            return "packed" if self.takes_mask else "flat"
        is_padded = self.varies and rows * self.num_sequences > 1
        return "padded" if is_padded and self.takes_mask else "full"


def batch_shape(
    built: Built, config: PretrainedConfig, lengths: Sequence[int] | None
) -> BatchShape:
    """Read a recipe's micro-batch off its method and its rows' lengths."""
    method = built.method
    args = method.config
    rows = rows_at_most(int(args.per_device_train_batch_size), lengths)
    longest = getattr(config.get_text_config(), "max_position_embeddings", None) or 1024
    stated = lengths or [int(method.longest_row or longest)]
    multiple = method.padding_multiple
    padded = [-(-length // multiple) * multiple for length in stated]
    attention = built.recipe.model.attn_implementation or "sdpa"
    by_rows = method.way(config).by_rows
    is_flat = method.is_flat or by_rows
    is_sorted = args.train_sampling_strategy == "group_by_length"
    mean = sum(stated) / len(stated) if lengths else padded[0]
    return BatchShape(
        micro_batch=rows,
        length=max(padded),
        shortest=min(padded),
        num_tokens=round(rows * method.num_sequences * mean),
        padded_tokens=round(
            rows * (mean if is_flat else padded_length(padded, rows, is_sorted=is_sorted))
        ),
        is_flat=is_flat,
        by_rows=by_rows,
        takes_mask=not attention.startswith("flash"),
        # Of several sequences of a row, all but the longest are padded.
        varies=lengths is not None and (min(stated) < max(padded) or method.num_sequences > 1),
        target_length=_target_length(method, lengths),
        num_sequences=method.num_sequences,
    )


def _target_length(method: Method, lengths: Sequence[int] | None) -> int:
    limit = method.max_target_length
    return 0 if limit is None else longest_target(lengths) or limit


def padded_length(lengths: Sequence[int], rows: int, *, is_sorted: bool) -> float:
    """Return the mean length to which batches are padded: that of their longest row.

    Args:
        is_sorted: whether rows of about the same length share a batch, as with
            `group_by_length`; otherwise a batch is `rows` draws of all lengths.
    """
    ordered = sorted(lengths)
    if is_sorted:
        longest = [ordered[max(0, end - 1)] for end in range(len(ordered), 0, -rows)]
        return sum(longest) / len(longest)
    total = len(ordered)
    # The longest of the draws is at most the i-th length with a chance of (i / total) ** rows.
    return sum(
        length * (((index + 1) / total) ** rows - (index / total) ** rows)
        for index, length in enumerate(ordered)
    )
