"""The words of an importer's table, and the draft that they fill."""

from __future__ import annotations

import pytest

from peftkit.plugins import Fate, Foreign
from peftkit.plugins.imported import (
    Converted,
    Draft,
    differs,
    implied,
    is_off,
    kept,
    listed,
    no_effect,
    number,
    numeric,
    unsupported,
    whole,
)

TABLE = {
    "lr": kept("method.learning_rate", number),
    "rank": kept("adapter.r", whole),
    "half": differs("not quite", "method.max_length"),
    "same": implied("always so"),
    "where": no_effect("elsewhere"),
    "magic": unsupported("no such thing"),
}


def draft_of(**data) -> Draft:
    draft = Draft(Foreign("c.yaml", data))
    draft.apply(TABLE)
    return draft


def test_each_rule_says_what_became_of_its_key():
    draft = draft_of(lr="1e-4", rank=8.0, half=3, same=1, where="x", magic=True, nothing=None)
    found = draft.finish(TABLE, {"known"}, "ignored")
    assert found.recipe == {
        "method": {"sft": {"learning_rate": 1e-4, "max_length": 3}}, "adapter": {"lora": {"r": 8}},
    }  # fmt: skip
    assert [one.fate for one in found.fates] == [
        Fate.KEPT, Fate.KEPT, Fate.DIFFERS, Fate.IMPLIED, Fate.NO_EFFECT, Fate.UNSUPPORTED,
    ]  # fmt: skip


def test_what_is_off_is_implied_and_what_no_schema_has_is_ignored():
    draft = draft_of(magic=False, known=3, unknown=1)
    found = {one.key: one.fate for one in draft.finish(TABLE, {"known"}, "ignored").fates}
    assert found == {
        "magic": Fate.IMPLIED, "known": Fate.UNSUPPORTED, "unknown": Fate.IGNORED,
    }  # fmt: skip


def test_a_value_that_cannot_be_converted_is_not_supported():
    draft = draft_of(lr="$LR")
    assert draft.fates[0].fate is Fate.UNSUPPORTED
    assert draft.recipe == {}


def test_without_an_adapter_its_keys_have_no_effect():
    draft = Draft(Foreign("c.yaml", {"rank": 8}), adapter=None)
    draft.apply(TABLE)
    assert draft.fates[0].fate is Fate.NO_EFFECT


def test_a_default_yields_to_what_is_stated_and_can_be_recalled():
    draft = draft_of(lr=1e-3)
    draft.default("lr", "method.learning_rate", 5e-5)
    draft.default("epochs", "method.num_train_epochs", 3)
    assert draft.recipe["method"]["sft"] == {"learning_rate": 1e-3, "num_train_epochs": 3}
    draft.recall("method.learning_rate", "not used")
    assert draft.fates[0].fate is Fate.IMPLIED


def test_values_are_read_as_tools_write_them():
    assert [is_off(value) for value in (False, "no", "", 0, [], "auto", 1)] == [
        True, True, True, True, True, False, False,
    ]  # fmt: skip
    assert listed("a, b", separator=",") == ["a", "b"]
    assert listed({"a": 1}) == [{"a": 1}]
    assert (numeric("16"), numeric("x"), numeric(True)) == (16, None, None)
    with pytest.raises(Converted):
        number(True)
