"""The catalogue: each architecture, built on meta, has its published number of parameters."""

from __future__ import annotations

import pytest

from peftkit.memory import catalogue

ONE_OF_EACH = (
    "meta-llama/Llama-3.2-1B",
    "meta-llama/Llama-3.1-8B-Instruct",
    "meta-llama/Llama-3.3-70B-Instruct",
    "Qwen/Qwen2.5-0.5B",
    "Qwen/Qwen3-8B",
    "Qwen/Qwen3-30B-A3B",
    "mistralai/Mistral-7B-v0.3",
    "mistralai/Mixtral-8x7B-v0.1",
    "microsoft/phi-4",
    "google/gemma-2-9b-it",
    "google/gemma-3-1b-it",
    "google/gemma-3-4b-it",
    "HuggingFaceTB/SmolLM2-135M",
    "HuggingFaceTB/SmolLM3-3B",
    "openai-community/gpt2",
    "google-bert/bert-base-uncased",
    "google-t5/t5-small",
    "google/flan-t5-base",
)


def count_parameters(architecture: catalogue.Architecture) -> int:
    """Build the model that its checkpoint holds on meta, from the class transformers ships."""
    import torch
    import transformers
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    options = dict(architecture.config)
    model_type = options.pop("model_type")
    classes = {"bert": "AutoModelForPreTraining", "t5": "AutoModelForSeq2SeqLM"}
    auto_class = getattr(transformers, classes.get(model_type, "AutoModelForCausalLM"))
    with torch.device("meta"):
        model = auto_class.from_config(CONFIG_MAPPING[model_type](**options))
    return sum(parameter.numel() for parameter in model.parameters())


def check(architecture: catalogue.Architecture) -> None:
    config, published = architecture.config, architecture.num_parameters
    if config.get("feed_forward_proj") == "gated-gelu":
        # transformers 5 ties the head of T5 1.1, whose checkpoints bring one of their own.
        published -= config["vocab_size"] * config["d_model"]
    assert count_parameters(architecture) == published, architecture.ids


@pytest.mark.parametrize("name", ONE_OF_EACH)
def test_parameters_as_published(name: str) -> None:
    check(next(a for a in catalogue.architectures() if name in a.ids))


@pytest.mark.slow
def test_every_architecture_has_its_published_parameters() -> None:
    assert len(catalogue.architectures()) >= 75
    for architecture in catalogue.architectures():
        check(architecture)


def test_ids_are_unique() -> None:
    names = [name for known in catalogue.architectures() for name in known.ids]
    assert len(names) == len({name.lower() for name in names}) >= 115


def test_find_takes_ids_in_any_case_and_knows_nothing_else() -> None:
    config = catalogue.find("META-LLAMA/llama-3.2-1b")
    assert config is not None
    assert (config["model_type"], config["hidden_size"], config["dtype"]) == (
        "llama",
        2048,
        "bfloat16",
    )
    assert catalogue.find("Llama-3.2-1B") is None
    assert catalogue.find("nobody/nothing") is None
    assert catalogue.find("") is None


def test_what_find_returns_is_the_callers_own() -> None:
    config = catalogue.find("google/gemma-3-4b-it")
    assert config is not None
    config["text_config"]["hidden_size"] = 1
    again = catalogue.find("google/gemma-3-4b-it")
    assert again is not None
    assert again["text_config"]["hidden_size"] == 2560


@pytest.mark.parametrize("key", ["model_type", "dtype"])
def test_every_config_says_what_a_plan_cannot_guess(key: str) -> None:
    assert all(key in architecture.config for architecture in catalogue.architectures())
