"""A model and what it takes are the same inside an adapter."""

from __future__ import annotations

from peftkit.plugins.native import accepted_inputs, is_adapted, native_model


def test_a_model_is_the_same_inside_an_adapter(tiny_model) -> None:
    import peft
    from transformers import AutoModelForCausalLM

    base = AutoModelForCausalLM.from_pretrained(tiny_model)
    assert native_model(base) is base and not is_adapted(base)
    names = set(accepted_inputs(base))
    assert {"input_ids", "attention_mask", "logits_to_keep"} <= names
    model = peft.get_peft_model(base, peft.LoraConfig(target_modules="all-linear"))
    assert is_adapted(model) and native_model(model) is base
    assert set(accepted_inputs(model)) == names
