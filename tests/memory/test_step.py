"""One step of ours is one step of the method's own trainer, weight for weight."""

from __future__ import annotations

import pytest
import real_step
import torch

from peftkit.memory import step
from peftkit.methods.sft import SFT
from peftkit.plugins import CAUSAL_LM, Training
from peftkit.recipe.build import build


def _trained(recipe, model, rows, tmp_path) -> dict[str, torch.Tensor]:
    """Train one step with the method's trainer; return what was trained."""
    from datasets import Dataset
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel({"<pad>": 0}, unk_token="<pad>")),
        pad_token="<pad>", eos_token="<pad>",
    )  # fmt: skip
    built = build(recipe, real_step.CPU)
    trainer = built.method.trainer(
        Training(model, tokenizer, Dataset.from_list(rows), None, (), tmp_path)
    )
    trainer.train()
    return {n: p.detach().clone() for n, p in model.named_parameters() if p.requires_grad}


@pytest.mark.parametrize(
    ("method", "smoothing"), [("sft", 0.0), ("pretrain_lm", 0.0), ("pretrain_lm", 0.1)]
)
def test_a_step_is_the_trainers(method: str, smoothing: float, tmp_path) -> None:
    from peftkit.models.base import load_base

    folder = real_step.save_model(tmp_path / "model", {**real_step.LLAMA, "num_hidden_layers": 2})
    options = {
        "per_device_train_batch_size": 2, "max_length": 24, "max_steps": 1, "use_cpu": True,
        "learning_rate": 1e-2, "lr_scheduler_type": "constant", "report_to": "none",
        "save_strategy": "no", "label_smoothing_factor": smoothing,
    }  # fmt: skip
    changes = {"method": {method: options}, "adapter": "full", "speed": real_step.NATIVE}
    if method == "pretrain_lm":
        changes["data.task"] = {"text": {"text": "document"}}
    recipe = real_step.recipe_for(folder, **changes)
    batch = real_step.token_batch(2, 24)
    rows = [{"input_ids": ids.tolist(), "labels": ids.tolist()} for ids in batch["input_ids"]]
    built = build(recipe, real_step.CPU)
    theirs = _trained(
        recipe,
        built.adapter.attach(load_base(recipe.model, kind=CAUSAL_LM)),
        rows,
        tmp_path,
    )

    ours = built.adapter.attach(load_base(recipe.model, kind=CAUSAL_LM)).train()
    if built.method.fuses_head:
        from trl.trainer.utils import add_fused_lm_head

        add_fused_lm_head(ours, outputs=("log_probs", "entropy", "is_top1"))
    else:
        batch.pop("attention_mask")
    args = built.method.config
    settings = step.StepSettings.of(args, "cpu")
    optimizer = step.make_optimizer(ours, built.method)
    phases: list[str] = []
    step.forward_backward(ours, batch, built.method.loss(), settings, phases.append)
    step.update(list(ours.parameters()), optimizer, settings, phases.append)
    assert phases == ["forward", "backward", "step"]
    for name, parameter in ours.named_parameters():
        # The trainer shuffles two rows of one batch, so sums run in another order.
        torch.testing.assert_close(parameter.detach(), theirs[name], rtol=1e-4, atol=1e-5)


def test_settings_are_read_off_the_arguments() -> None:
    from transformers import TrainingArguments

    args = TrainingArguments(
        "x", use_cpu=True, bf16=True, gradient_accumulation_steps=4, max_grad_norm=0.5
    )
    assert step.StepSettings.of(args, "cpu") == step.StepSettings(4, 0.5, "bfloat16", "cpu")


FAMILIES = {
    "llama": (real_step.LLAMA, "AutoModelForCausalLM"),
    "gpt2": (real_step.GPT2, "AutoModelForCausalLM"),
    "gemma3": ({**real_step.LLAMA, "model_type": "gemma3_text"}, "AutoModelForCausalLM"),
    "t5": (real_step.T5, "AutoModelForSeq2SeqLM"),
    "bert": (real_step.BERT, "AutoModelForSequenceClassification"),
}


def _groups(optimizer: torch.optim.Optimizer, model: torch.nn.Module) -> list[dict]:
    """Return an optimizer's groups, with names in the parameters' place."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    return [
        {**group, "params": [names[id(parameter)] for parameter in group["params"]]}
        for group in optimizer.param_groups
    ]


@pytest.mark.filterwarnings("ignore:fan_in_fan_out is set")
@pytest.mark.parametrize("is_lora", [False, True], ids=["full", "lora"])
@pytest.mark.parametrize("family", FAMILIES)
def test_what_decays_is_what_decays_in_the_trainer(family: str, is_lora: bool, tmp_path) -> None:
    import transformers
    from peft import LoraConfig, get_peft_model

    (config, auto_class), options = FAMILIES[family], {"weight_decay": 0.1, "use_cpu": True}
    made = transformers.AutoConfig.for_model(**config)
    model = getattr(transformers, auto_class).from_config(made)
    if is_lora:
        model = get_peft_model(model, LoraConfig(target_modules="all-linear", bias="all"))
    args = transformers.TrainingArguments(tmp_path, **options)
    theirs = _groups(transformers.Trainer(model, args).create_optimizer(), model)
    assert _groups(step.make_optimizer(model, SFT(args)), model) == theirs
    assert [group["weight_decay"] for group in theirs] == [0.1, 0.0]
    assert theirs[0]["params"]
    assert theirs[1]["params"] or is_lora
