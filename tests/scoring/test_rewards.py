"""Scores do not depend on the batch, and are those of the model's head."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from preference_fixture import examples, method, tiny_policy

from peftkit.scoring.rewards import rewards


@pytest.mark.parametrize("batch_size", [1, 3])
def test_each_conversation_has_its_own_score(tiny_model: Path, batch_size: int) -> None:
    from transformers import AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(tiny_model)
    model = tiny_policy(tiny_model, head=True, moved=True)
    model.config.pad_token_id = tokenizer.pad_token_id
    rows = [row for (row,) in method("reward").encode(examples(), tokenizer)]
    ids = [row[name] for row in rows for name in ("chosen_ids", "rejected_ids")]
    found = rewards(model, tokenizer, ids, batch_size=batch_size)
    model.eval()
    for one, score in zip(ids, found, strict=True):
        with torch.no_grad():
            alone = float(model(torch.tensor([one])).logits)
        assert score == pytest.approx(alone, rel=1e-4, abs=1e-6)
