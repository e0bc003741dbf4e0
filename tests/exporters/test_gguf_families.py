"""Every tensor of a model has one place in the file, and sizes are said as loaders read them."""

from __future__ import annotations

from pathlib import Path

import pytest
import tiny_families

from peftkit.errors import ArtefactError
from peftkit.exporters.gguf_families import hyperparameters, limits, plan_tensors
from peftkit.exporters.model_folder import open_model

gguf = pytest.importorskip("gguf", reason="the gguf extra is not installed")


def _open(folder: Path):
    from transformers import AutoConfig

    return open_model(folder), AutoConfig.from_pretrained(folder)


@pytest.mark.parametrize("name", list(tiny_families.FAMILIES))
def test_every_tensor_is_planned_once(name: str, tmp_path: Path) -> None:
    model, config = _open(tiny_families.save(name, tmp_path))
    planned = plan_tensors(model, config)
    assert sorted(tensor.source for tensor in planned) == sorted(model.shapes)
    assert len({tensor.name for tensor in planned}) == len(planned)
    for tensor in planned:
        assert tuple(tensor.transform(model.read(tensor.source)).shape) == tensor.shape


def test_sizes_of_a_decoder(tmp_path: Path) -> None:
    model, config = _open(tiny_families.save("gemma2", tmp_path))
    found = dict(hyperparameters(model, config))
    assert found["key_length"] == found["value_length"] == found["rope_dimension_count"] == 32
    assert (found["head_count"], found["head_count_kv"], found["sliding_window"]) == (4, 2, 32)
    assert found["attn_logit_softcapping"] == 50.0
    assert found["final_logit_softcapping"] == 30.0


def test_gemma_3_says_both_rotary_bases(tmp_path: Path) -> None:
    model, config = _open(tiny_families.save("gemma3", tmp_path))
    found = dict(hyperparameters(model, config))
    assert (found["rope_freq_base"], found["rope_freq_base_swa"]) == (1_000_000.0, 10_000.0)


@pytest.mark.parametrize(
    ("rope", "expected"),
    [
        ({"rope_type": "linear", "factor": 4.0}, {"rope_scaling_factor": 4.0}),
        ({"rope_type": "yarn", "factor": 2.0, "original_max_position_embeddings": 64},
         {"rope_scaling_factor": 2.0, "rope_scaling_orig_ctx_len": 64}),
    ],
)  # fmt: skip
def test_rotary_scaling_is_said(rope: dict, expected: dict, tmp_path: Path) -> None:
    settings = {"rope_parameters": {"rope_theta": 5000.0, **rope}}
    model, config = _open(tiny_families.save("qwen3", tmp_path, **settings))
    found = dict(hyperparameters(model, config))
    assert expected.items() <= found.items()
    assert found["rope_scaling_type"].value == rope["rope_type"]
    assert found["rope_freq_base"] == 5000.0


def test_rotary_scaling_that_the_loader_has_not_is_refused(tmp_path: Path) -> None:
    rope = {"rope_theta": 5000.0, "rope_type": "dynamic", "factor": 2.0}
    model, config = _open(tiny_families.save("llama", tmp_path, rope_parameters=rope))
    with pytest.raises(ArtefactError, match="rope_type 'dynamic'"):
        list(hyperparameters(model, config))


def test_a_window_that_the_loader_ignores_is_told(tmp_path: Path) -> None:
    model, config = _open(tiny_families.save("mistral", tmp_path, sliding_window=32))
    assert "beyond 32 tokens" in limits(model, config)[0]


def test_a_tensor_without_a_place_is_named(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = tiny_families.save("llama", tmp_path)
    weights = load_file(folder / "model.safetensors")
    weights["model.layers.0.self_attn.gate.weight"] = weights["model.norm.weight"].clone()
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    model, config = _open(folder)
    with pytest.raises(ArtefactError, match=r"self_attn\.gate"):
        plan_tensors(model, config)


def test_a_classifier_has_no_place(tmp_path: Path) -> None:
    folder = tiny_families.save_bert(tmp_path, architecture="BertForSequenceClassification")
    model, config = _open(folder)
    with pytest.raises(ArtefactError, match="classifier"):
        plan_tensors(model, config)
