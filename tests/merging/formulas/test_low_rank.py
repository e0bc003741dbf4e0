"""LoRA's and VeRA's closed formulas against numbers worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from peftkit.errors import ArtefactError
from peftkit.merging.changes import Matrix
from peftkit.merging.formulas import low_rank
from peftkit.merging.formulas.layer import Layer
from peftkit.merging.weights_io import open_shard

W = torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
A, B = torch.tensor([[1.0, 0.0, -1.0]]), torch.tensor([[2.0], [1.0]])
BA = np.array([[2.0, 0.0, -2.0], [1.0, 0.0, -1.0]])


def make(folder, weight, config=None, *, is_transposed=False, bias=None, **parameters) -> Layer:
    names = {key.replace("__", "."): tensor for key, tensor in parameters.items()}
    extra = {} if bias is None else {"bias": bias}
    save_file({"weight": weight, **extra, **names}, folder / "x.safetensors")
    stored = {tensor.name: tensor for tensor in open_shard(folder / "x.safetensors").tensors}
    return Layer(
        "m", {name: stored[name] for name in names}, {"r": 1, "lora_alpha": 3, **(config or {})},
        stored["weight"], stored.get("bias"), is_transposed,
    )  # fmt: skip


def apply(layer: Layer, changes, name: str = "weight") -> np.ndarray:
    base = Matrix(layer.weight if name == "weight" else layer.bias)
    rows = changes[name].load(base)
    return np.concatenate([rows(base.rows(i, i + 1), i) for i in range(base.shape[0])])


def test_plain(tmp_path) -> None:
    layer = make(tmp_path, W, lora_A__weight=A, lora_B__weight=B)
    changes = low_rank.lora(layer)
    assert np.array_equal(apply(layer, changes), W.numpy() + 3 * BA)
    assert sorted(changes["weight"].uses) == ["lora_A.weight", "lora_B.weight"]


def test_a_conv1d_weight_is_transposed(tmp_path) -> None:
    layer = make(tmp_path, W.T.contiguous(), is_transposed=True, lora_A__weight=A, lora_B__weight=B)
    assert np.array_equal(apply(layer, low_rank.lora(layer)), (W.numpy() + 3 * BA).T)


@pytest.mark.parametrize("is_transposed", [False, True])
def test_dora_gives_every_output_its_length(is_transposed, tmp_path) -> None:
    lengths = torch.tensor([2.0, 0.5])
    layer = make(
        tmp_path, W.T.contiguous() if is_transposed else W, is_transposed=is_transposed,
        lora_A__weight=A, lora_B__weight=B, lora_magnitude_vector=lengths,
    )  # fmt: skip
    merged = apply(layer, low_rank.lora(layer))
    merged = merged.T if is_transposed else merged
    assert np.allclose(np.linalg.norm(merged, axis=1), lengths.numpy())
    moved = W.numpy() + 3 * BA
    assert np.allclose(merged / np.linalg.norm(merged, axis=1, keepdims=True),
                       moved / np.linalg.norm(moved, axis=1, keepdims=True))  # fmt: skip


def test_a_trained_bias_is_scaled_and_needs_a_bias(tmp_path) -> None:
    extra = torch.tensor([1.0, -1.0])
    parameters = {"lora_A__weight": A, "lora_B__weight": B, "lora_B__bias": extra}
    layer = make(tmp_path, W, bias=torch.tensor([10.0, 20.0]), **parameters)
    assert apply(layer, low_rank.lora(layer), "bias").ravel().tolist() == [13.0, 17.0]
    with pytest.raises(ArtefactError, match="base's layer has no bias"):
        low_rank.lora(make(tmp_path, W, **parameters))


def test_an_embeddings_rows_are_inputs(tmp_path) -> None:
    layer = make(tmp_path, W.T.contiguous(), lora_embedding_A=A, lora_embedding_B=B)
    assert np.array_equal(apply(layer, low_rank.lora(layer)), W.numpy().T + 3 * BA.T)


def test_variants_and_starts_that_move_the_base_have_no_formula(tmp_path) -> None:
    for config in ({"init_lora_weights": "pissa"}, {"kasa_config": {"beta": 1}}):
        layer = make(tmp_path, W, config, lora_A__weight=A, lora_B__weight=B)
        assert low_rank.lora(layer) is None
    unknown = make(tmp_path, W, lora_A__weight=A, lora_B__weight=B, lora_diag=torch.ones(1))
    assert low_rank.lora(unknown) is None
