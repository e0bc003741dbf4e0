"""Every PEFT method: trained through trl, saved, read back by plain peft; or refused."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path

import pytest
import torch

from peftkit.adapters import peft_types
from peftkit.adapters.base import PeftAdapter
from peftkit.adapters.continued import load_adapter
from peftkit.errors import UsageError
from peftkit.models.base import load_base
from peftkit.models.tokenizer import load_tokenizer
from peftkit.plugins import CAUSAL_LM
from peftkit.recipe.schema import ModelSection

pytestmark = [
    pytest.mark.filterwarnings(f"ignore:{notice}")
    for notice in (
        # PEFT 0.21.2 reads an attribute that transformers 5.23 renamed, also when called plainly.
        "`is_gradient_checkpointing` is deprecated",
        # AdaLoRA may leave a module no rank, which peft takes for a tensor that was not gathered.
        ".* LoRA tensor.* invalid shape",
        ".*rank_pattern keys did not match",
        # What single methods say of themselves on construction or in a forward.
        "Detected that the base layer has no bias term",
        "Failed to load the CUDA extension",
        "Setting boft_n_butterfly_factor to 1",
        "Sparse invariant checks are implicitly disabled",
        "Unsupported layer type .*LlamaRMSNorm",
    )
]

REFUSED = {
    "adaption_prompt": "use prefix_tuning",
    "cpt": "use prompt_tuning",
    "multitask_prompt_tuning": "train one prompt_tuning a task",
    "poly": "train one lora a task",
    "xlora": "train one lora on all the data",
}

# Sizes that suit a hidden size of 64 where a default is made for larger models.
OPTIONS = {
    "adalora": {"total_step": 2, "tinit": 0, "tfinal": 1, "init_r": 6, "target_r": 2},
    "adamss": {"num_subspaces": 3, "r": 8},
    "c3a": {"block_size": 32},
    "cartridge": {"num_virtual_tokens": 4},
    "p_tuning": {"num_virtual_tokens": 4},
    "prefix_tuning": {"num_virtual_tokens": 4},
    "prompt_tuning": {"num_virtual_tokens": 4},
    "road": {"group_size": 32},
    "shadow": {"auxiliary_loss_weight": 0},
    "shira": {"r": 4},
    "trainable_tokens": {"token_indices": [14, 15, 16]},
    "vblora": {"vector_length": 32},
    "waveft": {"n_frequency": 64},
}

NAMES = sorted(
    point.name for point in entry_points(group="peftkit.adapters") if point.name != "full"
)
TRAINED = [name for name in NAMES if name not in REFUSED]
ROWS = [
    {"input_ids": list(range(10, 26 + i)), "labels": [-100] * 4 + list(range(14, 26 + i))}
    for i in range(4)
]


@dataclass(frozen=True)
class Bases:
    """Two tiny bases: trainable tokens need a head that is not tied to the embedding."""

    tied: ModelSection
    untied: ModelSection


@pytest.fixture(scope="module")
def bases(tmp_path_factory) -> Bases:
    import tiny

    folders = [
        tiny.tiny_llama(tmp_path_factory.mktemp(f"tied-{tied}"), tie_word_embeddings=tied)
        for tied in (True, False)
    ]
    return Bases(*(ModelSection(path=str(folder), dtype="float32") for folder in folders))


def plugin(name: str) -> type[PeftAdapter]:
    (point,) = entry_points(group="peftkit.adapters", name=name)
    return point.load()


def native_config(name: str):
    import peft

    return getattr(peft, plugin(name).Config.removeprefix("peft:"))(
        **OPTIONS.get(name, {}), task_type="CAUSAL_LM"
    )


def base_of(section: ModelSection):
    return load_base(section, kind=CAUSAL_LM)


def train(adapter: PeftAdapter, name: str, model, section: ModelSection, folder: Path):
    """Take two steps through trl as a run does; return every loss and trl's evaluation."""
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    decided = {"activation_checkpointing": True}  # trl's default, under its new name
    decided |= {d.key.rpartition(".")[2]: d.value for d in type(adapter).decide("sft", {})}
    arguments = SFTConfig(
        output_dir=str(folder),
        max_steps=2,
        per_device_train_batch_size=2,
        learning_rate=1e-2,
        bf16=False,
        use_cpu=True,
        report_to="none",
        save_strategy="no",
        disable_tqdm=True,
        logging_steps=1,
        dataset_kwargs={"skip_prepare_dataset": True},
        **decided,
    )
    trainer = SFTTrainer(
        model=model,
        args=arguments,
        train_dataset=Dataset.from_list(ROWS),
        eval_dataset=Dataset.from_list(ROWS),
        processing_class=load_tokenizer(section, folder),
        callbacks=list(adapter.callbacks()),
    )
    trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    return losses, trainer.evaluate()["eval_loss"]


def plain_loss(model) -> float:
    """Return the mean negative log-likelihood of the trained tokens from the model's own logits."""
    total, num_tokens = 0.0, 0
    for row in ROWS:
        ids = torch.tensor([row["input_ids"]])
        with torch.no_grad():
            logits = model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits
        labels = torch.tensor(row["labels"])[1:]
        # Virtual tokens stand before the row's own.
        scores = logits[0, -ids.shape[1] : -1].float()
        total += torch.nn.functional.cross_entropy(scores, labels, reduction="sum").item()
        num_tokens += int((labels != -100).sum())
    return total / num_tokens


