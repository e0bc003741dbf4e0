"""Attention of rows that lie in one batch against each row by itself."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from peftkit.kernels.row_attention import row_attention


def exact(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, window: int | None) -> torch.Tensor:
    """Softmax of products, in float64: heads x tokens x head size."""
    k, v = (x.repeat_interleave(q.shape[0] // x.shape[0], dim=0) for x in (k, v))
    at = torch.arange(q.shape[1])
    sees = at[:, None] >= at[None]
    if window is not None:
        sees &= at[:, None] - at[None] < window
    scores = (q @ k.transpose(1, 2) / q.shape[-1] ** 0.5).masked_fill(~sees, -torch.inf)
    return scores.softmax(dim=-1) @ v


@settings(max_examples=25, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 9), min_size=1, max_size=5),
    heads=st.sampled_from([(4, 4), (4, 2), (4, 1)]),
    window=st.sampled_from([None, 1, 3, 50]),
)
def test_each_row_sees_itself_alone(
    lengths: list[int], heads: tuple[int, int], window: int | None
) -> None:
    torch.manual_seed(0)
    q, k, v = (torch.randn(1, n, sum(lengths), 8) for n in (heads[0], heads[1], heads[1]))
    inputs = [x.double().requires_grad_() for x in (q, k, v)]
    ends = torch.tensor([0, *lengths]).cumsum(0).to(torch.int32)
    found, _ = row_attention(
        nn.Module(), *inputs, None,
        row_lengths=ends.diff(), cu_seq_lens_q=ends, sliding_window=window,
    )  # fmt: skip
    others = [x.detach().clone().requires_grad_() for x in inputs]
    rows = zip(*(x[0].split(lengths, dim=1) for x in others), strict=True)
    wanted = torch.cat([exact(*row, window) for row in rows], dim=1).transpose(0, 1)[None]
    torch.testing.assert_close(found, wanted)
    torch.manual_seed(1)
    slope = torch.randn(wanted.shape).double()
    found.backward(slope)
    wanted.backward(slope)
    for one, other in zip(inputs, others, strict=True):
        torch.testing.assert_close(one.grad, other.grad)


@pytest.mark.parametrize("name", ["softcap", "s_aux", "position_bias"])
def test_what_it_does_not_do_is_refused(name: str) -> None:
    x = torch.randn(1, 2, 3, 4)
    with pytest.raises(ValueError, match=name):
        row_attention(nn.Module(), x, x, x, None, row_lengths=[3], **{name: torch.ones(1)})


def test_rows_have_no_mask() -> None:
    x = torch.randn(1, 2, 3, 4)
    with pytest.raises(ValueError, match="have no mask"):
        row_attention(nn.Module(), x, x, x, torch.ones(1, 1, 3, 3), row_lengths=[3])


def test_other_batches_are_read_as_they_always_were() -> None:
    """One that is padded on the left, one of a single row, and a token after others."""
    import real_step
    from transformers import AutoConfig, AutoModelForCausalLM

    from peftkit.kernels import row_attention as by_rows

    torch.manual_seed(0)
    values = {**real_step.MISTRAL, "num_hidden_layers": 2, "sliding_window": 4}
    config = AutoConfig.for_model(values.pop("model_type"), **values)
    model = AutoModelForCausalLM.from_config(config).eval()
    ids = torch.arange(10, 26).view(2, 8)
    mask = torch.ones_like(ids)
    mask[0, :3] = 0

    def read() -> list[torch.Tensor]:
        with torch.no_grad():
            written = model.generate(
                ids, attention_mask=mask, max_new_tokens=4, do_sample=False, pad_token_id=0
            )
            padded = model(input_ids=ids, attention_mask=mask).logits[mask.bool()]
            return [padded, model(input_ids=ids[:1]).logits, written]

    wanted = read()
    by_rows.register()
    model.set_attn_implementation(by_rows.NAME)
    for found, expected in zip(read(), wanted, strict=True):
        torch.testing.assert_close(found, expected)
