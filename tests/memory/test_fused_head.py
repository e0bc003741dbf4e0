"""The fake head has the peak of trl's own, below one tile, at its edge and over several."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from trl.trainer.utils import add_fused_lm_head

from peftkit.memory import step
from peftkit.memory.fused_head import attach_fused_head, scored_positions, tile_sizes
from peftkit.memory.simulate import track_micro_batch
from peftkit.memory.trace import compile_trace
from peftkit.plugins.losses import fused_loss


def _peaks(attach, *, length: int, softcap: float | None, trains_head: bool) -> dict[str, int]:
    from transformers import AutoModelForCausalLM, Gemma2Config

    config = Gemma2Config(
        vocab_size=40_000, hidden_size=8, intermediate_size=8, num_hidden_layers=1,
        num_attention_heads=1, num_key_value_heads=1, head_dim=8, pad_token_id=0,
        final_logit_softcapping=softcap, layer_types=["full_attention"],
    )  # fmt: skip
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config).train()
    model.lm_head.weight.requires_grad_(trains_head)
    attach(model)
    ids = torch.randint(5, 100, (1, length))
    trace = track_micro_batch(
        model,
        lambda: {"input_ids": ids.clone(), "labels": ids.clone()},
        fused_loss,
        step.StepSettings(1, None, None, "cpu"),
    )
    return compile_trace(trace).live(np.array(trace.num_bytes, np.int64)).phase_peaks()


@pytest.mark.slow
@pytest.mark.parametrize("length", [100, 4097, 4500])
@pytest.mark.parametrize("softcap", [None, 30.0])
@pytest.mark.parametrize("trains_head", [False, True])
def test_every_phase_has_trls_peak(length: int, softcap: float | None, trains_head: bool) -> None:
    options = {"length": length, "softcap": softcap, "trains_head": trains_head}
    ours = _peaks(lambda model: attach_fused_head(model, has_triton=False), **options)
    outputs = ("log_probs", "entropy", "is_top1")
    theirs = _peaks(lambda model: add_fused_lm_head(model, outputs=outputs), **options)
    assert ours["loss"] == pytest.approx(theirs["loss"], rel=1e-3)
    assert ours["backward"] == pytest.approx(theirs["backward"], rel=1e-3)


def test_one_tile_has_trls_peak() -> None:
    options = {"length": 60, "softcap": None, "trains_head": True}
    ours = _peaks(lambda model: attach_fused_head(model, has_triton=False), **options)
    outputs = ("log_probs", "entropy", "is_top1")
    assert ours == _peaks(lambda model: add_fused_lm_head(model, outputs=outputs), **options)


def test_tiles_and_positions() -> None:
    assert tile_sizes(100) == (100, 0)
    assert tile_sizes(5000) == (4096, 904)
    assert tile_sizes(50_000) == (4096, 4096)
    assert [scored_positions(10, share) for share in (1.0, 0.11, 0.0)] == [10, 2, 1]
