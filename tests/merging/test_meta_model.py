"""The base without weights, and what its class knows."""

from __future__ import annotations

import merge_fixture
import pytest

from peftkit.errors import ArtefactError
from peftkit.merging.folder import model_config
from peftkit.merging.meta_model import build_on_meta, label_parameters, model_class, tied_parameters


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return merge_fixture.make_base("llama-tied", tmp_path_factory.mktemp("base"))


def test_shapes_without_memory(base) -> None:
    model = build_on_meta(base, model_config(base))
    assert {parameter.device.type for parameter in model.parameters()} == {"meta"}
    assert tuple(model.model.embed_tokens.weight.shape) == (48, 32)


def test_ties_are_the_models_own(base, tmp_path) -> None:
    ties = tied_parameters(base, model_config(base))
    assert ties == {"lm_head.weight": "model.embed_tokens.weight"}
    untied = merge_fixture.make_base("llama", tmp_path)
    assert tied_parameters(untied, model_config(untied)) == {}


def test_a_task_brings_its_own_class(base) -> None:
    config = model_config(base)
    assert model_class(config, None, base).__name__ == "LlamaForCausalLM"
    assert (
        model_class(config, {"task_type": "SEQ_CLS"}, base).__name__
        == "LlamaForSequenceClassification"
    )


def test_where_no_task_is_named_peft_s_record_of_the_class_holds(base) -> None:
    config = model_config(base)

    def recorded(name: str):
        adapter = {"task_type": None, "auto_mapping": {"base_model_class": name}}
        return model_class(config, adapter, base).__name__

    assert recorded("LlamaForTokenClassification") == "LlamaForTokenClassification"
    # of another architecture, no model, unknown: the base's own
    for name in ("BertForMaskedLM", "AutoConfig", "os", "Mine"):
        assert recorded(name) == "LlamaForCausalLM"


def test_rows_of_labels_are_found_by_their_number(base) -> None:
    config = {**model_config(base), "architectures": ["LlamaForSequenceClassification"]}
    assert label_parameters(base, config) == {"score.weight"}


def test_an_unknown_class_is_refused(base) -> None:
    with pytest.raises(ArtefactError, match="is a MineForCausalLM, which transformers"):
        model_class({"architectures": ["MineForCausalLM"]}, None, base)


def test_a_config_that_names_code_is_refused(base) -> None:
    config = {**model_config(base), "_attn_implementation_internal": "someone/kernels"}
    with pytest.raises(ArtefactError, match="names code to download"):
        build_on_meta(base, config)
