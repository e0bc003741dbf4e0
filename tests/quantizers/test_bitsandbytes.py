"""Every number format of bitsandbytes trains, evaluates and generates on a CPU."""

from __future__ import annotations

import pytest
import tiny
import torch

from peftkit.adapters.base import count_parameters
from peftkit.adapters.peft_types import Lora
from peftkit.errors import UsageError
from peftkit.models.base import load_base
from peftkit.models.tokenizer import load_tokenizer
from peftkit.plugins import CAUSAL_LM
from peftkit.quantizers.bitsandbytes import BitsAndBytes
from peftkit.recipe.schema import ModelSection

KINDS = {
    "nf4": {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4"},
    "nf4-double": {
        "load_in_4bit": True,
        "bnb_4bit_quant_type": "nf4",
        "bnb_4bit_use_double_quant": True,
    },
    "fp4": {"load_in_4bit": True, "bnb_4bit_quant_type": "fp4"},
    "int8": {"load_in_8bit": True},
}
ROWS = [{"input_ids": list(range(10, 30)), "labels": [-100] * 4 + list(range(14, 30))}] * 4


def quantizer(**options) -> BitsAndBytes:
    from transformers import BitsAndBytesConfig

    return BitsAndBytes(BitsAndBytesConfig(**options))


def quantized(section: ModelSection, **options):
    return load_base(
        section,
        kind=CAUSAL_LM,
        quantizer=quantizer(**options),
    )


@pytest.mark.parametrize("kind", KINDS)
def test_trains_evaluates_and_generates(kind: str, tiny_model, tmp_path, capsys) -> None:
    from datasets import Dataset
    from peft import LoraConfig
    from trl import SFTConfig, SFTTrainer

    section = ModelSection(path=str(tiny_model), dtype="float32")
    base = quantized(section, **KINDS[kind])
    num_base = sum(p.numel() for p in load_base(section, kind=CAUSAL_LM).parameters())
    model = Lora(LoraConfig(r=4, target_modules="all-linear")).attach(base)
    trainable, total = count_parameters(model, quantizer(**KINDS[kind]))
    assert total == num_base + trainable, "a packed weight counts each of its numbers"
    arguments = SFTConfig(
        output_dir=str(tmp_path),
        max_steps=3,
        per_device_train_batch_size=2,
        learning_rate=1e-2,
        bf16=False,
        use_cpu=True,
        report_to="none",
        save_strategy="no",
        disable_tqdm=True,
        logging_steps=1,
        activation_checkpointing=True,
        dataset_kwargs={"skip_prepare_dataset": True},
    )
    trainer = SFTTrainer(
        model=model,
        args=arguments,
        train_dataset=Dataset.from_list(ROWS),
        eval_dataset=Dataset.from_list(ROWS),
        processing_class=load_tokenizer(section, tmp_path),
    )
    first = trainer.evaluate()["eval_loss"]
    trainer.train()
    assert trainer.evaluate()["eval_loss"] < first
    # Evaluation repacks 4-bit weights for the CPU; training goes on from there.
    trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert losses[-1] < losses[0]
    answer = model.generate(
        input_ids=torch.tensor([[5, 6, 7]]),
        attention_mask=torch.ones(1, 3, dtype=torch.long),
        max_new_tokens=3,
        do_sample=False,
    )
    assert answer.shape == (1, 6)
    capsys.readouterr()


@pytest.mark.parametrize("kind", KINDS)
def test_evaluating_in_between_changes_nothing(kind: str, tiny_model) -> None:
    """bitsandbytes cuts gradients after an evaluation on the CPU, unless told not to repack."""
    from peft import LoraConfig

    ids = torch.arange(10, 30).unsqueeze(0)

    def gradients(*, evaluate_first: bool) -> list[torch.Tensor]:
        base = quantized(ModelSection(path=str(tiny_model), dtype="float32"), **KINDS[kind])
        torch.manual_seed(0)
        model = Lora(LoraConfig(r=4, target_modules="all-linear")).attach(base)
        if evaluate_first:
            with torch.no_grad():
                model.eval()(input_ids=ids)
        model.train()(input_ids=ids, labels=ids.clone()).loss.backward()
        return [p.grad for p in model.parameters() if p.requires_grad]

    pairs = zip(gradients(evaluate_first=False), gradients(evaluate_first=True), strict=True)
    assert all(torch.equal(one, two) for one, two in pairs)


def test_rows_need_not_be_multiples_of_32(tmp_path) -> None:
    folder = tiny.tiny_llama(tmp_path, intermediate_size=100)
    model = quantized(ModelSection(path=str(folder), dtype="float32"), **KINDS["nf4"])
    ids = torch.arange(10, 30).unsqueeze(0)
    with torch.no_grad():
        evaluated, trained = model.eval()(ids).logits, model.train()(ids).logits
    torch.testing.assert_close(evaluated, trained, rtol=0, atol=1e-5)


def test_a_config_that_asks_for_nothing(tiny_model) -> None:
    with pytest.raises(UsageError, match="neither 4 nor 8 bits") as caught:
        quantized(ModelSection(path=str(tiny_model)))
    assert "load_in_4bit: true" in caught.value.hint


@pytest.mark.parametrize("kind", KINDS)
def test_every_number_format_conforms(kind: str) -> None:
    from peftkit.testing import check_quantizer

    check_quantizer(BitsAndBytes, KINDS[kind])


@pytest.mark.parametrize("kind", KINDS)
def test_there_and_back_is_what_loading_makes_of_a_weight(kind: str, tiny_model) -> None:
    section = ModelSection(path=str(tiny_model), dtype="float32")
    plain = load_base(section, kind=CAUSAL_LM)
    dequantized = quantized(section, **KINDS[kind]).dequantize()
    name = "model.layers.0.mlp.down_proj.weight"
    back = quantizer(**KINDS[kind]).there_and_back(plain.state_dict()[name])
    torch.testing.assert_close(back, dequantized.state_dict()[name], rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("options", "computed", "says"),
    [
        ({"load_in_4bit": True}, "bfloat16", "every device holds the whole 4-bit base"),
        ({"load_in_4bit": True, "bnb_4bit_quant_storage": "bfloat16"}, "bfloat16", None),
        ({"load_in_4bit": True, "bnb_4bit_quant_storage": "float32"}, None, None),
    ],
)
def test_whether_shards_are_cut(options: dict, computed: str | None, says: str | None) -> None:
    found = quantizer(**options).replicated(computed)
    assert found is None if says is None else found.startswith(says)


@pytest.mark.parametrize(
    ("options", "hint"),
    [
        ({"load_in_8bit": True}, "load_in_4bit"),
        ({"load_in_4bit": True, "bnb_4bit_quant_storage": "float32"}, "quant_storage=bfloat16"),
    ],
)
def test_shards_that_lose_what_weights_mean(options: dict, hint: str) -> None:
    with pytest.raises(UsageError) as caught:
        quantizer(**options).replicated("bfloat16")
    assert hint in str(caught.value.hint)
