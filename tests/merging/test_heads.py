"""Whose head a merged model has: the base's or the adapter's, as plain peft computes with it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import merge_fixture
import peft
import pytest
import torch
import transformers

from peftkit.errors import ArtefactError
from peftkit.merge import merge

pytestmark = [pytest.mark.filterwarnings(f"ignore:{n}") for n in merge_fixture.NOTICES]

BERT = {
    "vocab_size": 48, "hidden_size": 32, "intermediate_size": 56, "num_hidden_layers": 2,
    "num_attention_heads": 4, "max_position_embeddings": 64, "pad_token_id": 1,
}  # fmt: skip
DISTILBERT = {
    "vocab_size": 48, "dim": 32, "hidden_dim": 56, "n_layers": 2, "n_heads": 4,
    "max_position_embeddings": 64,
}  # fmt: skip
T5 = {
    "vocab_size": 48, "d_model": 32, "d_kv": 8, "d_ff": 56, "num_layers": 2, "num_heads": 4,
    "decoder_start_token_id": 0, "pad_token_id": 1, "eos_token_id": 0,
}  # fmt: skip
BART = {
    "vocab_size": 48, "d_model": 32, "encoder_layers": 1, "decoder_layers": 1,
    "encoder_attention_heads": 4, "decoder_attention_heads": 4, "encoder_ffn_dim": 56,
    "decoder_ffn_dim": 56, "max_position_embeddings": 64, "bos_token_id": 2, "pad_token_id": 1,
    "eos_token_id": 0, "decoder_start_token_id": 0,
}  # fmt: skip
LABELS = {"num_labels": 3}
CLASSES: dict[str, tuple[dict[str, Any], str, list[str]]] = {
    "BertForSequenceClassification": (BERT | LABELS, "query", ["classifier"]),
    "BertForTokenClassification": (BERT | LABELS, "query", ["classifier"]),
    "BertForQuestionAnswering": (BERT, "query", ["qa_outputs"]),
    "BertForMaskedLM": (BERT, "query", ["cls"]),
    "BertForPreTraining": (BERT, "query", ["cls"]),
    "RobertaForSequenceClassification": (BERT | LABELS, "query", ["classifier"]),
    "DistilBertForSequenceClassification": (
        DISTILBERT | LABELS, "q_lin", ["pre_classifier", "classifier"],
    ),
    "LlamaForSequenceClassification": (BERT | LABELS, "q_proj", ["score"]),
    "LlamaForQuestionAnswering": (BERT, "q_proj", ["qa_outputs"]),
    "LlamaForCausalLM": (BERT | {"tie_word_embeddings": False}, "q_proj", ["lm_head"]),
    "T5ForSequenceClassification": (T5 | LABELS, "q", ["classification_head"]),
    "T5ForConditionalGeneration": (T5, "q", ["lm_head"]),
    "BartForSequenceClassification": (BART | LABELS, "q_proj", ["classification_head"]),
}  # fmt: skip
"""Class -> its configuration, a module to adapt, its head."""
METHODS = {
    "lora": lambda **o: peft.LoraConfig(r=3, lora_alpha=7, **o),
    "pissa": lambda **o: peft.LoraConfig(r=3, init_lora_weights="pissa", **o),
    "loha": lambda **o: peft.LoHaConfig(r=3, alpha=7, **o),
    "hra": lambda **o: peft.HRAConfig(r=4, **o),
    "ia3": lambda **o: peft.IA3Config(feedforward_modules=[], **o),
    "boft": lambda **o: peft.BOFTConfig(boft_block_size=4, **o),  # through peft
}


def save_base(name: str, folder: Path, **config: Any) -> Path:
    """Save a model of a class with random weights; return the folder."""
    cls = getattr(transformers, name)
    torch.manual_seed(0)
    model = cls(cls.config_class(**config))
    for parameter in model.parameters():
        parameter.data = torch.randn_like(parameter) * 0.2
    model.tie_weights()
    model.save_pretrained(folder)
    return folder


def train(name: str, base: Path, folder: Path, config: Any, **options: Any) -> Any:
    """Attach an adapter with plain peft, move what it trains, save it; return the model."""
    loaded = getattr(transformers, name).from_pretrained(base, **options)
    attached = peft.get_peft_model(loaded, config)
    torch.manual_seed(1)
    for parameter in attached.parameters():
        if parameter.requires_grad:
            scale = max(0.05, 0.5 * float(parameter.detach().std(correction=0)))
            parameter.data += scale * torch.randn_like(parameter)
    attached.save_pretrained(folder)
    return attached.eval()


def logits(model: Any) -> list[torch.Tensor]:
    """Return what every head says of one row that ends as T5's and BART's texts do."""
    ids = torch.cat([torch.arange(2, 22), torch.zeros(1, dtype=torch.long)])[None]
    inputs = {"input_ids": ids}
    if model.config.is_encoder_decoder and model.can_generate():
        inputs["decoder_input_ids"] = ids[:, :9]
    with torch.no_grad():
        found = model(**inputs)
    return [found[name] for name in found if name.endswith("logits")]


def assert_merged(name: str, base: Path, adapter: Path, out: Path, trained: Any) -> None:
    """Merge, prove, load with plain transformers, and compare with plain peft's model."""
    result = merge(adapter, out=out, base=str(base), verify=True)
    assert result.verification is not None
    cls = getattr(transformers, name)
    merged, report = cls.from_pretrained(out, output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"]
    assert json.loads((out / "config.json").read_text())["architectures"] == [name]
    for found, wanted in zip(logits(merged.eval()), logits(trained), strict=True):
        assert float((found - wanted).abs().max()) < 1e-5 * float(wanted.abs().max())


@pytest.mark.parametrize("name", CLASSES)
def test_a_head_that_no_task_names_stays_the_bases(name: str, tmp_path: Path) -> None:
    settings, target, _ = CLASSES[name]
    base = save_base(name, tmp_path / "base", **settings)
    config = METHODS["lora"](target_modules=[target])
    trained = train(name, base, tmp_path / "adapter", config)
    assert_merged(name, base, tmp_path / "adapter", tmp_path / "out", trained)


@pytest.mark.parametrize("method", [name for name in METHODS if name != "lora"])
def test_every_method_leaves_the_head_alone(method: str, tmp_path: Path) -> None:
    name = "BertForSequenceClassification"
    base = save_base(name, tmp_path / "base", **CLASSES[name][0])
    config = METHODS[method](target_modules=["query"])
    trained = train(name, base, tmp_path / "adapter", config)
    assert_merged(name, base, tmp_path / "adapter", tmp_path / "out", trained)


HEADS = {
    "saved": {"modules_to_save": True},
    "task": {"task_type": "SEQ_CLS"},
    "task-saved": {"task_type": "SEQ_CLS", "modules_to_save": True},
    "adapted": {"target_modules": "all-linear"},
    "decoder": {"target_modules": ["query", "decoder"]},
}


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        *(("BertForSequenceClassification", kind) for kind in HEADS if kind != "decoder"),
        ("RobertaForSequenceClassification", "task"),
        ("DistilBertForSequenceClassification", "saved"),
        ("LlamaForSequenceClassification", "task-saved"),
        ("BertForMaskedLM", "saved"),
        ("BertForMaskedLM", "decoder"),
        ("BertForPreTraining", "saved"),
        ("BartForSequenceClassification", "saved"),
        ("T5ForConditionalGeneration", "saved"),
    ],
)
def test_a_head_that_the_adapter_trains_takes_the_bases_place(
    name: str, kind: str, tmp_path: Path
) -> None:
    settings, target, head = CLASSES[name]
    options = {"target_modules": [target], **HEADS[kind]}
    if options.get("modules_to_save"):
        options["modules_to_save"] = head
    base = save_base(name, tmp_path / "base", **settings)
    trained = train(name, base, tmp_path / "adapter", METHODS["lora"](**options))
    assert_merged(name, base, tmp_path / "adapter", tmp_path / "out", trained)


