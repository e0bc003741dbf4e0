"""OFT and HRA keep lengths, and equal their matrices."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from peftkit.errors import ArtefactError
from peftkit.merging.changes import Matrix
from peftkit.merging.formulas import rotations
from peftkit.merging.formulas.layer import Layer
from peftkit.merging.weights_io import open_shard


def make(folder, config, **parameters) -> Layer:
    torch.manual_seed(0)
    save_file({"w": torch.randn(5, 8), **parameters}, folder / "x.safetensors")
    stored = {tensor.name: tensor for tensor in open_shard(folder / "x.safetensors").tensors}
    return Layer("m", {n: stored[n] for n in parameters}, config, stored["w"], None, False)


def merged(layer: Layer, changes) -> tuple[np.ndarray, np.ndarray]:
    base = Matrix(layer.weight)
    rows = changes["weight"].load(base)
    result = np.concatenate([rows(base.rows(i, i + 1), i) for i in range(base.shape[0])])
    return base.rows(0, 5), result


def test_the_exact_cayley_transform_is_a_rotation(tmp_path) -> None:
    free = torch.randn(2, 6) * 0.3  # two blocks of 4
    layer = make(tmp_path, {"use_cayley_neumann": False}, **{"oft_R.weight": free})
    before, after = merged(layer, rotations.oft(layer))
    assert np.allclose(np.linalg.norm(after, axis=1), np.linalg.norm(before, axis=1))
    skew = np.zeros((4, 4))
    skew[np.triu_indices(4, 1)] = free[1].numpy()
    skew -= skew.T
    turn = (np.eye(4) - skew) @ np.linalg.inv(np.eye(4) + skew)
    assert np.allclose(after[:, 4:], before[:, 4:] @ turn.T)


def test_the_series_of_more_terms_comes_nearer_to_a_rotation(tmp_path) -> None:
    free = torch.randn(1, 28) * 0.02
    errors = []
    for terms in (2, 4, 8):
        config = {"use_cayley_neumann": True, "num_cayley_neumann_terms": terms}
        layer = make(tmp_path, config, **{"oft_R.weight": free})
        before, after = merged(layer, rotations.oft(layer))
        lengths = np.linalg.norm(after, axis=1) / np.linalg.norm(before, axis=1)
        errors.append(np.abs(lengths - 1).max())
    assert errors[0] > errors[1] > errors[2]


@pytest.mark.parametrize("orthogonal", [False, True])
def test_hra_is_a_chain_of_reflections(orthogonal, tmp_path) -> None:
    layer = make(tmp_path, {"apply_GS": orthogonal}, hra_u=torch.randn(8, 3))
    before, after = merged(layer, rotations.hra(layer))
    assert np.allclose(np.linalg.norm(after, axis=1), np.linalg.norm(before, axis=1))
    matrix = np.linalg.lstsq(before, after, rcond=None)[0]
    assert np.allclose(before @ matrix, after)


def test_other_sizes_are_refused_and_other_kinds_have_no_formula(tmp_path) -> None:
    with pytest.raises(ArtefactError, match="hra_u is"):
        rotations.hra(make(tmp_path, {}, hra_u=torch.randn(7, 3)))
    with pytest.raises(ArtefactError, match="3 blocks of 4"):
        rotations.oft(make(tmp_path, {}, **{"oft_R.weight": torch.randn(3, 6)}))
    assert (
        rotations.oft(make(tmp_path, {"coft": True}, **{"oft_R.weight": torch.zeros(2, 6)})) is None
    )
