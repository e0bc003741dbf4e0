"""What loaders raise becomes one line with a way out."""

from __future__ import annotations

import pytest

from peftkit.errors import ArtefactError, ResourceError, UsageError
from peftkit.models.load_errors import check_loading_report, check_trains, explain_load_error
from peftkit.plugins import CAUSAL_LM, SEQ_2_SEQ_LM, SEQUENCE_CLASSIFICATION
from peftkit.system.hub_errors import explain_hub_error


@pytest.mark.parametrize(
    ("error", "kind", "words"),
    [
        (ImportError("needs hqq: pip install hqq"), ResourceError, "needs hqq"),
        (RuntimeError("CUDA out of memory. Tried"), ResourceError, "out of memory"),
        (
            ValueError("pass the argument `trust_remote_code=True`"),
            ArtefactError,
            "code of its own",
        ),
        (KeyError("x"), ArtefactError, "cannot be loaded"),
        (ValueError(""), ArtefactError, "ValueError"),
    ],
)
def test_local_refusals(error, kind, words) -> None:
    explained = explain_load_error(error, "here", is_local=True)
    assert type(explained) is kind
    assert words in explained.message


def test_a_dataset_s_page_is_named_as_such() -> None:
    from huggingface_hub.errors import OfflineModeIsEnabled

    explained = explain_hub_error(OfflineModeIsEnabled("x"), "owner/rows", kind="dataset")
    assert explained.message.startswith("dataset 'owner/rows' is not in the Hub cache")


def test_only_a_classifier_s_new_head_may_be_missing() -> None:
    class Model:
        base_model_prefix = "transformer"

    report = {
        "missing_keys": {"decoder.block.0.layer.0.SelfAttention.q.weight"},
        "unexpected_keys": set(), "mismatched_keys": set(), "error_msgs": [],
    }  # fmt: skip
    with pytest.raises(ArtefactError, match=r"missing decoder\.block\.0"):
        check_loading_report(Model(), report, "here", kind=SEQ_2_SEQ_LM)
    report["missing_keys"] = {"classifier.weight"}
    kind = SEQUENCE_CLASSIFICATION
    check_loading_report(Model(), report, "here", kind=kind)
    check_loading_report(Model(), report, "here", kind=kind, brought={"classifier.weight"})
    with pytest.raises(ArtefactError, match=r"missing classifier\.weight") as caught:
        check_loading_report(Model(), report, "here", kind=kind, brought={"score.weight"})
    assert "this adapter was trained on" in caught.value.hint
    report["missing_keys"] = {"transformer.embed.weight"}
    with pytest.raises(ArtefactError, match=r"missing transformer\.embed"):
        check_loading_report(Model(), report, "here", kind=kind)


def test_a_head_for_other_labels_is_the_adapters_to_bring() -> None:
    class Model:
        base_model_prefix = "bert"

    report = {
        "missing_keys": set(), "unexpected_keys": set(), "error_msgs": [],
        "mismatched_keys": {("classifier.weight", (5, 8), (3, 8))},
    }  # fmt: skip
    kind = SEQUENCE_CLASSIFICATION
    check_loading_report(Model(), report, "here", kind=kind, brought={"classifier.weight"})
    with pytest.raises(ArtefactError, match=r"classifier\.weight has shape \(5, 8\)"):
        check_loading_report(Model(), report, "here", kind=kind, brought=frozenset())


def test_a_model_of_another_architecture_is_told_which_method_trains_it() -> None:
    from transformers import BertConfig, LlamaConfig, T5Config

    check_trains(T5Config(), SEQ_2_SEQ_LM)
    check_trains(BertConfig(), SEQUENCE_CLASSIFICATION)
    with pytest.raises(UsageError, match="a t5 model has no AutoModelForCausalLM") as caught:
        check_trains(T5Config(), CAUSAL_LM)
    assert caught.value.hint == "method: seq2seq"
    with pytest.raises(UsageError, match="a llama model has no AutoModelForSeq2SeqLM") as caught:
        check_trains(LlamaConfig(), SEQ_2_SEQ_LM)
    assert "sft" in caught.value.hint
    custom = LlamaConfig(auto_map={"AutoModelForSeq2SeqLM": "modeling.Own"})
    check_trains(custom, SEQ_2_SEQ_LM)


def test_an_encoder_is_not_taken_for_a_causal_model() -> None:
    from transformers import BertConfig, GPTNeoXConfig, RobertaConfig

    for encoder in (BertConfig(), RobertaConfig()):
        with pytest.raises(UsageError, match="is an encoder") as e:
            check_trains(encoder, CAUSAL_LM)
        assert e.value.hint.startswith("method: classify")
    check_trains(BertConfig(is_decoder=True), CAUSAL_LM)
    check_trains(GPTNeoXConfig(), CAUSAL_LM)
