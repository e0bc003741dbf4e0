"""Every key that is owned exists, and what is chosen yields to the recipe."""

from __future__ import annotations

import pytest

from peftkit.plugins import Machine, find
from peftkit.plugins.arguments import OWNED, choose, precision
from peftkit.plugins.machine import decided
from peftkit.recipe.signatures import signature_of

CPU = Machine("cpu", True, 2**33, 2**32, "a CPU")
GPU = Machine("cuda", True, 2**37, 2**37, "a GPU")
OLD_GPU = Machine("cuda", False, 2**37, 2**37, "an old GPU")


def chosen(options: dict, dtype: str, machine: Machine) -> dict:
    found = decided("method.classify", choose(options, dtype=dtype, machine=machine), options)
    return {decision.key.removeprefix("method.classify."): decision.value for decision in found}


@pytest.mark.parametrize(
    "name", ["sft", "pretrain_lm", "seq2seq", "classify", "question_answering"]
)
def test_owned_keys_are_the_arguments_own(name: str) -> None:
    method = find("methods", name)
    known = signature_of(method.Config).options
    assert set(OWNED) <= set(method.owned)
    assert [key for key in method.owned if key in known]
    assert all(method.owned.values())


def test_precision_follows_dtype_and_machine() -> None:
    assert "bf16" not in chosen({}, "float32", GPU)
    assert chosen({}, "bfloat16", GPU)["bf16"] is True
    assert "bf16" not in chosen({"fp16": True}, "bfloat16", GPU)
    assert "bf16" not in chosen({}, "bfloat16", OLD_GPU)
    assert chosen({}, "float16", GPU)["fp16"] is True
    assert "fp16" not in chosen({}, "float16", CPU)
    assert precision({}, dtype="float32", device="cuda", machine=GPU)[0][:2] == ("bf16", False)


def test_a_stated_key_is_left_alone() -> None:
    assert chosen({}, "float32", CPU)["use_cpu"] is True
    assert "use_cpu" not in chosen({"use_cpu": True}, "float32", GPU) | chosen({}, "float32", GPU)
    assert "save_steps" not in chosen({"save_strategy": "no"}, "float32", CPU)
    assert "logging_steps" not in chosen({"logging_steps": 5}, "float32", CPU)
