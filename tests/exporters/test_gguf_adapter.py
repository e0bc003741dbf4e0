"""A GGUF adapter on the base's file is the merged model's file, tensor by tensor."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tiny_families
from trained_adapter import lora, move_and_save

from peftkit.errors import ArtefactError
from peftkit.exporters.gguf_adapter import GgufAdapter, GgufAdapterOptions
from peftkit.exporters.gguf_file import write_gguf
from peftkit.plugins.exported import Trained
from peftkit.testing import check_exporter

gguf = pytest.importorskip("gguf", reason="the gguf extra is not installed")


def export(trained: Trained, **options) -> Path:
    out = trained.folder.parent / f"out-{len(options)}"
    out.mkdir(exist_ok=True)
    exported = check_exporter(GgufAdapter, options, trained, out)
    assert all(proof.holds for proof in exported.proofs)
    return exported.files[0]


def tensors(file: Path) -> dict[str, np.ndarray]:
    return {one.name: np.array(one.data) for one in gguf.GGUFReader(file).tensors}


def applied(base: Path, adapter: Path) -> dict[str, np.ndarray]:
    """Add an adapter to a file's tensors as llama.cpp does: scaled by alpha / rank."""
    reader = gguf.GGUFReader(adapter)
    assert reader.fields["general.type"].contents() == "adapter"
    assert reader.fields["adapter.type"].contents() == "lora"
    alpha = float(reader.fields["adapter.lora.alpha"].contents())
    found, thin = tensors(base), tensors(adapter)
    for name in {name.rpartition(".")[0] for name in thin}:
        first, second = thin.pop(f"{name}.lora_a"), thin.pop(f"{name}.lora_b")
        if name == "token_embd.weight":  # rows of `lora_a` are looked up
            change, rank = first @ second.T, first.shape[1]
        else:
            change, rank = second @ first, second.shape[1]
        found[name] = found[name] + (alpha / rank * change).astype(np.float32)
    assert not thin
    return found


def merged(base: Path, adapter: Path, folder: Path) -> Path:
    """Merge by plain PEFT."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), adapter)
    model.merge_and_unload().save_pretrained(folder)
    AutoTokenizer.from_pretrained(base).save_pretrained(folder)
    return folder


def as_gguf(folder: Path, out: Path) -> Path:
    out.mkdir()
    return write_gguf(Trained("tiny", folder), out, "f32").files[0]


@pytest.mark.parametrize(
    ("family", "options"),
    [
        ("llama", {"use_rslora": True, "lora_alpha": 3, "rank_pattern": {"q_proj": 2}}),
        ("gemma2", {}),
        ("gpt2", {"target_modules": ["c_attn", "c_proj", "c_fc"], "fan_in_fan_out": True}),
        ("llama-untied-biased", {"target_modules": ["embed_tokens", "lm_head", "k_proj"]}),
    ],
)
def test_it_makes_of_the_bases_file_the_merged_models(
    family: str, options: dict, tmp_path: Path
) -> None:
    base = tiny_families.save(family, tmp_path / "base")
    trained = move_and_save(base, tmp_path / "adapter", lora(**options))
    file = export(trained)
    wanted = tensors(as_gguf(merged(base, trained.folder, tmp_path / "merged"), tmp_path / "a"))
    found = applied(as_gguf(base, tmp_path / "b"), file)
    assert found.keys() == wanted.keys()
    for name, tensor in wanted.items():
        np.testing.assert_allclose(found[name], tensor, atol=2e-6, err_msg=name)


def test_half_precision_and_what_is_no_lora_say_what_they_lose(tmp_path: Path) -> None:
    base = tiny_families.save("llama", tmp_path / "base")
    trained = move_and_save(base, tmp_path / "adapter", lora())
    halves = export(trained, outtype="f16")
    assert {array.dtype for array in tensors(halves).values()} == {np.dtype("float16")}
    from peft import LoHaConfig

    loha = LoHaConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM")
    other = move_and_save(base, tmp_path / "loha" / "adapter", loha)
    assert export(other).exists(), "two factors of rank 2 multiply to rank 4"
    options = GgufAdapterOptions(max_rank=1)
    proofs = GgufAdapter(options).export(other, other.folder.parent).proofs
    assert not all(proof.holds for proof in proofs)


@pytest.mark.filterwarnings("ignore:Model has `tie_word_embeddings=True`:UserWarning")
@pytest.mark.parametrize(
    ("family", "options", "said"),
    [
        ("llama", {"modules_to_save": ["lm_head"]}, "lm_head.weight is brought whole"),
        ("gemma2", {"target_modules": ["embed_tokens"]}, "is the output matrix too"),
        ("llama", {"bias": "all"}, ""),
    ],
)
def test_what_an_adapter_file_cannot_say_is_refused(
    family: str, options: dict, said: str, tmp_path: Path
) -> None:
    base = tiny_families.save(family, tmp_path / "base")
    trained = move_and_save(base, tmp_path / "adapter", lora(**options))
    if not said:
        export(trained)  # this model has no biases
        return
    with pytest.raises(ArtefactError, match=said) as caught:
        export(trained)
    assert "--to gguf" in str(caught.value.hint)
