"""Attention of rows that lie one after another in a batch without padding: each sees itself.

transformers' models call it by its name in `AttentionInterface`; where the rows begin and end they
are told by the batch (`cu_seq_lens_q`), as the models are for kernels of flash attention. For a
name without a mask function transformers makes no mask.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import groupby
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

NAME = "peftkit_rows"
"""What `attn_implementation` is while a model trains on such batches."""


def register() -> None:
    """Make the name known to transformers."""
    from transformers import AttentionInterface
    from transformers.masking_utils import AttentionMaskInterface

    AttentionInterface.register(NAME, row_attention)
    AttentionMaskInterface.register(NAME, row_mask)


@contextmanager
def attending(model: Any, *, by_rows: bool) -> Iterator[None]:
    """Let a transformers model's attention keep to rows in here, where that is asked for."""
    before = model.config._attn_implementation
    if by_rows:
        register()
        model.set_attn_implementation(NAME)
    try:
        yield
    finally:
        if by_rows:
            model.set_attn_implementation(before)


def row_mask(
    *, batch_size: int, attention_mask: torch.Tensor | None = None, **options: Any
) -> torch.Tensor | None:
    """Return no mask for rows without padding, and transformers' own for a batch that has one."""
    if attention_mask is None and batch_size == 1:
        return None
    from transformers.masking_utils import sdpa_mask

    mask: torch.Tensor | None = sdpa_mask(
        batch_size=batch_size, attention_mask=attention_mask, **options
    )
    return mask


def row_attention(  # noqa: PLR0913 - what transformers passes
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    dropout: float = 0.0,
    scaling: float | None = None,
    row_lengths: torch.Tensor | Sequence[int] | None = None,
    cu_seq_lens_q: torch.Tensor | None = None,
    max_length_q: int | None = None,
    sliding_window: int | None = None,
    **rest: Any,
) -> tuple[torch.Tensor, None]:
    """Return causal attention inside each row, and no weights.

    Args:
        module: the model's own attention.
        query: 1 x heads x tokens x head size; keys and values may have fewer heads.
        row_lengths: tokens of each row; another batch, e.g. of a callback that generates, has
            none and is attended to as by `sdpa`.
        cu_seq_lens_q: where rows begin and the last ends; used by the kernel of an accelerator.
        max_length_q: tokens of the longest row.
        sliding_window: how many tokens a token sees, itself among them; all before it when absent.

    Returns:
        1 x tokens x heads x head size, as transformers' attention functions do.

    Raises:
        ValueError: the model asks for what this attention does not do.
    """
    import torch

    if row_lengths is None and attention_mask is None and _is_one_row(query, key):
        row_lengths = [query.shape[2]]
    if row_lengths is None:
        from transformers.integrations.sdpa_attention import sdpa_attention_forward

        found: tuple[torch.Tensor, None] = sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **rest
        )
        return found
    if attention_mask is not None:
        raise ValueError("rows without padding have no mask")
    asked = [name for name in UNSERVED if rest.get(name) is not None]
    if asked:
        raise ValueError(f"attention by rows does not do {', '.join(asked)}")
    is_half = query.dtype in (torch.float16, torch.bfloat16)
    if query.is_cuda and is_half and not dropout and cu_seq_lens_q is not None:
        ends, longest = cu_seq_lens_q, int(max_length_q or query.shape[2])
        return _varlen(query, key, value, ends, longest, sliding_window, scaling), None
    lengths = row_lengths.tolist() if isinstance(row_lengths, torch.Tensor) else list(row_lengths)
    return _by_row(query, key, value, lengths, dropout, sliding_window, scaling), None


def _is_one_row(query: torch.Tensor, key: torch.Tensor) -> bool:
    """Tell whether this is one row, read from its beginning."""
    return query.shape[0] == 1 and query.shape[2] == key.shape[2]


UNSERVED = ("softcap", "s_aux", "position_bias")
"""What some models pass to attention that changes its result and that is not done here."""


def _varlen(  # noqa: PLR0913, PLR0917
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    ends: torch.Tensor,
    longest: int,
    window: int | None,
    scaling: float | None,
) -> torch.Tensor:
    from torch.nn.attention.varlen import varlen_attn

    q, k, v = (x[0].transpose(0, 1) for x in (query, key, value))
    found: Any = varlen_attn(
        q,
        k,
        v,
        ends,
        ends,
        longest,
        longest,
        scale=scaling,
        window_size=(-1 if window is None else window - 1, 0),
        enable_gqa=query.shape[1] != key.shape[1],
    )
    return found[None]  # type: ignore[no-any-return]


def _by_row(  # noqa: PLR0913, PLR0917
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    lengths: list[int],
    dropout: float,
    window: int | None,
    scaling: float | None,
) -> torch.Tensor:
    """Attend row by row: no position of one row is multiplied with any of another.

    Neighbours of one length go together. Rows are split, not sliced: the backward of a slice fills
    a whole batch with zeros for each row.
    """
    import torch
    from torch.nn.functional import scaled_dot_product_attention

    has_groups, heads = query.shape[1] != key.shape[1], query.shape[1]
    groups = [(length, len(list(same))) for length, same in groupby(lengths)]
    tokens = [length * num for length, num in groups]
    found = []
    parts = zip(*(torch.split(x[0], tokens, dim=1) for x in (query, key, value)), strict=True)
    for (length, num), part in zip(groups, parts, strict=True):
        q, k, v = (x.unflatten(1, (num, length)).transpose(0, 1) for x in part)
        mask = None if window is None or length <= window else _band(length, window, q.device)
        rows = scaled_dot_product_attention(
            q, k, v,
            attn_mask=mask, dropout_p=dropout, is_causal=mask is None, scale=scaling,
            enable_gqa=has_groups,
        )  # fmt: skip
        found.append(rows.transpose(1, 2).reshape(1, num * length, heads, -1))
    return torch.cat(found, dim=1)


def _band(length: int, window: int, device: torch.device) -> torch.Tensor:
    """Return which of a row's tokens each sees: itself and those before it in its window."""
    import torch

    ones = torch.ones((length, length), dtype=torch.bool, device=device)
    return ones.tril().triu(1 - window)
