"""Several adapters become what peft's combinations say, streamed into the base or as one LoRA."""

from __future__ import annotations

import json
import shutil
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from combined_fixture import (
    KINDS,
    as_method,
    deltas_of,
    opened_by_peft,
    two_loras,
    weighted_by_peft,
)
from command_line import run_command
from merge_fixture import NOTICES, make_adapter, make_base, tensors

from peftkit.errors import ArtefactError, RecipeError, UsageError
from peftkit.merge import merge
from peftkit.merging.combine import combine

pytestmark = [pytest.mark.filterwarnings(f"ignore:{notice}") for notice in NOTICES]
WEIGHTS = [0.7, -0.4]
FLOAT32 = 3e-7
"""Relative error of factors that were rounded to float32."""


@pytest.fixture(scope="module", params=["llama", "gpt2"])
def family(request, tmp_path_factory) -> tuple[Path, Path, Path]:
    return two_loras(request.param, tmp_path_factory.mktemp(request.param))


@pytest.fixture(scope="module")
def llama(tmp_path_factory) -> tuple[Path, Path, Path]:
    return two_loras("llama", tmp_path_factory.mktemp("llama"))


def _close(found: dict[str, np.ndarray], wanted: dict[str, np.ndarray]) -> None:
    assert set(found) == set(wanted)
    for name, delta in wanted.items():
        off = np.linalg.norm(found[name] - delta)
        assert off <= FLOAT32 * np.linalg.norm(delta), name


@pytest.mark.parametrize("kind", KINDS)
def test_a_new_adapter_is_peft_s(family, tmp_path: Path, kind: str) -> None:
    base, one, other = family
    result = combine(
        [one, other], method=as_method(kind, WEIGHTS, **KINDS[kind]), out=tmp_path / "new",
        to="adapter",
    )  # fmt: skip
    found = deltas_of(opened_by_peft(base, tmp_path / "new"), "default")
    _close(found, weighted_by_peft(base, [one, other], WEIGHTS, kind, **KINDS[kind]))
    assert set(result.changed) == set(found)
    if kind.endswith("svd"):
        full = "cat" if kind == "svd" else kind
        rank = {} if kind == "svd" else {"svd_rank": 32}
        whole = weighted_by_peft(base, [one, other], WEIGHTS, full, **KINDS[kind], **rank)
        lost = sum(np.square(whole[name] - found[name]).sum() for name in whole)
        size = sum(np.square(delta).sum() for delta in whole.values())
        assert result.error == pytest.approx(np.sqrt(lost / size), rel=1e-3)
    else:
        assert result.error < FLOAT32


@pytest.mark.parametrize("kind", KINDS)
def test_the_base_gets_peft_s_change_uncut_and_rounded_once(
    family, tmp_path: Path, kind: str
) -> None:
    base, one, other = family
    combine([one, other], method=as_method(kind, WEIGHTS, **KINDS[kind]), out=tmp_path / "model",
            verify=False)  # fmt: skip
    whole = {"svd_rank": 32} if kind.endswith("svd") else {}
    wanted = weighted_by_peft(base, [one, other], WEIGHTS, kind, **KINDS[kind], **whole)
    before, after = tensors(base), tensors(tmp_path / "model")
    changed = 0
    for name, tensor in before.items():
        delta = wanted.get(name.removesuffix(".weight"))
        if delta is None:
            assert after[name].equal(tensor)
            continue
        changed += 1
        exact = tensor.double().numpy() + delta
        scale = np.abs(exact).max()
        assert np.abs(after[name].double().numpy() - exact).max() <= 4 * 2**-24 * scale
    assert changed == len(wanted)


def _lora_parts(folder: Path, scale: float) -> dict[str, tuple[np.ndarray, np.ndarray, float]]:
    stored = {name: t.double().numpy() for name, t in tensors(folder).items()}
    return {
        name.removeprefix("base_model.model.").removesuffix(".lora_A.weight"): (
            stored[name], stored[name.replace("lora_A", "lora_B")], scale,
        )
        for name in stored if name.endswith("lora_A.weight")
    }  # fmt: skip


def _drop(part: np.ndarray, name: str, index: int) -> np.ndarray:
    mask = np.random.default_rng([11, zlib.crc32(name.encode()), index]).random(part.shape) < 0.6
    return np.where(mask, part / 0.6, 0.0)


