"""What several adapters bring is used once each, and what cannot be mixed is refused by name."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import peft
import pytest
from combined_fixture import two_loras
from merge_fixture import NOTICES, make_adapter, make_base

from peftkit.errors import ArtefactError, UsageError
from peftkit.merging.adapter import open_adapter
from peftkit.merging.changes import LowRank, Matrix
from peftkit.merging.combination import combine_opened, kind_of, rank_of, without_copies
from peftkit.merging.folder import model_config
from peftkit.merging.method import read_method
from peftkit.merging.weights_io import open_checkpoint

pytestmark = [pytest.mark.filterwarnings(f"ignore:{notice}") for notice in NOTICES]


def _open(base: Path, *adapters: Path):
    config, checkpoint = model_config(base), open_checkpoint(base)
    return [open_adapter(folder, checkpoint, model_config=config) for folder in adapters], config


def _merge(name: str, num: int = 2, **options):
    return read_method(str({name: {"weights": [1.0] * num, **options}}))[2]


@pytest.fixture(scope="module")
def llama(tmp_path_factory) -> Path:
    return make_base("llama", tmp_path_factory.mktemp("llama"), dtype="float32")


def test_every_tensor_is_used_once_except_copies_of_the_base(tmp_path: Path) -> None:
    base, one, other = two_loras("llama", tmp_path)
    (first, second), config = _open(base, one, other)
    # peft saves the embedding that the second one targets, unchanged.
    assert set(second.replaced) == {"model.embed_tokens.weight"}
    opened = [without_copies(first), without_copies(second)]
    assert not opened[1].replaced
    for name in ("linear", "cat", "svd"):
        combined = combine_opened(opened, _merge(name), config)
        used = Counter(k for some in combined.changes.values() for c in some for k in c.uses)
        assert set(used.values()) == {1}
        assert set(used) == set(combined.tensors)
        assert len(used) == len(first.tensors) + len(second.tensors) - 1


def test_sums_of_products_stay_products(tmp_path: Path) -> None:
    base, one, other = two_loras("gpt2", tmp_path)
    opened, config = _open(base, one, other)
    for name, rank in (("cat", 6), ("svd", 6), ("linear", 3)):
        combined = combine_opened(opened, _merge(name), config)
        (change,) = combined.changes["transformer.h.0.attn.c_attn.weight"]
        weight = Matrix(combined.source("transformer.h.0.attn.c_attn.weight"))
        loaded = change.load(weight)
        assert isinstance(loaded, LowRank)
        assert loaded.left.shape == (weight.shape[0], rank)


def test_a_new_head_comes_from_one_adapter_alone(tmp_path: Path) -> None:
    base = make_base("bert", tmp_path / "base", dtype="float32")
    heads = [
        make_adapter(
            base, tmp_path / f"{index}",
            peft.LoraConfig(r=2, target_modules=["query"], task_type="SEQ_CLS"), seed=index,
        )
        for index in (1, 2)
    ]  # fmt: skip
    opened, config = _open(base, *heads)
    # Both have the base's own classifier, trained: a change like any other.
    combined = combine_opened(opened, _merge("svd"), config)
    assert "classifier.weight" in combined.changes
    tensors = {n: t for n, t in opened[0].base.tensors.items() if "classifier" not in n}
    without = replace(opened[0].base, tensors=tensors)
    headless = [replace(adapter, base=without) for adapter in opened]
    with pytest.raises(ArtefactError, match=r"each bring a classifier\.(weight|bias) of their own"):
        combine_opened(headless, _merge("svd"), config)
    alone = combine_opened(headless[:1], _merge("svd", 1), config)
    assert alone.replaced["classifier.weight"].name.startswith("0:")


def test_adapters_that_are_more_than_factors_are_told_which_merge_takes_them(
    llama: Path, tmp_path: Path
) -> None:
    configs = {
        "a DoRA": peft.LoraConfig(r=2, use_dora=True, target_modules=["q_proj"]),
        "LOHA": peft.LoHaConfig(r=2, target_modules=["q_proj"]),
        "a LoRA that is more than its factors": peft.LoraConfig(
            r=2, init_lora_weights="olora", target_modules=["q_proj"]
        ),
    }
    plain = make_adapter(llama, tmp_path / "p", peft.LoraConfig(r=2, target_modules=["q_proj"]))
    for number, (kind, peft_config) in enumerate(configs.items()):
        folder = make_adapter(llama, tmp_path / str(number), peft_config)
        opened, config = _open(llama, plain, folder)
        assert (kind_of(opened[0]), kind_of(opened[1])) == ("LORA", kind)
        target = "model.layers.0.self_attn.q_proj.weight"
        assert (rank_of(opened[0], target), rank_of(opened[1], target)) == (2, None)
        with pytest.raises(UsageError, match=kind) as caught:
            combine_opened(opened, _merge("linear"), config)
        assert "svd or cat" in str(caught.value.hint)
        with pytest.raises(UsageError, match=kind) as caught:
            combine_opened(opened, _merge("ties", density=0.5), config)
        assert "ends in _svd" in str(caught.value.hint)
        assert combine_opened(opened, _merge("svd"), config).changes


def test_tasks_and_ties_must_agree(tmp_path: Path) -> None:
    base = make_base("llama-tied", tmp_path / "base", dtype="float32")
    tokens = make_adapter(
        base, tmp_path / "tokens",
        peft.LoraConfig(r=2, target_modules=["q_proj"], trainable_token_indices=[3, 5]),
    )  # fmt: skip
    embedding = make_adapter(
        base, tmp_path / "embedding", peft.LoraConfig(r=2, target_modules=["embed_tokens"])
    )
    task = make_adapter(
        base, tmp_path / "task",
        peft.LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM"),
    )  # fmt: skip
    opened, config = _open(base, tokens, embedding, task)
    opened = [without_copies(adapter) for adapter in opened]
    with pytest.raises(ArtefactError, match="tokens changes the embedding and the head tied"):
        combine_opened(opened[:2], _merge("svd"), config)
    with pytest.raises(ArtefactError, match=r"different tasks: None in .*tokens, CAUSAL_LM in"):
        combine_opened(opened[::2], _merge("svd"), config)


def test_a_negative_weight_turns_the_change_around_once(llama: Path, tmp_path: Path) -> None:
    folder = make_adapter(llama, tmp_path / "a", peft.LoraConfig(r=2, target_modules=["q_proj"]))
    opened, config = _open(llama, folder)
    target = "model.layers.0.self_attn.q_proj.weight"
    base = Matrix(opened[0].base.tensors[target])
    made = {}
    for weight in (0.5, -0.5):
        merge = read_method(str({"linear": {"weights": [weight]}}))[2]
        (change,) = combine_opened(opened, merge, config).changes[target]
        made[weight] = change.load(base)(np.zeros(base.shape), 0)
    np.testing.assert_allclose(made[-0.5], -made[0.5], atol=1e-15)
    np.testing.assert_allclose(made[0.5], 0.5 * opened[0].delta(target), atol=1e-7)
