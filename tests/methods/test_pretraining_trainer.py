"""The trainer's loss is BERT's, by hand and by plain transformers, and so are its parts."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch

from peftkit.methods.pretraining_trainer import Tally, parts_of


def test_both_losses_and_accuracies_of_a_batch_computed_by_hand() -> None:
    # Two rows, two masked words each, of which the last is padding; a vocabulary of two.
    predictions = torch.log(torch.tensor([[[0.9, 0.1], [0.3, 0.7]], [[0.2, 0.8], [0.5, 0.5]]]))
    relations = torch.log(torch.tensor([[0.6, 0.4], [0.25, 0.75]]))
    outputs = SimpleNamespace(prediction_logits=predictions, seq_relationship_logits=relations)
    inputs = {
        "labels": torch.tensor([[0, 0], [1, -100]]),
        "next_sentence_label": torch.tensor([1, 1]),
    }
    parts = parts_of(outputs, inputs)
    tally = Tally()
    tally.add(parts)
    alone = SimpleNamespace(accelerator=SimpleNamespace(reduce=lambda sums, _how: sums))
    found = tally.take(alone)
    assert found["mlm_loss"] == pytest.approx(-math.log(0.9 * 0.3 * 0.8) / 3)
    assert found["nsp_loss"] == pytest.approx(-math.log(0.4 * 0.75) / 2)
    assert (found["mlm_accuracy"], found["nsp_accuracy"]) == (pytest.approx(2 / 3), 0.5)
    assert tally.take(alone) == {}
