"""Every quantization of the CPU trains, evaluates and generates; the others say why not."""

from __future__ import annotations

import pytest
import torch

from peftkit.adapters.base import count_parameters
from peftkit.adapters.peft_types import Lora
from peftkit.errors import ResourceError, UsageError
from peftkit.models.load import load_base, load_config, load_tokenizer
from peftkit.models.quantize import check_quantization
from peftkit.plugins import CAUSAL_LM
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


def quantized(section: ModelSection, **options):
    from transformers import BitsAndBytesConfig

    return load_base(
        section,
        kind=CAUSAL_LM,
        quantization_config=BitsAndBytesConfig(**options),
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
    trainable, total = count_parameters(model)
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
    import tiny

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


def test_a_missing_package_is_named(tiny_model) -> None:
    from importlib.util import find_spec

    from transformers import QuantoConfig

    if find_spec("optimum") is not None:
        pytest.skip("optimum-quanto may be installed")
    config = load_config(ModelSection(path=str(tiny_model)))
    with pytest.raises(ResourceError) as caught:
        check_quantization(config, QuantoConfig(weights="int8"), device="cpu")
    assert "pip install optimum-quanto" in caught.value.message
    assert caught.value.exit_code == 5
