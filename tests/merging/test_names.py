"""A model's parameters are found in checkpoints with another prefix, or another name."""

from __future__ import annotations

import pkgutil
from pathlib import Path

import pytest

from peftkit.merging.names import CONV1D_NAMES, CONV1D_TYPES, Names, is_conv1d
from peftkit.merging.weights_io import Tensor


def tensors(*names: str) -> dict[str, Tensor]:
    return {name: Tensor(name, Path("x"), "F32", (2, 2), 0) for name in names}


@pytest.mark.parametrize(
    ("checkpoint", "module"),
    [
        ("h.0.attn.weight", "transformer.h.0.attn"),
        ("bert.encoder.q.weight", "encoder.q"),
        ("model.q.weight", "model.q"),
    ],
)
def test_one_prefix_may_be_missing_on_either_side(checkpoint: str, module: str) -> None:
    names = Names.fit(tensors(checkpoint, "other.weight"), [module])
    assert names.has(module)
    assert names.name(f"{module}.weight") == checkpoint


def test_the_prefix_that_fits_most_modules_wins() -> None:
    names = Names.fit(tensors("a.x.weight", "a.y.weight", "x.weight"), ["x", "y"])
    assert names.name("y.weight") == "a.y.weight"


def test_renamed_and_tied_parameters_are_found_by_their_own_tables() -> None:
    names = Names(
        tensors("moe.gate.weight", "embed.weight"),
        aliases={"mlp.gate.weight": "moe.gate.weight"},
        tied={"head.weight": "embed.weight"},
    )
    assert names.find("mlp.gate.weight").name == "moe.gate.weight"
    assert names.find("head.weight").name == "embed.weight"
    assert names.name("head.weight") == "head.weight"
    assert names.find("nothing.weight") is None


def test_the_table_of_conv1d_models_is_what_transformers_has() -> None:
    import transformers.models

    root = Path(transformers.models.__file__).parent
    found = set()
    for info in pkgutil.iter_modules([str(root)]):
        for file in (root / info.name).glob("modeling_*.py"):
            if "pytorch_utils import Conv1D" in file.read_text(encoding="utf-8"):
                found.add(info.name)
    assert found == {name.removesuffix("-gpt") for name in CONV1D_TYPES}


def test_conv1d_layers_are_known_by_name_in_those_models_only() -> None:
    assert is_conv1d("transformer.h.0.attn.c_attn", "gpt2")
    assert not is_conv1d("transformer.wte", "gpt2")
    assert not is_conv1d("h.0.attn.c_attn", "gpt_bigcode")
    assert "c_proj" in CONV1D_NAMES
