"""A plugin that says only what it must has the defaults of its base class."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from peftkit.plugins import Adapter, Merge, Source, Task, Text


class Rows(Source):
    def splits(self):
        return ("train",)

    def load(self, split):
        return split


class Words(Task):
    makes = (Text,)
    columns = ("text",)

    def example(self, row):
        return Text(row["text"])


class Nothing(Adapter):
    def attach(self, model):
        return model


class First(Merge):
    combines = "deltas"

    def combine(self, parts, weights, name):  # noqa: ARG002
        return parts[0]


def test_defaults_ask_for_nothing() -> None:
    assert Rows().revision is None
    task = Words()
    assert (task.headline, task.score([], []), task.baselines([]), task.label_column) == (
        "", {}, {}, None,
    )  # fmt: skip
    adapter = Nothing()
    assert (adapter.conflicts({}, "sft", {}), adapter.decide("sft", {})) == ([], ())
    assert (adapter.callbacks(), adapter.has_own_checkpoints) == ((), False)
    merge = First(SimpleNamespace(weights=[1.0]))
    assert (merge.weights, merge.compression, merge.is_linear) == ([1.0], None, False)


def test_what_has_no_default_must_be_written() -> None:
    with pytest.raises(TypeError, match="abstract"):
        Task()