NEW = {
    "bare body": ("BertModel", "BertForSequenceClassification", "lora", {}),
    "another head": ("BertForPreTraining", "BertForTokenClassification", "lora", {}),
    "a task's": ("RobertaForMaskedLM", "RobertaForSequenceClassification", "lora", {"task": True}),
    "through peft": ("LlamaModel", "LlamaForSequenceClassification", "boft", {}),
    "other labels": ("BertForSequenceClassification",) * 2 + ("lora", {"num_labels": 5}),
    "other labels of a task's": ("BertForTokenClassification",) * 2
    + ("lora", {"num_labels": 5, "task": True}),
}


@pytest.mark.parametrize("kind", NEW)
def test_a_head_that_the_base_lacks_is_the_adapters(kind: str, tmp_path: Path) -> None:
    before, name, method, extra = NEW[kind]
    settings, target, head = CLASSES[name]
    plain = {k: v for k, v in settings.items() if k != "num_labels"}
    labels = {"num_labels": extra["num_labels"]} if "num_labels" in extra else {}
    base = save_base(before, tmp_path / "base", **plain, **labels)
    task = "TOKEN_CLS" if "Token" in name else "SEQ_CLS"
    options = {"task_type": task} if "task" in extra else {"modules_to_save": head}
    config = METHODS[method](target_modules=[target], **options)
    trained = train(
        name, base, tmp_path / "adapter", config, num_labels=3, ignore_mismatched_sizes=True
    )
    assert_merged(name, base, tmp_path / "adapter", tmp_path / "out", trained)
    assert json.loads((tmp_path / "out/config.json").read_text())["id2label"]["2"] == "LABEL_2"


@pytest.mark.parametrize(
    ("before", "name", "options"),
    [
        ("BertForPreTraining", "BertForSequenceClassification", {}),
        # PEFT's own wrapper saves no head of this name
        ("T5ForConditionalGeneration", "T5ForSequenceClassification", {"task_type": "SEQ_CLS"}),
    ],
)
def test_a_head_that_nobody_kept_is_refused_before_anything_is_written(
    before: str, name: str, options: dict[str, Any], tmp_path: Path
) -> None:
    settings, target, head = CLASSES[name]
    plain = {k: v for k, v in settings.items() if k != "num_labels"}
    base = save_base(before, tmp_path / "base", **plain)
    config = METHODS["lora"](target_modules=[target], **options)
    train(name, base, tmp_path / "adapter", config, num_labels=3)
    with pytest.raises(
        ArtefactError, match=rf"trained on a {name}, and neither it nor the base holds {head[0]}"
    ):
        merge(tmp_path / "adapter", out=tmp_path / "out", base=str(base))
    assert not list((tmp_path / "out").iterdir())


def test_a_run_s_labels_are_the_merged_models(tmp_path: Path) -> None:
    name = "BertForSequenceClassification"
    settings, target, head = CLASSES[name]
    base = save_base(name, tmp_path / "base", **settings)
    config = METHODS["lora"](target_modules=[target], modules_to_save=head)
    trained = train(name, base, tmp_path / "adapter", config)
    names = {0: "bad", 1: "good", 2: "ugly"}
    trained.config.id2label = names
    trained.config.save_pretrained(tmp_path / "adapter")
    assert_merged(name, base, tmp_path / "adapter", tmp_path / "out", trained)
    assert transformers.AutoConfig.from_pretrained(tmp_path / "out").id2label == names
