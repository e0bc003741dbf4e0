"""What vLLM reads (r, lora_alpha, lora_A, lora_B and nothing else) gives the trained logits."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import tiny
import tiny_families
from trained_adapter import lora, move_and_save

from peftkit.errors import ArtefactError
from peftkit.exporters.vllm import Vllm, VllmOptions
from peftkit.plugins.exported import Trained
from peftkit.testing import check_exporter

EXACT = {
    "plain": {"lora_alpha": 16},
    "rslora": {"use_rslora": True, "lora_alpha": 3},
    "patterns": {"rank_pattern": {"q_proj": 2, "layers.1.mlp.up_proj": 7},
                 "alpha_pattern": {"q_proj": 5, "down_proj": 1}},
    "embedding": {"target_modules": ["embed_tokens", "v_proj"]},
    "one layer": {"target_modules": ["o_proj"], "layers_to_transform": [1]},
}  # fmt: skip


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base")
    return tiny_families.save("llama-untied-biased", folder, attention_bias=False, mlp_bias=False)


def _train(base: Path, folder: Path, config) -> Trained:
    """Save an adapter whose every parameter was moved, and make room for what is exported."""
    (folder.parent / "out").mkdir(parents=True)
    return move_and_save(base, folder, config)


def _as_vllm(base: Path, adapter: Path):
    """Compute logits with W + lora_alpha / r * B A, layer by layer, as vLLM's server does."""
    import torch
    from safetensors.torch import load_file
    from transformers import AutoModelForCausalLM

    config = json.loads((adapter / "adapter_config.json").read_text())
    for field in ("use_dora", "modules_to_save", "rank_pattern", "alpha_pattern", "use_rslora"):
        assert not config.get(field)
    assert config["bias"] == "none"
    weights = load_file(adapter / "adapter_model.safetensors")
    model = AutoModelForCausalLM.from_pretrained(base)
    modules = dict(model.named_modules())
    used = set()
    with torch.no_grad():
        for name, module in modules.items():
            key = f"base_model.model.{name}.lora_"
            for first, second in (("A.weight", "B.weight"), ("embedding_A", "embedding_B")):
                if key + first in weights:
                    product = weights[key + second] @ weights[key + first]
                    product = product.T if "embedding" in first else product
                    module.weight += config["lora_alpha"] / config["r"] * product
                    used |= {key + first, key + second}
                    assert weights[key + first].shape[0] == config["r"]
                    assert name in config["target_modules"]
        assert used == weights.keys()
        return model(input_ids=torch.arange(5, 60)[None]).logits.double()


def _as_peft(base: Path, adapter: Path):
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), str(adapter))
    with torch.no_grad():
        return model.eval()(input_ids=torch.arange(5, 60)[None]).logits.double()


def _error(base: Path, adapter: Path, out: Path) -> float:
    wanted, found = _as_peft(base, adapter), _as_vllm(base, out)
    return float(((wanted - found) ** 2).mean().sqrt() / (wanted**2).mean().sqrt())


@pytest.mark.parametrize("kind", list(EXACT))
def test_every_lora_is_written_exactly(kind: str, base: Path, tmp_path: Path) -> None:
    trained = _train(base, tmp_path / "adapter", lora(**EXACT[kind]))
    exported = check_exporter(Vllm, {}, trained, tmp_path / "out")
    assert _error(base, trained.folder, tmp_path / "out") < 1e-6
    assert [proof.what for proof in exported.proofs] == ["weights", "logits"]
    assert (tmp_path / "out" / "chat_template.jinja").is_file()


def test_dora_is_factored_with_its_error(base: Path, tmp_path: Path) -> None:
    trained = _train(base, tmp_path / "adapter", lora(use_dora=True))
    exported = check_exporter(
        Vllm, {"max_lora_rank": 32, "max_error": 0.9}, trained, tmp_path / "out"
    )
    error = _error(base, trained.folder, tmp_path / "out")
    assert 1e-6 < error < 0.9
    assert exported.proofs[1].measured == pytest.approx(error, rel=1.0)
    assert any("use_dora" in note for note in exported.notes)


