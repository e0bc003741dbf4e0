"""A head that sees masked words alone gives the loss and the gradients of one that sees all."""

from __future__ import annotations

import pytest
import torch

from peftkit.methods.masked_head import (
    MaskedBatches,
    cut_bias_apart,
    score_masked_only,
    scored_masked_only,
)

SIZES = {
    "vocab_size": 50, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
    "intermediate_size": 24, "max_position_embeddings": 40, "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
}  # fmt: skip
ROWS = [
    {"input_ids": [2, 9, 4, 7, 3, 8, 3], "labels": [-100, -100, 11, -100, -100, -100, -100],
     "token_type_ids": [0, 0, 0, 0, 0, 1, 1], "next_sentence_label": 1},
    {"input_ids": [2, 4, 3, 4, 3], "labels": [-100, 12, -100, -100, -100],
     "token_type_ids": [0, 0, 0, 1, 1], "next_sentence_label": 0},
]  # fmt: skip
FAMILIES = {
    "bert": {}, "roberta": {}, "electra": {"embedding_size": 16}, "deberta-v2": {},
    "albert": {"embedding_size": 8}, "mpnet": {},
    "xlm": {"emb_dim": 16, "n_layers": 1, "n_heads": 2, "dropout": 0.0, "attention_dropout": 0.0},
    "distilbert": {
        "dim": 16, "hidden_dim": 24, "n_layers": 1, "n_heads": 2, "dropout": 0.0,
        "attention_dropout": 0.0,
    },
    "modernbert": {"attention_dropout": 0.0, "global_attn_every_n_layers": 1},
}  # fmt: skip


def build(model_type: str, auto: str, **more):
    import transformers

    config = transformers.AutoConfig.for_model(model_type, **{**SIZES, "pad_token_id": 0, **more})
    torch.manual_seed(0)
    return getattr(transformers, auto).from_config(config)


def whole(batch, rows):
    """Give the same batch with a label for every position."""
    labels = torch.full_like(batch["input_ids"], -100)
    for at, row in enumerate(rows):
        labels[at, : len(row["labels"])] = torch.tensor(row["labels"])
    return {k: v for k, v in batch.items() if k != "masked_positions"} | {"labels": labels}


def assert_same(model, batch, rows) -> None:
    score_masked_only(model)
    full = model(**whole(batch, rows)).loss
    full.backward()
    wanted = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    loss = model(**batch).loss
    torch.testing.assert_close(loss, full)
    loss.backward()
    for name, parameter in model.named_parameters():
        if name in wanted:
            torch.testing.assert_close(parameter.grad, wanted[name], msg=name)


def test_a_batch_holds_the_labels_of_masked_words_alone() -> None:
    batch = MaskedBatches(pad_id=0, mlm_probability=0.3)(ROWS)
    assert batch["input_ids"].tolist() == [[2, 9, 4, 7, 3, 8, 3], [2, 4, 3, 4, 3, 0, 0]]
    assert batch["attention_mask"].sum(1).tolist() == [7, 5]
    assert batch["masked_positions"].tolist() == [[2, 0], [1, 0]]
    assert batch["labels"].tolist() == [[11, -100], [12, -100]]
    assert batch["next_sentence_label"].tolist() == [1, 0]


def test_bert_s_two_losses_are_those_of_all_positions() -> None:
    assert_same(build("bert", "AutoModelForPreTraining"), MaskedBatches(0, 0.3)(ROWS), ROWS)


@pytest.mark.parametrize("family", FAMILIES)
def test_masked_words_are_scored_alone_in_every_family(family: str) -> None:
    rows = [{k: row[k] for k in ("input_ids", "labels")} for row in ROWS]
    model = build(family, "AutoModelForMaskedLM", **FAMILIES[family])
    assert_same(model, MaskedBatches(0, 0.3)(rows), rows)


def test_an_adapter_around_the_model_changes_nothing_and_hooks_come_off_again() -> None:
    from peft import LoraConfig, get_peft_model

    base = build("bert", "AutoModelForPreTraining")
    model = get_peft_model(base, LoraConfig(target_modules=["query"])).train()
    batch = MaskedBatches(0, 0.3)(ROWS)
    with scored_masked_only(model):
        assert not model.training
        assert model(**batch).prediction_logits.shape[:2] == (2, 2)
    assert model.training
    assert model(**whole(batch, ROWS)).prediction_logits.shape[:2] == (2, 7)
    with pytest.raises(TypeError):
        base.bert.embeddings(masked_positions=1)


@pytest.mark.parametrize("model_type", FAMILIES)
def test_no_forward_reads_the_second_name_of_a_heads_bias(model_type: str) -> None:
    model = build(model_type, "AutoModelForMaskedLM", **FAMILIES[model_type])
    batch = MaskedBatches(0, 0.15)([{k: row[k] for k in ("input_ids", "labels")} for row in ROWS])
    score_masked_only(model)
    wanted, before = model(**batch).loss, {id(one) for one in model.parameters()}
    cut_bias_apart(model)
    copies = [one for one in model.parameters() if id(one) not in before]
    for copy in copies:
        copy.data.fill_(torch.nan)
    assert torch.equal(model(**batch).loss, wanted)
    names = [n for n, _ in model.named_parameters(remove_duplicate=False) if n.endswith("bias")]
    held = [id(model.get_parameter(name)) for name in names]
    assert len(held) == len(set(held))  # no bias is held twice any more
    assert copies or model_type in {"electra", "xlm", "distilbert", "modernbert"}
