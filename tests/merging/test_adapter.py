"""Opening an adapter: every tensor finds its place once, or the merge is refused by name."""

from __future__ import annotations

import json

import merge_combinations
import merge_fixture
import numpy as np
import peft
import pytest
import torch
from safetensors.torch import load_file, save_file

from peftkit.errors import ArtefactError
from peftkit.merging.adapter import open_adapter
from peftkit.merging.folder import model_config
from peftkit.merging.weights_io import open_checkpoint

pytestmark = [pytest.mark.filterwarnings(f"ignore:{n}") for n in merge_fixture.NOTICES]


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return merge_fixture.make_base("llama", tmp_path_factory.mktemp("base"), dtype="float32")


@pytest.fixture
def adapter(base, tmp_path):
    config = merge_combinations.lora(target_modules=["q_proj", "down_proj"])()
    return merge_fixture.make_adapter(base, tmp_path / "adapter", config)


def opened(adapter, base):
    return open_adapter(adapter, open_checkpoint(base), model_config=model_config(base))


def rewrite(adapter, change) -> None:
    """Change an adapter's tensors."""
    tensors = load_file(adapter / "adapter_model.safetensors")
    change(tensors)
    save_file(
        {k: v.contiguous() for k, v in tensors.items()}, adapter / "adapter_model.safetensors"
    )


def reconfigure(adapter, **options) -> None:
    config = json.loads((adapter / "adapter_config.json").read_text())
    (adapter / "adapter_config.json").write_text(json.dumps({**config, **options}))


def test_deltas_are_scale_times_b_a(adapter, base) -> None:
    stored = load_file(adapter / "adapter_model.safetensors")
    found = opened(adapter, base)
    assert found.method == "LORA"
    assert len(found.targets) == 4
    key = "base_model.model.model.layers.1.mlp.down_proj.lora_{}.weight"
    a, b = (stored[key.format(x)].double().numpy() for x in "AB")
    delta = found.delta("model.layers.1.mlp.down_proj.weight")
    assert np.allclose(delta, 7 / 3 * (b @ a), rtol=0, atol=1e-15)
    some = found.delta("model.layers.1.mlp.down_proj.weight", 5, 9)
    assert np.array_equal(some, delta[5:9])


def test_deltas_of_methods_that_go_through_peft_are_merged_minus_base(base, tmp_path) -> None:
    config = peft.BOFTConfig(boft_block_size=4, target_modules=["q_proj"])
    adapter = merge_fixture.make_adapter(base, tmp_path / "boft", config)
    reference = merge_fixture.tensors(merge_fixture.reference(base, adapter, tmp_path / "ref"))
    name = "model.layers.0.self_attn.q_proj.weight"
    wanted = reference[name].numpy() - load_file(base / "model.safetensors")[name].double().numpy()
    assert np.allclose(opened(adapter, base).delta(name), wanted, atol=1e-14)


def test_a_tensor_that_nothing_takes_is_refused_by_name(adapter, base) -> None:
    rewrite(adapter, lambda t: t.update({"base_model.model.model.layers.9.mlp.x.lora_A.weight":
                                         torch.ones(3, 32)}))  # fmt: skip
    with pytest.raises(ArtefactError, match=r"layers\.9\.mlp\.x"):
        opened(adapter, base)


def test_a_missing_factor_is_refused_by_name(adapter, base) -> None:
    rewrite(adapter, lambda t: t.pop("base_model.model.model.layers.1.mlp.down_proj.lora_B.weight"))
    with pytest.raises(ArtefactError, match=r"lacks .*down_proj\.lora_B"):
        opened(adapter, base)


def test_another_base_is_refused_with_both_shapes(adapter, tmp_path) -> None:
    settings = {**merge_fixture.SIZES, "hidden_size": 48, "tie_word_embeddings": False}
    from transformers import LlamaConfig, LlamaForCausalLM

    LlamaForCausalLM(LlamaConfig(**settings)).save_pretrained(tmp_path / "wider")
    with pytest.raises(ArtefactError, match=r"lora_A is \[3, 56\].*weight is \[48, 56\]"):
        opened(adapter, tmp_path / "wider")


