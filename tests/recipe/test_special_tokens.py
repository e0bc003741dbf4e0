"""What a recipe says of tokens is held against transformers' own words."""

from __future__ import annotations

from peftkit.recipe.special_tokens import check_new_tokens, read_special_tokens
from peftkit.recipe.strict import Gate


def problems(check, value) -> list[tuple[str, str, str | None]]:
    gate = Gate("r.yaml", {})
    check(gate, value)
    return [(one.key, one.problem, one.suggestion) for one in gate.problems]


def test_roles_are_transformers_own() -> None:
    gate = Gate("r.yaml", {})
    stated = {"eos_token": "<|im_end|>", "pad_token": "<pad>"}
    assert read_special_tokens(gate, stated) == stated
    assert not gate.problems
    (wrong,) = problems(read_special_tokens, {"eos": "<|im_end|>"})
    assert wrong[0] == "model.special_tokens.eos"
    (number,) = problems(read_special_tokens, {"eos_token": 2})
    assert "expected a token, got 2" in number[1]
    assert problems(read_special_tokens, ["</s>"])


def test_a_token_is_named_once() -> None:
    assert problems(check_new_tokens, ["a", "b", "a"]) == [
        ("model.add_tokens", "names 'a' 2 times", "name each once")
    ]
    assert not problems(check_new_tokens, ["a", "b"])
    assert not problems(check_new_tokens, None)
