"""Labels do not depend on what else is in a batch, and memory that runs out halves it."""

from __future__ import annotations

import inspect
from types import SimpleNamespace
from typing import Any

import pytest
import tiny_heads
import torch

from peftkit.errors import DataError, ResourceError, UsageError
from peftkit.plugins import Asking, Labeled, Question, Scoring
from peftkit.scoring.classifier import LabelAnswerer, LabelEvaluator, Prediction, classify


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory):
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    folder = tmp_path_factory.mktemp("bert")
    config = {**tiny_heads.BERT, "num_labels": 3}
    tiny_heads.save(folder, config, "AutoModelForSequenceClassification")
    model = AutoModelForSequenceClassification.from_pretrained(folder).train()
    return model, AutoTokenizer.from_pretrained(folder)


def rows(tokenizer) -> list[dict]:
    pairs = [(row["text"], row["second"]) for row in tiny_heads.pairs(7)]
    encoded = [tokenizer(*pair) for pair in pairs]
    return [{k: row[k] for k in ("input_ids", "token_type_ids")} for row in encoded]


def test_every_batch_size_gives_what_the_model_gives_alone(bert) -> None:
    model, tokenizer = bert
    asked = rows(tokenizer)
    found = classify(model, tokenizer, asked, batch_size=3)
    assert model.training
    model.eval()
    for row, prediction in zip(asked, found, strict=True):
        with torch.no_grad():
            logits = model(**{k: torch.tensor([v]) for k, v in row.items()}).logits
        expected = logits.double().softmax(-1)[0]
        order = [model.config.id2label[int(i)] for i in expected.argsort(descending=True)]
        assert list(prediction.probabilities) == order
        assert list(prediction.probabilities.values()) == pytest.approx(
            expected.sort(descending=True).values.tolist(), abs=1e-6
        )
        assert prediction.label == order[0]


def test_a_batch_that_does_not_fit_is_halved(bert, monkeypatch: pytest.MonkeyPatch) -> None:
    model, tokenizer = bert
    asked, most = rows(tokenizer), 2
    forward = model.forward

    def limited(input_ids, **rest):
        if len(input_ids) > most:
            raise torch.OutOfMemoryError
        return forward(input_ids=input_ids, **rest)

    whole = classify(model, tokenizer, asked, batch_size=8)
    limited.__signature__ = inspect.signature(forward)
    monkeypatch.setattr(model, "forward", limited)
    for one, other in zip(classify(model, tokenizer, asked, batch_size=8), whole, strict=True):
        assert one.probabilities == pytest.approx(other.probabilities, abs=1e-6)
    most = 0
    with pytest.raises(ResourceError, match="does not fit"):
        classify(model, tokenizer, asked, batch_size=8)


def test_the_likeliest_comes_first() -> None:
    assert Prediction({"b": 0.7, "a": 0.3}).label == "b"


def scoring(model, tokenizer, labels: list[str], rows: list[list[dict]]) -> Scoring:
    task: Any = SimpleNamespace(headline="accuracy")
    examples = [Labeled(("sort",), label) for label in labels]
    return Scoring(task, model, tokenizer, examples, rows, None, 2, {})


def test_a_label_that_the_model_does_not_know_is_refused(bert) -> None:
    with pytest.raises(DataError) as caught:
        LabelEvaluator(scoring(*bert, ["LABEL_0", "b"], []))
    assert caught.value.message == (
        "a row has the label 'b', which the model does not know;"
        " it knows 'LABEL_0', 'LABEL_1', 'LABEL_2'"
    )


def test_several_rows_of_a_text_have_no_one_label(bert) -> None:
    windows = [[{"input_ids": [1]}, {"input_ids": [2]}]]
    with pytest.raises(UsageError, match="several rows of a text"):
        LabelEvaluator(scoring(*bert, ["LABEL_0"], windows))


def test_a_reply_is_a_table_for_people_and_values_for_programs(bert) -> None:
    model, tokenizer = bert
    (row,) = rows(tokenizer)[:1]
    task: Any = None
    asking = Asking(
        task=task, tokenizer=tokenizer, batch_size=2, options={}, generation={}, source_limit=None,
        load=lambda: model, encode=lambda examples: [[row] for _ in examples],
    )  # fmt: skip
    answerer = LabelAnswerer(asking)
    (expected,) = classify(model, tokenizer, [row], batch_size=1)
    written: list[str] = []
    reply = answerer.reply(Question(texts=("sort",)), written.append)
    assert reply.text == expected.label
    assert reply.to_json() == {
        "predicted": expected.label, "probabilities": expected.probabilities,
    }  # fmt: skip
    assert [line.split() for line in "".join(written).splitlines()] == [
        [label, f"{share:.3f}"] for label, share in expected.probabilities.items()
    ]
    assert list(answerer.reply_many([Question(texts=("sort",))])) == [reply.to_json()]