def test_another_family_is_refused(adapter, tmp_path) -> None:
    gpt2 = merge_fixture.make_base("gpt2", tmp_path / "gpt2")
    with pytest.raises(ArtefactError):
        opened(adapter, gpt2)


def test_a_config_of_another_rank_is_refused(adapter, base) -> None:
    reconfigure(adapter, r=8)
    with pytest.raises(ArtefactError, match="promises rank 8, lora_A has 3"):
        opened(adapter, base)


def test_nan_in_an_adapter_is_refused_when_it_is_merged(adapter, base, tmp_path) -> None:
    from peftkit.merge import merge

    key = "base_model.model.model.layers.1.mlp.down_proj.lora_B.weight"
    rewrite(adapter, lambda t: t[key].__setitem__((2, 0), float("nan")))
    with pytest.raises(ArtefactError, match=r"down_proj\.weight becomes NaN or infinite in row 2"):
        merge(adapter, out=tmp_path / "out", base=str(base))
    assert not (tmp_path / "out/merge.json").exists()
    assert not (tmp_path / "out/config.json").exists()


REFUSED = {
    "prompts": ({"peft_type": "PROMPT_TUNING"}, "nothing to merge"),
    "alora": ({"alora_invocation_tokens": [1]}, "only after its invocation tokens"),
    "arrow": ({"arrow_config": {"top_k": 2}}, "for every token"),
    "replication": ({"layer_replication": [[0, 2], [1, 2]]}, "repeats layers"),
    "random-start": ({"init_lora_weights": "pissa_niter_4"}, "nobody can compute again"),
    "unknown": ({"peft_type": "NEXT_YEAR"}, "has no method 'NEXT_YEAR'"),
    "regex": ({"alpha_pattern": {"(": 3}}, "is no regular expression"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_cannot_be_merged_is_refused_with_the_reason(kind, adapter, base) -> None:
    options, message = REFUSED[kind]
    reconfigure(adapter, **options)
    with pytest.raises(ArtefactError, match=message):
        opened(adapter, base)


def test_pickles_and_empty_adapters_are_refused(adapter, base) -> None:
    rewrite(adapter, lambda t: t.clear())
    with pytest.raises(ArtefactError, match="has no tensors"):
        opened(adapter, base)
    (adapter / "adapter_model.safetensors").rename(adapter / "adapter_model.bin")
    with pytest.raises(ArtefactError, match="a pickle, which can run code"):
        opened(adapter, base)


def test_tokens_outside_the_vocabulary_are_refused(base, tmp_path) -> None:
    config = merge_combinations.lora(target_modules=["q_proj"], trainable_token_indices=[1, 4])()
    adapter = merge_fixture.make_adapter(base, tmp_path / "tokens", config)
    reconfigure(adapter, trainable_token_indices=[1, 4000])
    with pytest.raises(ArtefactError, match="tokens up to 4000"):
        opened(adapter, base)
    reconfigure(adapter, trainable_token_indices=[1])
    with pytest.raises(ArtefactError, match="does not say for which tokens"):
        opened(adapter, base)


def test_fan_in_fan_out_is_not_believed_where_shapes_speak(base, tmp_path) -> None:
    # PEFT saves what the last layer it met needed
    gpt2 = merge_fixture.make_base("gpt2", tmp_path / "gpt2", dtype="float32")
    config = merge_combinations.lora(target_modules=["c_attn", "c_proj"])()
    adapter = merge_fixture.make_adapter(gpt2, tmp_path / "adapter", config)
    wanted = {name: opened(adapter, gpt2).delta(name) for name in opened(adapter, gpt2).targets}
    reconfigure(adapter, fan_in_fan_out=False)
    for name, delta in wanted.items():
        assert np.array_equal(opened(adapter, gpt2).delta(name), delta)
