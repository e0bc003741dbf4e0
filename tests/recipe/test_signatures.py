"""Classes are read as they are: options, kinds, defaults, docs, owners."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from tested_signatures import without_docs

from peftkit.errors import UsageError
from peftkit.plugins import find
from peftkit.recipe.signatures import (
    Signature,
    extract,
    load_class,
    model_config_classes,
    signature_of,
    to_plain,
)


class Mode(enum.Enum):
    FAST = "fast"


@dataclass(frozen=True)
class Options:
    """Hold a few options.

    More text.
    """

    path: Path
    mode: Mode = Mode.FAST
    names: list[str] = field(default_factory=lambda: ["a"])
    choice: str = field(default="x", metadata={"choices": ["x", "y"], "help": "One of two."})
    unhinted: "NoSuchName | None" = None  # type: ignore[name-defined]  # noqa: F821, UP037


def test_a_dataclass_is_read() -> None:
    signature = signature_of(Options)
    assert signature.name == "Options"
    assert signature.title == "Options"
    assert signature.doc == "Hold a few options."
    options = signature.options
    assert options["path"].is_required
    assert (options["mode"].default, str(options["mode"].kind)) == ("fast", "one of 'fast'")
    assert options["names"].default == ["a"]
    assert str(options["choice"].kind) == "one of 'x', 'y'"
    assert options["choice"].doc == "One of two."
    assert str(options["unhinted"].kind) == "any"


@pytest.mark.parametrize(
    ("reference", "option", "kind", "default"),
    [
        ("peft:LoraConfig", "r", "int", 8),
        ("trl:SFTConfig", "max_length", "int or null", 1024),
        ("trl:SFTConfig", "gradient_checkpointing", "bool", True),
        ("transformers:BitsAndBytesConfig", "load_in_4bit", "bool", False),
        ("transformers:BitsAndBytesConfig", "llm_int8_skip_modules", "a list of str or null", None),
        ("transformers:GenerationConfig", "max_new_tokens", "int or null", None),
        ("transformers:LlamaConfig", "hidden_size", "int", 4096),
    ],
)
def test_native_classes_are_read(reference: str, option: str, kind: str, default: Any) -> None:
    signature = signature_of(reference, documented=True)
    assert (str(signature.options[option].kind), signature.options[option].default) == (
        kind,
        default,
    )
    assert signature.is_native
    assert signature.options[option].doc
    assert Signature.from_json(reference, signature.to_json()) == signature


def test_reading_the_class_itself_gives_what_the_table_has() -> None:
    reference = "peft:LoraConfig"
    assert extract(reference) == signature_of(reference, documented=True)
    assert without_docs(extract(reference)) == signature_of(reference)
    assert signature_of(reference).title == "LoraConfig (peft 0.21.2)"


def test_a_method_of_ours_is_bound_to_our_source_too() -> None:
    signature = signature_of(find("methods", "pretrain_lm").Config)
    kinds = {name.partition(".")[0]: v[:7] for name, v in signature.versions.items()}
    assert kinds["peftkit"] == "sha256:"
    assert "transformers" in kinds
    assert "max_length" in signature.options


def test_names_are_transformers_own() -> None:
    assert model_config_classes()["llama"] == "transformers:LlamaConfig"


@pytest.mark.parametrize("reference", ["no_such_module:X", "peft:NoSuchConfig", "json:loads"])
def test_a_wrong_reference_is_named(reference: str) -> None:
    with pytest.raises(UsageError, match=reference):
        load_class(reference)


def test_native_values_become_plain() -> None:
    import torch

    value = {"a": {3, 1}, "b": (Mode.FAST, torch.bfloat16), "c": Options(Path("x"))}
    assert to_plain(value) == {
        "a": [1, 3],
        "b": ["fast", "bfloat16"],
        "c": {"path": "x", "mode": "fast", "names": ["a"], "choice": "x", "unhinted": None},
    }
    with pytest.raises(TypeError, match="not plain data"):
        to_plain(object())
