import math
import random

import pytest

from peftkit.scoring.perplexity import TokenLoss, token_loss, windows


@pytest.fixture(scope="module")
def model(tiny_model):
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(tiny_model).eval()


def make_rows(num_rows, *, seed=0, longest=90):
    source = random.Random(seed)
    made = []
    for _ in range(num_rows):
        ids = [source.randrange(5, 512) for _ in range(source.randint(2, longest))]
        first = source.randrange(len(ids))
        made.append({"input_ids": ids, "labels": [-100] * first + ids[first:]})
    return made


def transformers_loss(model, rows):
    """Sum and count from transformers' own loss, one row at a time, no padding, all logits."""
    import torch

    nats, count = 0.0, 0
    for row in rows:
        n = sum(label != -100 for label in row["labels"][1:])
        if n:
            with torch.no_grad():
                out = model(
                    input_ids=torch.tensor([row["input_ids"]]),
                    labels=torch.tensor([row["labels"]]),
                )
            nats += float(out.loss) * n
            count += n
    return nats, count


def test_equals_transformers_own_loss(model):
    rows = make_rows(40)
    nats, count = transformers_loss(model, rows)
    found = token_loss(model, rows)
    assert found.num_tokens == count
    assert found.nats == pytest.approx(nats, rel=1e-5)
    assert found.perplexity == pytest.approx(math.exp(nats / count), rel=1e-5)


def test_the_last_block_computes_what_is_read_of_it(model):
    rows = [
        {**row, "labels": [-100] * (len(row["input_ids"]) - 2) + row["input_ids"][-2:]}
        for row in make_rows(12, longest=30)
    ]
    nats, count = transformers_loss(model, rows)
    seen: list[int] = []
    hook = model.model.layers[-1].mlp.register_forward_hook(
        lambda _, inputs, __: seen.append(inputs[0].shape[:2].numel())
    )
    found = token_loss(model, rows)
    hook.remove()
    assert sum(seen) == count == found.num_tokens
    assert found.nats == pytest.approx(nats, rel=1e-5)


def test_does_not_depend_on_batches_or_chunks(model, monkeypatch):
    rows = make_rows(20)
    whole = token_loss(model, rows)
    monkeypatch.setattr("peftkit.scoring.perplexity.UPCAST_TOKENS", 7)
    monkeypatch.setattr("peftkit.scoring.perplexity.LOGITS_BYTES", 1)
    single = token_loss(model, rows)
    assert single.num_tokens == whole.num_tokens
    assert single.nats == pytest.approx(whole.nats, rel=1e-6)


@pytest.mark.parametrize("kind", ["LoraConfig", "PrefixTuningConfig", "PromptTuningConfig"])
def test_sees_the_adapter(tiny_model, kind):
    import peft
    import torch
    from transformers import AutoModelForCausalLM

    options = (
        {"target_modules": "all-linear", "init_lora_weights": False}
        if kind == "LoraConfig"
        else {"num_virtual_tokens": 4}
    )
    torch.manual_seed(0)
    base = AutoModelForCausalLM.from_pretrained(tiny_model)
    model = peft.get_peft_model(base, getattr(peft, kind)(task_type="CAUSAL_LM", **options)).eval()
    plain = AutoModelForCausalLM.from_pretrained(tiny_model)
    rows = make_rows(8)
    nats, count = 0.0, 0
    for row in rows:
        with torch.no_grad():
            ids = torch.tensor([row["input_ids"]])
            logits = model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits[0]
        logits = logits[-len(row["input_ids"]) :].log_softmax(-1)
        for at, label in enumerate(row["labels"][1:]):
            if label != -100:
                nats -= float(logits[at, label])
                count += 1
    found = token_loss(model, rows)
    assert (found.num_tokens, found.nats) == (count, pytest.approx(nats, rel=1e-5))
    with model.disable_adapter():
        inner = token_loss(model.get_base_model(), rows)
    assert inner.nats == pytest.approx(token_loss(plain, rows).nats, rel=1e-6)
    assert inner.nats != pytest.approx(nats, rel=1e-5)


def test_rows_without_a_trained_token_count_nothing(model):
    assert token_loss(model, [{"input_ids": [5, 6], "labels": [-100, -100]}]).num_tokens == 0
    assert token_loss(model, [{"input_ids": [5], "labels": [5]}]).perplexity is None


def test_leaves_training_mode_as_it_was(model):
    model.train()
    token_loss(model, make_rows(2))
    assert model.training
    model.eval()
    token_loss(model, make_rows(2))
    assert not model.training


@pytest.mark.parametrize("length", [2, 9, 10, 11, 19, 20, 28, 29, 100])
def test_windows_predict_every_token_once(length):
    ids = list(range(length))
    cut = list(windows({"input_ids": ids, "labels": ids}, 10))
    assert [label for row in cut for label in row["labels"][1:]] == ids[1:]
    assert all(len(row["input_ids"]) <= 10 for row in cut)


def test_numbers_that_no_float_holds_are_absent():
    assert TokenLoss(1e6, 10).perplexity is None
    assert TokenLoss(math.nan, 10).perplexity is None
    assert TokenLoss(math.inf, 10).bits_per_byte(10) is None
    assert TokenLoss(math.log(2) * 30, 10).bits_per_byte(20) == pytest.approx(1.5)
