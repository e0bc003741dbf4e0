"""Quantized checkpoints load in plain transformers with the error that was printed."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import tiny_families
import tiny_heads

from peftkit.errors import ArtefactError, ResourceError, UsageError
from peftkit.exporters.quantized import BitsAndBytes, TorchAo
from peftkit.plugins.exported import Trained
from peftkit.recipe.build import construct
from peftkit.testing import check_exporter

BNB = {
    "8bit": {"load_in_8bit": True},
    "nf4": {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": True},
}


def _logits(folder: Path):
    import torch
    from transformers import AutoModelForCausalLM

    with torch.no_grad():
        model = AutoModelForCausalLM.from_pretrained(folder).eval()
        return model(input_ids=torch.arange(5, 60)[None]).logits.double()


@pytest.mark.parametrize("kind", list(BNB))
def test_bitsandbytes_checkpoints_are_close_and_half_as_large(kind: str, tmp_path: Path) -> None:
    # Where there is AVX512-BF16, bitsandbytes wants columns in whole blocks of 64 to run 4 bits.
    folder = tiny_families.save("llama", tmp_path / "model", intermediate_size=128)
    out = tmp_path / "out"
    out.mkdir()
    exported = check_exporter(BitsAndBytes, BNB[kind], Trained("tiny", folder), out)
    wanted, found = _logits(folder), _logits(out)
    relative = float(((found - wanted) ** 2).mean().sqrt() / (wanted**2).mean().sqrt())
    assert 1e-4 < relative < {"8bit": 0.1, "nf4": 0.5}[kind]
    assert exported.proofs[0].measured == pytest.approx(relative, rel=1.0)
    assert "14 quantized layers" in exported.proofs[0].detail
    config = json.loads((out / "config.json").read_text())
    assert config["quantization_config"]["quant_method"] == "bitsandbytes"
    assert (out / "chat_template.jinja").is_file()
    size = (out / "model.safetensors").stat().st_size
    assert size < 0.7 * (folder / "model.safetensors").stat().st_size


def test_an_encoder_decoder_is_measured_by_what_its_decoder_says(tmp_path: Path) -> None:
    import torch
    from transformers import AutoModelForSeq2SeqLM

    folder = tiny_heads.save(tmp_path / "model", tiny_heads.T5, "AutoModelForSeq2SeqLM")
    out = tmp_path / "out"
    out.mkdir()
    exported = check_exporter(BitsAndBytes, BNB["8bit"], Trained("tiny", folder), out)
    ids = torch.arange(5, 60)[None]
    with torch.no_grad():
        wanted, found = (
            AutoModelForSeq2SeqLM.from_pretrained(place)
            .eval()(input_ids=ids, decoder_input_ids=ids)
            .logits.double()
            for place in (folder, out)
        )
    relative = float(((found - wanted) ** 2).mean().sqrt() / (wanted**2).mean().sqrt())
    assert 1e-4 < relative < 0.1
    assert exported.proofs[0].measured == pytest.approx(relative, rel=1.0)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "quant_type",
    ["Int8WeightOnlyConfig", "Int8DynamicActivationInt8WeightConfig", "Float8WeightOnlyConfig"],
)
def test_torchao_checkpoints_are_close(quant_type: str, tmp_path: Path) -> None:
    folder = tiny_families.save("llama", tmp_path / "model")
    out = tmp_path / "out"
    out.mkdir()
    check_exporter(TorchAo, {"quant_type": quant_type}, Trained("tiny", folder), out)
    wanted, found = _logits(folder), _logits(out)
    assert 1e-5 < float(((found - wanted) ** 2).mean().sqrt() / (wanted**2).mean().sqrt()) < 0.1


@pytest.mark.filterwarnings("ignore")
def test_leaving_every_module_out_is_refused(tmp_path: Path) -> None:
    folder = tiny_families.save("llama", tmp_path / "model")
    options = {"quant_type": "Int8WeightOnlyConfig", "modules_to_not_convert": ["model", "lm_head"]}
    with pytest.raises(ArtefactError, match="nothing was quantized"):
        TorchAo(construct(TorchAo.Config, options)).export(Trained("t", folder), tmp_path)


def test_a_missing_torchao_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchao", None)
    monkeypatch.setitem(sys.modules, "torchao.quantization", None)
    config = TorchAo.Config("Int8WeightOnlyConfig")
    with pytest.raises(ResourceError, match="torchao") as caught:
        TorchAo(config).export(Trained("tiny", tmp_path), tmp_path)
    assert "peftkit[torchao]" in str(caught.value.hint)


def test_neither_four_nor_eight_bits_is_no_choice(tmp_path: Path) -> None:
    config = construct(BitsAndBytes.Config, {})
    with pytest.raises(UsageError, match="neither 4 nor 8") as caught:
        BitsAndBytes(config).export(Trained("tiny", tmp_path), tmp_path)
    assert "load_in_8bit=true" in str(caught.value.hint)


def test_a_quantized_model_is_not_quantized_again(tmp_path: Path) -> None:
    folder = tiny_families.save("llama", tmp_path / "model")
    (tmp_path / "out").mkdir()
    config = construct(BitsAndBytes.Config, BNB["8bit"])
    BitsAndBytes(config).export(Trained("tiny", folder), tmp_path / "out")
    with pytest.raises(ArtefactError, match="quantized already"):
        BitsAndBytes(config).export(Trained("tiny", tmp_path / "out"), tmp_path / "again")
