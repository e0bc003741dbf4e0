"""Where parameters lie in a checkpoint, against what transformers really loads."""

from __future__ import annotations

import merge_fixture
import pytest
import torch

from peftkit.errors import ArtefactError
from peftkit.merging.folder import model_config
from peftkit.merging.meta_model import build_on_meta
from peftkit.merging.origins import Origins, find_origins
from peftkit.merging.weights_io import open_checkpoint


@pytest.mark.parametrize("kind", ["mixtral", "qwen3_moe", "gpt_oss", "llama", "bert"])
def test_pieces_are_what_transformers_loads(kind, tmp_path) -> None:
    base = merge_fixture.make_base(kind, tmp_path, dtype="float32")
    model = build_on_meta(base, model_config(base))
    origins = find_origins(model, open_checkpoint(base))
    stored, loaded = merge_fixture.tensors(base), merge_fixture.load(base, "float32").state_dict()
    assert origins.unclear == {}
    for name, parameter in loaded.items():
        if name not in origins.pieces:
            continue  # a buffer that is computed
        for piece in origins.of(name):
            tensor = stored[piece.tensor.name]
            part = parameter if piece.expert is None else parameter[piece.expert]
            if piece.expert is not None:
                part = part[piece.start : piece.start + len(tensor)]
            assert torch.equal(part, tensor), name


def test_tensors_that_the_class_has_no_place_for_are_left_over(tmp_path) -> None:
    base = merge_fixture.make_base("bert", tmp_path, dtype="float32")
    config = {**model_config(base), "architectures": ["BertForTokenClassification"]}
    origins = find_origins(build_on_meta(base, config), open_checkpoint(base))
    assert origins.left_over == {"bert.pooler.dense.weight", "bert.pooler.dense.bias"}


def test_what_is_not_known_is_refused_by_name(tmp_path) -> None:
    origins = Origins(None, {}, {"a.b": "PermuteForRope"})
    with pytest.raises(ArtefactError, match="by PermuteForRope, which peftkit cannot merge"):
        origins.of("a.b")
    with pytest.raises(ArtefactError, match=r"the base has no a\.c"):
        origins.of("a.c")
