"""IA3 and MiSS against their definitions."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from peftkit.errors import ArtefactError
from peftkit.merging.changes import Matrix
from peftkit.merging.formulas import scales
from peftkit.merging.formulas.layer import Layer
from peftkit.merging.weights_io import open_shard

W = torch.arange(15.0).reshape(5, 3)


def make(folder, config=None, *, weight=W, is_transposed=False, **parameters) -> Layer:
    save_file({"w": weight, "b": torch.ones(5), **parameters}, folder / "x.safetensors")
    stored = {tensor.name: tensor for tensor in open_shard(folder / "x.safetensors").tensors}
    own = {name: stored[name] for name in parameters}
    return Layer("m", own, config or {}, stored["w"], stored["b"], is_transposed)


def merged(layer: Layer, changes) -> np.ndarray:
    base = Matrix(layer.weight)
    rows = changes["weight"].load(base)
    return np.concatenate([rows(base.rows(i, i + 1), i) for i in range(base.shape[0])])


def test_ia3_scales_outputs_with_their_biases_or_inputs_alone(tmp_path) -> None:
    outputs = torch.tensor([[1.0], [2.0], [3.0], [4.0], [5.0]])
    layer = make(tmp_path, ia3_l=outputs)
    changes = scales.ia3(layer)
    assert np.array_equal(merged(layer, changes), (W * outputs).numpy())
    bias = changes["bias"].load(Matrix(layer.bias))
    assert bias(np.ones((2, 1)), 3).ravel().tolist() == [4.0, 5.0]
    inputs = torch.tensor([[2.0, 3.0, 4.0]])
    layer = make(tmp_path, ia3_l=inputs)
    changes = scales.ia3(layer)
    assert set(changes) == {"weight"}
    assert np.array_equal(merged(layer, changes), (W * inputs).numpy())
    layer = make(tmp_path, weight=W.T.contiguous(), is_transposed=True, ia3_l=inputs)
    assert np.array_equal(merged(layer, scales.ia3(layer)), (W * inputs).T.numpy())


def test_a_vector_of_another_length_is_refused(tmp_path) -> None:
    with pytest.raises(ArtefactError, match=r"ia3_l is \[4, 1\]"):
        scales.ia3(make(tmp_path, ia3_l=torch.ones(4, 1)))


def test_miss_adds_one_block_again_and_again(tmp_path) -> None:
    block = torch.arange(10.0).reshape(2, 5)
    layer = make(tmp_path, miss_block=block)
    wanted = W.numpy().copy()
    for row in range(5):
        for column in range(3):
            wanted[row, column] += block[column % 2, row].item()
    assert np.array_equal(merged(layer, scales.miss(layer)), wanted)
    assert scales.miss(make(tmp_path, {"init_weights": "bat"}, miss_block=block)) is None
