"""A method that breaks its contract is told where, and on which page the contract stands."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from peftkit.errors import DataError
from peftkit.plugins import (
    CAUSAL_LM,
    SEQUENCE_CLASSIFICATION,
    Chosen,
    Decision,
    Method,
    Text,
)
from peftkit.testing import check_method


class Plain(Method):
    """Train on texts."""

    Config = "transformers:TrainingArguments"
    kind: Any = CAUSAL_LM
    examples: Any = (Text,)
    max_length = None

    def encode(self, examples: Sequence[Text], tokenizer: Any) -> Any:
        ids = tokenizer([one.text for one in examples])["input_ids"]
        return [[{"input_ids": row, "labels": row}] for row in ids]


def _broken(**members: Any) -> type[Method]:
    return type("Broken", (Plain,), {"__doc__": "Break one thing.", **members})


def _of(row: Any) -> Any:
    return lambda _s, examples, _t: [row for _ in examples]


@pytest.mark.parametrize(
    ("members", "problem"),
    [
        ({"kind": "AutoModelForCausalLM"}, "kind is 'AutoModelForCausalLM', no ModelKind: docs/pl"),
        ({"examples": Text}, "examples is .*, not a tuple of classes"),
        ({"owned": {"output_dir": ""}}, "does not say what to use instead of .'output_dir'."),
        ({"decide": lambda *_, **__: [Decision("method.x.bf16", False, "a CPU")]},
         "no Chosen.option, value, reason.: docs/plugins.md"),
        ({"decide": lambda *_, **__: [Chosen("bf17", False, "a CPU")]}, "which is no option"),
        ({"decide": lambda *_, **__: [Chosen("bf16", False, "")]}, "no reason for bf16"),
        ({"encode": lambda *_: {"input_ids": [1]}}, "of 1 examples does not give a list of as"),
        ({"encode": _of({"input_ids": [1], "labels": [1]})},
         "gave {'input_ids'.* for an example, not its rows as a list of dicts: docs/plugins.md"),
        ({"encode": _of(DataError("no luck"))}, "gave DataError.'no luck'"),
        ({"encode": _of([])}, "not its rows"),
        ({"encode": _of([{"input_ids": [1]}])}, "a row without labels"),
        ({"encode": _of([{"input_ids": [1], "labels": [2]}])}, "neither -100 nor its token"),
        ({"encode": _of([{"input_ids": [1], "labels": [-100]}])}, "masks every token"),
        ({"count": lambda *_: 3}, "count.. gave 3, no RowCount"),
        ({"kind": SEQUENCE_CLASSIFICATION, "encode": _of([{"input_ids": [1], "labels": [-100]}])},
         "nothing to train"),
        ({"arrange": lambda _s, rows, _t: rows.select([])}, "leaves no row"),
        ({"columns": lambda *_: {"input_ids": 32}}, "gives input_ids the shape 32"),
        ({"loss": lambda _s: None}, "unplanned does not say why"),
    ],
)  # fmt: skip
def test_an_unsound_method_is_named(
    members: dict[str, Any], problem: str, tiny_model: Path
) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    options = {"use_cpu": True}
    with pytest.raises(AssertionError, match=problem):
        check_method(_broken(**members), options, tokenizer, [Text("a file")])
    if "loss" in members:
        check_method(Plain, options, tokenizer, [Text("a file")])
        told = _broken(**members, unplanned="its step generates")
        check_method(told, options, tokenizer, [Text("a file")])
