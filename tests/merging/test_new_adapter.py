"""A new LoRA holds the combination on every kind of layer, or says what it cannot hold."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import peft
import pytest
from combined_fixture import as_method, deltas_of, opened_by_peft, two_loras, weighted_by_peft
from merge_fixture import NOTICES, make_adapter, make_base, tensors

from peftkit.errors import ArtefactError, UsageError
from peftkit.merging.combine import combine
from peftkit.merging.new_adapter import Loss, relative_error

pytestmark = [pytest.mark.filterwarnings(f"ignore:{notice}") for notice in NOTICES]


def _new(adapters: list[Path], out: Path, kind: str = "svd", **options):
    method = as_method(kind, [1.0] * len(adapters), **options)
    return combine(adapters, method=method, out=out, to="adapter")


def _config(folder: Path) -> dict:
    return json.loads((folder / "adapter_config.json").read_text())


def test_ranks_that_differ_by_layer_are_kept_by_cat(tmp_path: Path) -> None:
    base = make_base("llama", tmp_path / "base", dtype="float32")
    one = peft.LoraConfig(r=2, rank_pattern={"up_proj": 5}, target_modules=["q_proj", "up_proj"])
    other = peft.LoraConfig(r=3, alpha_pattern={"q_proj": 1}, target_modules=["q_proj"])
    adapters = [make_adapter(base, tmp_path / n, c) for n, c in (("a", one), ("b", other))]
    result = _new(adapters, tmp_path / "new", "cat")
    found = deltas_of(opened_by_peft(base, tmp_path / "new"), "default")
    alone = [deltas_of(opened_by_peft(base, adapter), "default") for adapter in adapters]
    for name, delta in found.items():
        wanted = sum(some[name] for some in alone if name in some)
        np.testing.assert_allclose(delta, wanted, atol=1e-6 * np.abs(wanted).max())
    assert set(found) == {*alone[0], *alone[1]}
    config = _config(tmp_path / "new")
    assert result.rank == config["r"] == config["lora_alpha"] == 5
    assert config["target_modules"] == ["q_proj", "up_proj"]
    assert config["rank_pattern"] == {}


def test_a_rank_of_its_own_stands_in_the_pattern_of_its_module_alone(tmp_path: Path) -> None:
    base = make_base("llama", tmp_path / "base", dtype="float32")
    one = peft.LoraConfig(r=2, target_modules=["q_proj", "up_proj", "k_proj"])
    other = peft.LoraConfig(r=3, target_modules=["model.layers.1.self_attn.q_proj"])
    adapters = [make_adapter(base, tmp_path / n, c) for n, c in (("a", one), ("b", other))]
    _new(adapters, tmp_path / "new", "cat")
    assert _config(tmp_path / "new")["rank_pattern"] == {r"^model\.layers\.1\.self_attn\.q_proj": 5}
    attached = opened_by_peft(base, tmp_path / "new").base_model.model.model.layers
    ranks = [layer.self_attn.q_proj.r["default"] for layer in attached]
    assert ranks == [2, 5]


def test_convolutions_are_factored_over_their_kernels(tmp_path: Path) -> None:
    base = make_base("resnet", tmp_path / "base", dtype="float32")
    adapters = [
        make_adapter(base, tmp_path / str(seed),
                     peft.LoraConfig(r=2, target_modules=["convolution"]), seed=seed)
        for seed in (1, 2)
    ]  # fmt: skip
    _new(adapters, tmp_path / "new", "svd", svd_rank=3)
    found = deltas_of(opened_by_peft(base, tmp_path / "new"), "default")
    wanted = weighted_by_peft(base, adapters, [1.0, 1.0], "svd", svd_rank=3)
    for name, delta in wanted.items():
        np.testing.assert_allclose(found[name], delta, atol=1e-6 * np.abs(delta).max())


@pytest.mark.parametrize("clamp", [0.7, 0.99])
def test_svd_clamp_cuts_both_factors_at_one_quantile_as_peft_does(tmp_path, clamp: float) -> None:
    import torch

    _, one, other = two_loras("llama", tmp_path)
    _new([one, other], tmp_path / "whole", "svd", svd_rank=2)
    _new([one, other], tmp_path / "cut", "svd", svd_rank=2, svd_clamp=clamp)
    whole, cut = tensors(tmp_path / "whole"), tensors(tmp_path / "cut")
    for name, a in whole.items():
        if name.endswith("lora_A.weight"):
            b = whole[name.replace("lora_A", "lora_B")]
            high = torch.quantile(torch.cat([b.flatten(), a.flatten()]), clamp)
            for key, values in ((name, a), (name.replace("lora_A", "lora_B"), b)):
                assert torch.allclose(cut[key], values.clamp(-high, high), atol=1e-6)


def test_modules_to_save_are_saved_with_their_combined_value(tmp_path: Path) -> None:
    base = make_base("llama", tmp_path / "base", dtype="float32")
    configs = [
        peft.LoraConfig(r=2, target_modules=["q_proj"], modules_to_save=["model.norm", "lm_head"]),
        peft.LoraConfig(r=2, target_modules=["v_proj"], modules_to_save=["model.norm"]),
    ]
    adapters = [make_adapter(base, tmp_path / str(n), c, seed=n) for n, c in enumerate(configs)]
    _new(adapters, tmp_path / "new")
    stored, before = tensors(tmp_path / "new"), tensors(base)
    key = "base_model.model.model.norm.weight"
    exact = sum(tensors(adapter)[key].double() for adapter in adapters)
    exact -= before["model.norm.weight"].double()
    assert (stored[key].double() - exact).abs().max() < 1e-6
    assert _config(tmp_path / "new")["modules_to_save"] == ["lm_head", "model.norm"]
    merged = opened_by_peft(base, tmp_path / "new").merge_and_unload()
    assert (merged.model.norm.weight - exact).abs().max() < 1e-6


@pytest.mark.parametrize(
    ("dtypes", "wanted"),
    [(("bfloat16", "bfloat16"), "BF16"), (("float16", "float16"), "F16"),
     (("bfloat16", "float16"), "F32"), (("float32", "bfloat16"), "F32")],
)  # fmt: skip
def test_the_dtype_is_the_adapters_common_one_or_float32(tmp_path, dtypes, wanted: str) -> None:
    base = make_base("llama", tmp_path / "base", dtype="float32")
    config = peft.LoraConfig(r=2, target_modules=["q_proj"])
    adapters = [
        make_adapter(base, tmp_path / str(seed), config, dtype=dtype, seed=seed)
        for seed, dtype in enumerate(dtypes)
    ]
    result = _new(adapters, tmp_path / "new", "cat")
    kinds = {str(tensor.dtype) for tensor in tensors(tmp_path / "new").values()}
    assert kinds == {
        {"BF16": "torch.bfloat16", "F16": "torch.float16"}.get(wanted, "torch.float32")
    }
    largest = {"BF16": 2.0**-8, "F16": 2.0**-11, "F32": 2.0**-23}[wanted]
    assert 0 < result.error < largest


def test_what_a_lora_cannot_hold_is_named(tmp_path: Path) -> None:
    lora = peft.LoraConfig
    cases = [
        ("llama-biased", lora(r=2, target_modules=["q_proj"], lora_bias=True),
         ArtefactError, "q_proj.bias is no matrix"),
        ("llama", peft.LoHaConfig(r=2, target_modules=["up_proj"], rank_pattern={"up_proj": 1}),
         UsageError, "is LOHA"),
        ("llama", lora(r=2, target_modules=["q_proj"], trainable_token_indices=[1]),
         ArtefactError, "has trainable_token_indices"),
        ("mixtral", lora(r=2, target_parameters=["experts.down_proj"], target_modules=[]),
         ArtefactError, "a new LoRA cannot hold|do not say which module"),
        ("llama", peft.LoHaConfig(r=2, target_modules=["q_proj"]),
         UsageError, "is LOHA, whose change of .*q_proj.weight has no rank to keep"),
    ]  # fmt: skip
    for number, (kind, config, error, message) in enumerate(cases):
        folder = tmp_path / str(number)
        base = make_base(kind, folder / "base", dtype="float32")
        plain = make_adapter(base, folder / "plain", lora(r=2, target_modules=["k_proj"]))
        odd = make_adapter(base, folder / "odd", config)
        with pytest.raises(error, match=message):
            _new([plain, odd], folder / "new")
        assert not (folder / "new").exists()
        assert sorted(f.name for f in folder.iterdir()) == ["base", "odd", "plain"]


def test_errors_of_modules_add_up_as_squares() -> None:
    losses = [Loss("a", 2, 3.0, 6.0), Loss("b", 2, 4.0, 8.0), Loss("c", 2, 0.0, 0.0)]
    assert relative_error(losses) == pytest.approx(0.5)
    assert [loss.share for loss in losses] == [0.5, 0.5, 0.0]
    assert relative_error([]) == 0.0