def test_pissa_and_a_foreign_method_are_factored_exactly_where_the_rank_suffices(
    base: Path, tmp_path: Path
) -> None:
    from peft import IA3Config, LoHaConfig

    pissa = lora(init_lora_weights="pissa", target_modules=["q_proj", "v_proj"])
    loha = LoHaConfig(r=3, alpha=3, target_modules=["q_proj", "up_proj"], task_type="CAUSAL_LM")
    ia3 = IA3Config(target_modules=["k_proj"], feedforward_modules=[], task_type="CAUSAL_LM")
    for name, config, rank in (("pissa", pissa, 8), ("loha", loha, 16), ("ia3", ia3, 64)):
        trained = _train(base, tmp_path / name / "adapter", config)
        out = tmp_path / name / "out"
        check_exporter(Vllm, {"max_lora_rank": rank}, trained, out)
        assert _error(base, trained.folder, out) < 1e-5, name


def test_a_rank_above_the_servers_is_cut_or_refused(base: Path, tmp_path: Path) -> None:
    trained = _train(base, tmp_path / "adapter", lora(r=12))
    out = tmp_path / "out"
    check_exporter(Vllm, {"max_lora_rank": 8, "max_error": 0.9}, trained, out)
    assert json.loads((out / "adapter_config.json").read_text())["r"] == 8
    (tmp_path / "again").mkdir()
    exported = Vllm(VllmOptions(max_lora_rank=8, max_error=0.05)).export(
        trained, tmp_path / "again"
    )
    assert not exported.proofs[0].holds
    assert any("max_lora_rank=16 has room" in note for note in exported.notes)


def test_what_vllm_cannot_serve_is_refused_all_at_once(base: Path, tmp_path: Path) -> None:
    config = lora(
        target_modules=["q_proj"], modules_to_save=["lm_head"], trainable_token_indices=[3]
    )
    trained = _train(base, tmp_path / "adapter", config)
    with pytest.raises(ArtefactError) as caught:
        Vllm(VllmOptions()).export(trained, tmp_path / "out")
    message = caught.value.message
    assert "adapter_config.json  modules_to_save" in message
    assert "adapter_config.json  trainable_token_indices" in message
    assert "--to safetensors" in str(caught.value.hint)
    assert list((tmp_path / "out").iterdir()) == []


def test_a_saved_module_that_never_changed_is_left_out(base: Path, tmp_path: Path) -> None:
    import torch
    from peft import get_peft_model
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(base)
    config = lora(target_modules=["q_proj"], modules_to_save=["lm_head"])
    attached = get_peft_model(model, config)
    with torch.no_grad():
        for name, parameter in attached.named_parameters():
            if "lora_B" in name:
                parameter.normal_()
    attached.save_pretrained(tmp_path / "adapter")
    tiny.tiny_tokenizer(tmp_path / "adapter")
    (tmp_path / "out").mkdir()
    trained = Trained("tiny", tmp_path / "adapter", base=str(base))
    exported = check_exporter(Vllm, {}, trained, tmp_path / "out")
    assert any("modules_to_save" in note for note in exported.notes)
    assert _error(base, trained.folder, tmp_path / "out") < 1e-6


def test_a_trained_bias_is_refused(tmp_path: Path) -> None:
    base = tiny_families.save("llama-untied-biased", tmp_path / "base")
    trained = _train(base, tmp_path / "adapter", lora(bias="lora_only"))
    with pytest.raises(ArtefactError, match="trained bias"):
        Vllm(VllmOptions()).export(trained, tmp_path / "out")


def test_modules_that_the_base_has_not_are_named(base: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    trained = _train(base, tmp_path / "adapter", lora(target_modules=["q_proj"]))
    file = trained.folder / "adapter_model.safetensors"
    renamed = {name.replace("q_proj", "query"): value for name, value in load_file(file).items()}
    save_file(renamed, file)
    with pytest.raises(ArtefactError, match="made for another base"):
        Vllm(VllmOptions()).export(trained, tmp_path / "out")
