"""An adapter from disk: continued exactly, or refused by name."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest
import torch

from peftkit.adapters.continued import adapter_folder, brought_by, load_adapter
from peftkit.adapters.peft_types import AdaLora, Lora
from peftkit.errors import ArtefactError
from peftkit.plugins.native import trains_head

IDS = torch.arange(10, 26).unsqueeze(0)


def base_of(folder: Path):
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder)


def logits_of(model) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(input_ids=IDS).logits


@pytest.fixture
def saved(tiny_model, tmp_path) -> Path:
    """Save a LoRA with weights that do something."""
    from peft import LoraConfig

    torch.manual_seed(0)
    config = LoraConfig(
        r=4,
        target_modules=["q_proj", "v_proj"],
        rank_pattern={"v_proj": 2},
        init_lora_weights=False,
    )
    folder = tmp_path / "run" / "adapter"
    Lora(config).attach(base_of(tiny_model)).save_pretrained(folder)
    return folder


def edit(folder: Path, **fields) -> None:
    file = folder / "adapter_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **fields}))


def edit_weights(folder: Path, change) -> None:
    from safetensors.torch import load_file, save_file

    file = folder / "adapter_model.safetensors"
    save_file(change(load_file(file)), file)


def refusal(tiny_model, folder: Path) -> ArtefactError:
    with pytest.raises(ArtefactError) as caught:
        load_adapter(base_of(tiny_model), folder, is_trainable=True)
    assert caught.value.exit_code == 4
    return caught.value


def test_what_an_adapter_brings_is_named_as_the_model_does(tiny_model, tmp_path) -> None:
    from peft import LoraConfig

    config = LoraConfig(r=4, target_modules=["q_proj"], modules_to_save=["model.norm"])
    Lora(config).attach(base_of(tiny_model)).save_pretrained(tmp_path)
    whole = {name for name, _ in base_of(tiny_model).named_parameters()}
    assert brought_by(tmp_path) & whole == {"model.norm.weight"}


@pytest.mark.parametrize("is_saved", [False, True])
def test_a_head_is_the_adapters_only_where_its_file_has_one(is_saved: bool, tmp_path) -> None:
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForSequenceClassification, BertConfig

    torch.manual_seed(0)
    sizes = {"vocab_size": 48, "hidden_size": 32, "num_hidden_layers": 1,
             "num_attention_heads": 4, "intermediate_size": 56}  # fmt: skip
    base = AutoModelForSequenceClassification.from_config(BertConfig(**sizes))
    heads = {"modules_to_save": ["classifier"]} if is_saved else {}
    config = LoraConfig(r=4, target_modules=["query"], init_lora_weights=False, **heads)
    attached = get_peft_model(copy.deepcopy(base), config)
    attached.save_pretrained(tmp_path)
    again = load_adapter(copy.deepcopy(base), tmp_path, is_trainable=True)
    assert torch.equal(logits_of(again), logits_of(attached))
    assert trains_head(again) is is_saved
    trained = {name for name, p in again.named_parameters() if p.requires_grad}
    assert any("classifier" in name for name in trained) is is_saved


def test_continues_where_it_was(tiny_model, saved) -> None:
    model = load_adapter(base_of(tiny_model), saved, is_trainable=True)
    trainable = {name for name, p in model.named_parameters() if p.requires_grad}
    assert trainable
    assert all(".lora_" in name for name in trainable)
    frozen = load_adapter(base_of(tiny_model), saved.parent, is_trainable=False)
    assert not any(p.requires_grad for p in frozen.parameters())
    assert torch.equal(logits_of(model), logits_of(frozen))
    assert not torch.equal(logits_of(model), logits_of(base_of(tiny_model)))


def test_a_run_directory_stands_for_its_adapter(saved) -> None:
    assert adapter_folder(saved.parent) == adapter_folder(saved) == saved


def test_adalora_with_fewer_ranks_comes_back(tiny_model, tmp_path) -> None:
    from peft import AdaLoraConfig

    config = AdaLoraConfig(
        total_step=6, tinit=1, tfinal=2, init_r=4, target_r=2, target_modules=["q_proj"]
    )
    model = AdaLora(config).attach(base_of(tiny_model))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_E" in name:
                parameter[:2] = 1.0
    name = "model.layers.{}.self_attn.q_proj.lora_E.default"
    model.peft_config["default"].rank_pattern = {
        name.format(layer): [True, True, False, False] for layer in range(2)
    }
    wanted = logits_of(model)
    model.save_pretrained(tmp_path)
    again = load_adapter(base_of(tiny_model), tmp_path, is_trainable=False)
    torch.testing.assert_close(logits_of(again), wanted, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    "fields",
    [
        {"base_model_name_or_path": "someone/elsewhere"},
        {"auto_mapping": {"parent_library": "os", "base_model_class": "system"}},
        {"megatron_config": {"a": 1}, "megatron_core": "os"},
        {"inference_mode": True, "task_type": "SEQ_CLS", "revision": "main"},
    ],
)
def test_fields_that_redirect_or_import_are_not_followed(tiny_model, saved, fields) -> None:
    wanted = logits_of(load_adapter(base_of(tiny_model), saved, is_trainable=False))
    edit(saved, **fields)
    model = load_adapter(base_of(tiny_model), saved, is_trainable=True)
    assert torch.equal(logits_of(model), wanted)
    assert model.peft_config["default"].base_model_name_or_path == str(tiny_model)


def test_no_adapter_there(tiny_model, tmp_path) -> None:
    error = refusal(tiny_model, tmp_path)
    assert error.message == f"{tmp_path} holds no adapter: adapter_config.json is missing"


def test_a_pickle_is_refused_with_the_conversion(tiny_model, saved) -> None:
    (saved / "adapter_model.safetensors").rename(saved / "adapter_model.bin")
    error = refusal(tiny_model, saved)
    assert "a pickle, which can run code" in error.message
    assert "convert it once" in error.hint


def test_torn_weights(tiny_model, saved) -> None:
    file = saved / "adapter_model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    assert "is torn or no safetensors file" in refusal(tiny_model, saved).message


def test_numbers_that_are_none(tiny_model, saved) -> None:
    def poison(weights):
        first = next(iter(weights))
        return {**weights, first: torch.full_like(weights[first], torch.nan)}

    edit_weights(saved, poison)
    error = refusal(tiny_model, saved)
    assert error.message.endswith("holds NaN or infinity")


@pytest.mark.parametrize("fields", [{"r": 8}, {"r": 60_000}, {"rank_pattern": {"k_proj": 60_000}}])
def test_a_rank_the_weights_do_not_have(tiny_model, saved, fields) -> None:
    edit(saved, **fields)
    assert refusal(tiny_model, saved).hint == (
        "the config and the weights come from different adapters"
    )


def test_another_base_is_explained(saved, tmp_path) -> None:
    import tiny

    other = tiny.tiny_llama(tmp_path / "other", hidden_size=32, num_attention_heads=2)
    error = refusal(other, saved)
    assert "was made for another base: it has base_model.model" in error.message
    assert error.hint == "name the base model that this adapter was trained on"


def test_missing_and_left_over_weights_are_named(tiny_model, saved) -> None:
    edit_weights(saved, lambda weights: dict(list(weights.items())[1:]))
    assert "it lacks base_model.model" in refusal(tiny_model, saved).message
    edit_weights(saved, lambda weights: {**weights, "base_model.model.x": torch.zeros(1)})
    assert "which the base has no place for" in refusal(tiny_model, saved).message


def test_a_config_of_a_newer_peft(tiny_model, saved) -> None:
    edit(saved, use_tomorrow=True)
    error = refusal(tiny_model, saved)
    assert "has no use_tomorrow (saved by peft" in error.message
    edit(saved, peft_type="TOMORROW")
    error = refusal(tiny_model, saved)
    assert "has no method 'TOMORROW'" in error.message
    assert error.hint == "pip install --upgrade peft"


def test_a_method_that_loads_further_adapters_is_refused(tiny_model, saved) -> None:
    edit(saved, peft_type="XLORA")
    assert "xlora cannot be trained here" in refusal(tiny_model, saved).message
