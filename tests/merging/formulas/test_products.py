"""LoHa and LoKr against numpy's own products, row by row."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from peftkit.errors import ArtefactError
from peftkit.merging.changes import Matrix
from peftkit.merging.formulas import products
from peftkit.merging.formulas.layer import Layer
from peftkit.merging.weights_io import open_shard


def make(folder, shape, config, **parameters) -> Layer:
    torch.manual_seed(0)
    save_file({"w": torch.randn(shape), **parameters}, folder / "x.safetensors")
    stored = {tensor.name: tensor for tensor in open_shard(folder / "x.safetensors").tensors}
    return Layer("m", {n: stored[n] for n in parameters}, config, stored["w"], None, False)


def delta(layer: Layer, changes) -> np.ndarray:
    rows, base = changes["weight"].load(Matrix(layer.weight)), np.zeros(layer.sides)
    return np.concatenate([rows(base[i : i + 3], i) for i in range(0, len(base), 3)])


def test_loha_is_a_product_of_products(tmp_path) -> None:
    parts = {
        f"hada_w{i}_{x}": torch.randn((7, 2) if x == "a" else (2, 5)) for i in "12" for x in "ab"
    }
    layer = make(tmp_path, (7, 5), {"r": 2, "alpha": 3}, **parts)
    a = {name: tensor.double().numpy() for name, tensor in parts.items()}
    wanted = 1.5 * (a["hada_w1_a"] @ a["hada_w1_b"]) * (a["hada_w2_a"] @ a["hada_w2_b"])
    assert np.allclose(delta(layer, products.loha(layer)), wanted, atol=1e-15)


def test_lokr_is_a_kronecker_product(tmp_path) -> None:
    parts = {
        "lokr_w1": torch.randn(2, 3),
        "lokr_w2_a": torch.randn(4, 2),
        "lokr_w2_b": torch.randn(2, 5),
    }
    layer = make(tmp_path, (8, 15), {"r": 2, "alpha": 5}, **parts)
    w1, a, b = (parts[n].double().numpy() for n in ("lokr_w1", "lokr_w2_a", "lokr_w2_b"))
    assert np.allclose(delta(layer, products.lokr(layer)), 2.5 * np.kron(w1, a @ b), atol=1e-15)


def test_factors_of_another_size_are_refused(tmp_path) -> None:
    parts = {"lokr_w1": torch.randn(2, 3), "lokr_w2": torch.randn(4, 5)}
    layer = make(tmp_path, (8, 16), {"r": 2, "alpha": 5}, **parts)
    with pytest.raises(ArtefactError, match=r"Kronecker factors.*weight is \[8, 16\]"):
        delta(layer, products.lokr(layer))
