"""The loss that planning runs: trained positions are as many, whatever the labels say."""

from __future__ import annotations

import torch
from torch import nn

from peftkit.kernels.head_loss import NUM_LOGITS, HeadScoring
from peftkit.memory.growth import TILE_TOKENS
from peftkit.memory.known_loss import rehearsed_loss, tile_of
from peftkit.plugins.losses import fused_loss
from peftkit.plugins.speed import Way
from peftkit.plugins.trained_loss import TrainedLoss

TRAINED = Way(scores_trained=True)


class Head(nn.Module):
    def get_output_embeddings(self) -> nn.Module:
        return nn.Linear(4, 1 << 15)


def test_a_rehearsed_loss_scores_as_many_positions_as_it_is_told() -> None:
    loss = rehearsed_loss(TrainedLoss(HeadScoring(softcap=3.0)), TRAINED, 5, "cuda")
    at, targets = loss.positions(torch.full((2, 8), -100))
    assert len(at) == len(targets) == 5
    assert loss.scoring == HeadScoring(
        softcap=3.0, num_logits=NUM_LOGITS["cuda"], has_two_chunks=True
    )


def test_a_tile_is_the_heads_own() -> None:
    assert tile_of(TRAINED, Head(), "cpu") == NUM_LOGITS["cpu"] >> 15
    assert tile_of(TRAINED, Head(), "cuda") == NUM_LOGITS["cuda"] >> 15
    assert tile_of(Way(), Head(), "cuda") == TILE_TOKENS


def test_trls_loss_is_run_as_it_is() -> None:
    assert rehearsed_loss(fused_loss, Way(), 5, "cpu") is fused_loss
