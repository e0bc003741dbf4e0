"""Labels have the same numbers in every split, and none comes in unseen."""

from __future__ import annotations

import pytest
from datasets import ClassLabel, Dataset, Features, Value

from peftkit.errors import DataError
from peftkit.plugins.examples import Labeled, Rated, Text
from peftkit.preprocessing.class_labels import (
    Labels,
    check_declared,
    count_labels,
    declared_names,
    describe_numbers,
    find_labels,
    labels_of_config,
    number_labels,
    spell,
)
from peftkit.tasks.classify import Classify, ClassifyConfig
from peftkit.tasks.regress import Regress, RegressConfig

TASK = Classify(ClassifyConfig())


def examples(*labels: str) -> list[Labeled]:
    return [Labeled((f"text {at}",), label) for at, label in enumerate(labels)]


def found(*labels: str, declared=(), task=TASK) -> Labels:
    return find_labels(examples(*labels), declared, task, where="r.yaml")


def test_names_are_sorted_and_numbers_by_value() -> None:
    assert found("b", "a", "b", "c", "a", "c").names == ("a", "b", "c")
    assert found("10", "2", "10", "-1", "2", "10").names == ("-1", "2", "10")
    assert found("b", "a", "b").most_frequent == "b"
    assert found().names == ()
    assert find_labels([Text("a")], (), TASK, where="").names == ()


def test_the_data_s_own_names_keep_their_order() -> None:
    features = Features({"text": Value("string"), "label": ClassLabel(names=["yes", "no"])})
    table = Dataset.from_dict({"text": ["a", "b"], "label": [1, 0]}, features=features)
    declared = declared_names(table, TASK)
    assert declared == ("yes", "no")
    spelled = [spell(TASK.example(row), declared) for row in table]
    assert [one.label for one in spelled] == ["no", "yes"]
    assert found("no", "yes", declared=declared).names == ("yes", "no")
    with pytest.raises(DataError, match="the label is -1, which stands for none"):
        spell(Labeled(("a",), "-1"), declared)
    with pytest.raises(DataError, match="the label is 2, but the data names the labels 0 to 1"):
        spell(Labeled(("a",), "2"), declared)


def test_names_that_differ_between_splits_are_refused() -> None:
    check_declared({"train": ("a", "b"), "test": ("a", "b")}, where="r.yaml")
    with pytest.raises(DataError, match=r"other names in test than in train: 'b', 'a', and 'a'"):
        check_declared({"train": ("a", "b"), "test": ("b", "a")}, where="r.yaml")


@pytest.mark.parametrize("names", [("①", "²", "½"), ("٣", "-", "--1"), ("x", "10", "9", "1.0")])
def test_any_text_is_a_label(names: tuple[str, ...]) -> None:
    assert set(found(*names, *names).names) == set(names)
    assert spell(Labeled(("a",), "1"), names).class_label == names[1]
    with pytest.raises(DataError, match="stands for none"):
        spell(Labeled(("a",), names[0] if names[0] != "x" else "²"), names)


def test_a_label_that_train_lacks_is_named_with_its_row() -> None:
    labels = found("a", "b")
    numbered = number_labels(examples("b", "a"), labels, [5, 9], split="test", where="r.yaml")
    assert [one.number for one in numbered] == [1, 0]
    assert count_labels(numbered, labels) == {"a": 1, "b": 1}
    assert count_labels(numbered[:1], labels) == {"a": 0, "b": 1}
    with pytest.raises(DataError, match="'A'") as caught:
        number_labels(examples("A", "c"), labels, [1, 2], split="test", where="r.yaml")
    assert "and 1 more labels are new there" in caught.value.message
    assert caught.value.hint == "write it as 'a', as train does"
    with pytest.raises(DataError, match=r"row 9 of test has the label 'x'.*train has 'a', 'b'"):
        number_labels(examples("b", "x"), labels, [5, 9], split="test", where="r.yaml")


def test_columns_that_hold_no_classes_are_refused() -> None:
    with pytest.raises(DataError, match="every row of train has the label 'a'"):
        found("a", "a")
    with pytest.raises(DataError, match=r"4 labels in 5 rows.*holds no classes"):
        found("p", "q", "r", "s", "s")
    with pytest.raises(DataError, match=r"numbers with fractions, '0.5', '1.0'") as caught:
        found(*["0.5", "1.0"] * 50)
    assert "regress" in caught.value.hint
    with pytest.raises(DataError, match="every row of train has the label 'a'"):
        found("a", "a", declared=("a", "b"))
    positive = Classify(ClassifyConfig(positive="yes"))
    with pytest.raises(DataError, match="there is no label 'yes'; the labels are 'a', 'b'"):
        found("a", "b", task=positive)


def test_numbers_are_described_and_one_alone_is_refused() -> None:
    rated = [Rated(("a",), value) for value in (1.0, 2.0, 4.5)]
    labels = find_labels(rated, (), Regress(RegressConfig(label="score")), where="r.yaml")
    assert labels.outputs == ("score",)
    assert labels.baselines == {"mean_of_train": "2.5"}
    assert describe_numbers(rated) == {"least": 1.0, "mean": 2.5, "most": 4.5}
    with pytest.raises(DataError, match="every row of train has the number 1"):
        find_labels(rated[:1] * 2, (), Regress(RegressConfig()), where="r.yaml")


def test_a_configuration_keeps_labels_through_json() -> None:
    from transformers import BertConfig

    class Tokenizer:
        pad_token_id = 7

    options = found("a", "b").model_options(Tokenizer())
    stored = BertConfig(**options).to_dict()
    stored["id2label"] = {str(number): name for number, name in stored["id2label"].items()}
    assert labels_of_config(stored) == options
    assert Labels().model_options(Tokenizer()) == {}