@pytest.mark.parametrize("kind", ["dare_linear", "dare_linear_svd", "dare_ties", "dare_ties_svd"])
def test_chance_follows_the_formula(llama, tmp_path: Path, kind: str) -> None:
    base, one, other = llama
    parts = [_lora_parts(one, 7 / 3), _lora_parts(other, 2 / 3**0.5)]

    def mix(values: list[np.ndarray], weights: list[float]) -> np.ndarray:
        if "ties" not in kind:
            return sum(w * v for v, w in zip(values, weights, strict=True))
        elected = np.where(sum(values) >= 0, 1, -1)
        agree = [np.sign(value) == elected for value in values]
        total = sum(w * v * a for v, w, a in zip(values, weights, agree, strict=True))
        return total / np.maximum(sum(a.astype(int) for a in agree), 1)

    combine([one, other], method=as_method(kind, [0.7, 0.4], density=0.6, seed=11),
            out=tmp_path / "model", verify=False)  # fmt: skip
    before, after = tensors(base), tensors(tmp_path / "model")
    for module in parts[0].keys() | parts[1].keys():
        there = [(p[module], w) for p, w in zip(parts, [0.7, 0.4], strict=True) if module in p]
        name = f"{module}.weight"
        if kind.endswith("svd"):
            deltas = [_drop(s * b @ a, name, i) for i, ((a, b, s), _) in enumerate(there)]
            delta = mix(deltas, [w for _, w in there])
        else:
            roots = [np.sqrt(w * s) for (_, _, s), w in there]
            new_a = mix([_drop(a, f"{module}.lora_A", i) for i, ((a, _, _), _) in
                         enumerate(there)], roots)  # fmt: skip
            new_b = mix([_drop(b, f"{module}.lora_B", i) for i, ((_, b, _), _) in
                         enumerate(there)], roots)  # fmt: skip
            delta = new_b @ new_a
        exact = before[name].double().numpy() + delta
        scale = np.abs(exact).max()
        assert np.abs(after[name].double().numpy() - exact).max() <= 4 * 2**-24 * scale


def test_one_adapter_at_weight_one_is_that_adapter(llama, tmp_path: Path) -> None:
    _, one, _ = llama
    merge(one, out=tmp_path / "single", verify=False)
    wanted = tensors(tmp_path / "single")
    for kind in ("linear", "cat", "svd"):
        out = tmp_path / kind
        result = combine([one], method=as_method(kind, [1.0]), out=out, verify=False)
        units = 4 if kind == "linear" else 0  # its factors carry roots of the weight
        for name, tensor in tensors(out).items():
            off = (tensor.double() - wanted[name].double()).abs().max()
            assert off <= units * 2**-24 * wanted[name].abs().max(), name
        assert result.deviation == (pytest.approx(0, abs=1e-12) if kind == "linear" else None)


def test_a_model_of_factors_and_a_sum_are_told_apart(llama, tmp_path: Path) -> None:
    base, one, other = llama
    linear = combine([one, other], method=as_method("linear", [1, 1]), out=tmp_path / "linear")
    made = weighted_by_peft(base, [one, other], [1, 1], "linear")
    total = weighted_by_peft(base, [one, other], [1, 1], "cat")
    off = np.sqrt(sum(np.square(made[n] - total[n]).sum() for n in total))
    size = np.sqrt(sum(np.square(delta).sum() for delta in total.values()))
    assert linear.deviation == pytest.approx(off / size, rel=1e-6)


def test_adapters_of_different_kinds_add_up(tmp_path: Path) -> None:
    import peft

    base = make_base("llama", tmp_path / "base", dtype="bfloat16")
    configs = {
        "lora": peft.LoraConfig(r=5, target_modules=["q_proj", "up_proj"]),
        "dora": peft.LoraConfig(r=2, use_dora=True, target_modules=["q_proj"]),
        "loha": peft.LoHaConfig(r=2, target_modules=["up_proj", "v_proj"]),
        "ia3": peft.IA3Config(target_modules=["v_proj"], feedforward_modules=[]),
        "saved": peft.LoraConfig(r=2, target_modules=["v_proj"], modules_to_save=["norm"]),
    }
    adapters = [
        make_adapter(base, tmp_path / name, config, dtype=dtype)
        for (name, config), dtype in zip(
            configs.items(), ["float32", "float16", "float32", "bfloat16", "float32"], strict=True
        )
    ]
    weights = [0.5, 1.0, -0.25, 0.75, 2.0]
    result = combine(adapters, method=as_method("svd", weights), out=tmp_path / "model")
    assert result.verification is not None
    assert result.verification.max_difference <= result.verification.tolerance
    # The changes of each alone, from merges onto a float32 copy of the base.
    before = {name: tensor.double() for name, tensor in tensors(base).items()}
    wide = tmp_path / "wide"
    _widen(base, wide)
    total = dict(before)
    for adapter, weight in zip(adapters, weights, strict=True):
        merge(adapter, base=str(wide), out=tmp_path / f"{adapter.name}-alone", verify=False)
        alone = tensors(tmp_path / f"{adapter.name}-alone")
        total = {n: t + weight * (alone[n].double() - before[n]) for n, t in total.items()}
    after = tensors(tmp_path / "model")
    for name, exact in total.items():
        unit = 2.0**-8 * exact.abs() + 1e-7
        assert bool(((after[name].double() - exact).abs() <= unit).all()), name
    assert "model.norm.weight" in result.changed
    small = combine(adapters, method=as_method("svd", weights, svd_rank=32),
                    out=tmp_path / "small", to="adapter")  # fmt: skip
    assert small.error < FLOAT32
    merged = opened_by_peft(base, tmp_path / "small").merge_and_unload()
    for name, parameter in merged.named_parameters():
        off = (parameter.detach() - total[name]).norm() / total[name].norm()
        assert off < 1e-6, name