def logits_of(model) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(input_ids=torch.tensor([ROWS[0]["input_ids"]])).logits


def test_the_table_is_that_of_the_installed_peft() -> None:
    from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING

    theirs = {
        kind.value.lower(): f"peft:{cls.__name__}"
        for kind, cls in PEFT_TYPE_TO_CONFIG_MAPPING.items()
    }
    assert {name: plugin(name).Config for name in NAMES} == theirs
    assert len(TRAINED) + len(REFUSED) == len(theirs) == 45


@pytest.mark.parametrize("name", TRAINED)
def test_trains_saves_and_loads_back(name: str, bases: Bases, tmp_path: Path, capsys) -> None:
    from peft import PeftModel

    section = bases.untied if name == "trainable_tokens" else bases.tied
    base = base_of(section)
    before = [(key, p, p.detach().clone()) for key, p in base.named_parameters()]
    torch.manual_seed(0)
    adapter = plugin(name)(native_config(name))
    model = adapter.attach(base)
    ours = {id(parameter) for _, parameter, _ in before}
    trained = {key: p.detach().clone() for key, p in model.named_parameters() if p.requires_grad}
    assert trained
    assert not any(p.requires_grad for p in model.parameters() if id(p) in ours)

    losses, eval_loss = train(adapter, name, model, section, tmp_path)

    assert all(torch.tensor(losses).isfinite())
    now = dict(model.named_parameters())
    assert any(not torch.equal(now[key], was) for key, was in trained.items())
    assert all(torch.equal(p, was) for _, p, was in before), "the base changed"
    model.eval()
    assert eval_loss == pytest.approx(plain_loss(model), abs=2e-5), "trl trained something else"

    wanted = logits_of(model)
    model.save_pretrained(tmp_path / "adapter")
    plain = PeftModel.from_pretrained(base_of(section), tmp_path / "adapter")
    torch.testing.assert_close(logits_of(plain), wanted, rtol=0, atol=1e-5)
    again = load_adapter(base_of(section), tmp_path / "adapter", is_trainable=False)
    torch.testing.assert_close(logits_of(again), wanted, rtol=0, atol=1e-5)
    capsys.readouterr()


def test_prompt_learning_is_known_before_anything_is_built() -> None:
    said = {name for name in TRAINED if plugin(name).adds_positions}
    assert said == {name for name in TRAINED if native_config(name).is_prompt_learning}


@pytest.mark.parametrize("name", REFUSED)
def test_refuses_with_a_way_out_before_anything_is_built(name: str) -> None:
    kind = plugin(name)
    (conflict,) = kind.conflicts({}, "sft", {})
    assert conflict.startswith(f"{name} cannot be trained here: ")
    assert REFUSED[name] in conflict
    with pytest.raises(UsageError, match=f"{name} cannot be trained here") as caught:
        kind(None)
    assert REFUSED[name] in caught.value.hint


@pytest.mark.parametrize("name", ["prefix_tuning", "cartridge"])
def test_says_when_checkpointing_must_be_off(name: str) -> None:
    kind = plugin(name)
    (decision,) = kind.decide("sft", {})
    assert (decision.key, decision.value) == ("method.sft.activation_checkpointing", False)
    assert kind.decide("sft", {"gradient_checkpointing": False}) == ()
    (conflict,) = kind.conflicts({"num_virtual_tokens": 4}, "sft", {"gradient_checkpointing": True})
    assert conflict.endswith("remove method.sft.gradient_checkpointing, or say false")


def test_says_which_option_is_missing() -> None:
    assert plugin("prompt_tuning").conflicts({}, "sft", {}) == [
        "num_virtual_tokens is missing: how many tokens to learn, e.g. 20"
    ]
    assert plugin("lora").conflicts({}, "sft", {"gradient_checkpointing": True}) == []


def test_shadow_wants_its_ignored_loss_switched_off() -> None:
    from peft import ShadowConfig

    with pytest.raises(UsageError, match="would be ignored") as caught:
        plugin("shadow")(ShadowConfig())
    assert caught.value.hint == "say auxiliary_loss_weight: 0"


def test_a_size_that_does_not_suit_the_base_comes_with_a_way_out(bases: Bases) -> None:
    from peft import C3AConfig

    with pytest.raises(UsageError, match=r"adapter\.c3a: C3AConfig cannot be attached") as caught:
        plugin("c3a")(C3AConfig()).attach(base_of(bases.tied))
    assert "block_size" in caught.value.hint


def test_finds_a_class_by_its_config() -> None:
    assert peft_types.adapter_class("LoraConfig") is peft_types.Lora


@pytest.mark.slow
@pytest.mark.parametrize("name", TRAINED)
def test_resumes_to_the_same_bits(name: str, bases: Bases, tmp_path: Path) -> None:
    from resume_fixture import assert_resumes_exactly

    base = bases.untied if name == "trainable_tokens" else bases.tied
    options = {"adalora": {**OPTIONS["adalora"], "total_step": 4}}.get(name, OPTIONS.get(name, {}))
    assert_resumes_exactly(Path(str(base.path)), {name: options}, tmp_path)
