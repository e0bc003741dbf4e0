"""What a decoder reads is what its own forward makes of the labels, whatever its family."""

from __future__ import annotations

from pathlib import Path

import pytest
import seq2seq_families
import tiny_heads
import torch


@pytest.mark.parametrize("family", ["m2m_100", pytest.param("fsmt", marks=pytest.mark.slow)])
def test_the_loss_is_plain_transformers_and_so_is_smoothing(family: str, tmp_path: Path) -> None:
    from transformers import AutoModelForSeq2SeqLM, DataCollatorForSeq2Seq
    from transformers.trainer_pt_utils import LabelSmoother

    from peftkit.models.decoder_start import Shifting

    base = seq2seq_families.save(tmp_path, family)
    model = AutoModelForSeq2SeqLM.from_pretrained(base).eval()
    tokenizer = tiny_heads.closed_tokenizer(tmp_path)
    rows = [{"input_ids": [5, 6, 7, 0], "labels": [8, 9, 0]},
            {"input_ids": [5, 6, 0], "labels": [9, 0]}]  # fmt: skip
    plain = DataCollatorForSeq2Seq(tokenizer)(rows)
    ours = DataCollatorForSeq2Seq(tokenizer, model=Shifting(model))(rows)
    with torch.no_grad():
        whole = model(**plain)
        shifted = model(**ours)
        assert torch.equal(shifted.loss, whole.loss)
        assert torch.equal(shifted.logits, whole.logits)
        # Szegedy et al. 2016: (1 - e) of the loss, and e of the mean over the vocabulary
        labels = plain["labels"]
        logp = torch.log_softmax(whole.logits.double(), dim=-1)[labels != -100]
        right = logp.gather(1, labels[labels != -100][:, None])
        expected = -(0.9 * right.mean() + 0.1 * logp.mean())
        smoothed = LabelSmoother(epsilon=0.1)({"logits": shifted.logits.double()}, labels)
    assert float(smoothed) == pytest.approx(float(expected), rel=1e-6)


def test_a_start_is_what_training_feeds_first(tmp_path: Path) -> None:
    from transformers import AutoModelForSeq2SeqLM

    from peftkit.models.decoder_start import start_of_answers

    model = AutoModelForSeq2SeqLM.from_pretrained(seq2seq_families.save(tmp_path, "marian"))
    tokenizer = tiny_heads.closed_tokenizer(tmp_path)
    assert start_of_answers(model, tokenizer) == {"decoder_start_token_id": 1}
    tokenizer.chat_template = "{{ messages }}"
    assert start_of_answers(model, tokenizer) == {}