def _widen(base: Path, out: Path) -> None:
    from safetensors.torch import save_file

    shutil.copytree(base, out)
    save_file({name: t.float() for name, t in tensors(base).items()}, out / "model.safetensors",
              {"format": "pt"})  # fmt: skip


def test_an_interrupted_merge_goes_on_and_a_finished_one_stays(llama, tmp_path: Path) -> None:
    _, one, other = llama
    method = as_method("cat", WEIGHTS)
    combine([one, other], method=method, out=tmp_path / "out", verify=False)
    file = tmp_path / "out" / "model.safetensors"
    before = file.stat().st_mtime_ns
    combine([one, other], method=method, out=tmp_path / "out", verify=False)
    assert file.stat().st_mtime_ns == before
    with pytest.raises(ArtefactError, match="a finished merge of other inputs"):
        combine([other, one], method=method, out=tmp_path / "out", verify=False)


def _copy(folder: Path, name: str, edit: Callable[[dict], None] | None = None) -> Path:
    target = folder.with_name(name)
    if not target.exists():
        shutil.copytree(folder, target)
    if edit is not None:
        file = target / "adapter_config.json"
        config = json.loads(file.read_text())
        edit(config)
        file.write_text(json.dumps(config))
    return target


def test_what_cannot_be_meant_is_refused(llama, tmp_path: Path) -> None:
    from peft import LoraConfig, PromptTuningConfig

    base, one, other = llama
    copied_base = tmp_path / "elsewhere"
    shutil.copytree(base, copied_base)
    moved = make_adapter(
        copied_base, tmp_path / "moved", LoraConfig(r=3, target_modules=["q_proj"])
    )
    prompts = make_adapter(
        base, tmp_path / "prompts", PromptTuningConfig(num_virtual_tokens=3, task_type="CAUSAL_LM")
    )
    wide = make_adapter(base, tmp_path / "wide", LoraConfig(r=5, target_modules=["q_proj"]))
    svd = as_method("svd", [1, 1])
    cases = [
        ([one, moved], svd, {}, UsageError, "was trained on .*base, .*moved on .*elsewhere"),
        ([one, one], svd, {}, UsageError, "are the same adapter"),
        ([one, _copy(one, "copy")], svd, {}, UsageError, "one and .*copy are the same adapter"),
        ([one, base], svd, {}, UsageError, "is a whole model"),
        ([one, prompts], svd, {}, ArtefactError, "PROMPT_TUNING adds to the model's input"),
        ([one, other], as_method("svd", [1]), {}, UsageError, "1 weights for 2 adapters"),
        ([one, other], None, {}, UsageError, "say how"),
        ([one, wide], as_method("linear", [1, 1]), {}, UsageError, "q_proj.weight has rank 3 in"),
        ([one, other], as_method("svd", [1, 1], svd_rank=4), {}, UsageError, "svd_rank"),
        ([one, other], svd, {"to": "adapter", "onto": "full"}, UsageError, "--onto full"),
        ([one, other], svd, {"onto": "dequantized"}, UsageError, "--onto dequantized"),
        ([one, other], as_method("ties", [1, 1], density=0), {}, RecipeError, "above 0"),
    ]
    for sources, method, options, kind, message in cases:
        with pytest.raises(kind, match=message):
            combine(sources, method=method, out=tmp_path / "out", **options)
        assert not (tmp_path / "out").exists() or not list((tmp_path / "out").iterdir())
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "a").touch()
    for to in ("base", "adapter"):
        with pytest.raises(UsageError, match="--out"):
            combine([one, other], method=svd, out=tmp_path / "full", to=to)
    # Named by --base, two copies of one model are one base.
    combine([one, moved], method=svd, base=str(base), out=tmp_path / "named", verify=False)


def test_the_command_combines_and_says_what_it_measured(llama, tmp_path: Path, capfd) -> None:
    _, one, other = llama
    method = as_method("svd", WEIGHTS, svd_rank=2)
    new = ["merge", one, other, "--to", "adapter", "--out", tmp_path / "new"]
    done = run_command(capfd, *new, "--method", method, "--json")
    assert done.code == 0
    result = json.loads(done.out)
    assert (result["rank"], result["method"], result["to"]) == (2, "svd", "adapter")
    assert 0 < result["error"] <= result["worst"][1] < 1
    refused = run_command(capfd, "merge", one, other, "--out", tmp_path / "model")
    assert refused.code == 2
    assert "say how" in refused.refusal
