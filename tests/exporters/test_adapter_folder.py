"""The adapter leaves as plain PEFT loads it, under the name its base has elsewhere."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import tiny
import tiny_families

from peftkit.errors import ArtefactError
from peftkit.exporters.adapter_folder import AdapterFolder
from peftkit.plugins.exported import Trained
from peftkit.testing import check_exporter


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    base = tiny_families.save("llama", tmp_path / "base")
    model = AutoModelForCausalLM.from_pretrained(base)
    config = LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False)
    get_peft_model(model, config).save_pretrained(tmp_path / "adapter")
    tiny.tiny_tokenizer(tmp_path / "adapter")
    (tmp_path / "out").mkdir()
    return tmp_path / "adapter"


def test_plain_peft_loads_the_same_model(adapter: Path, tmp_path: Path) -> None:
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    exported = check_exporter(AdapterFolder, {}, Trained("tiny", adapter), tmp_path / "out")
    assert "folder of this machine" in exported.notes[0]
    assert {"tokenizer.json", "chat_template.jinja", "README.md"} <= {
        file.name for file in exported.files
    }
    ids = torch.arange(20)[None]
    with torch.no_grad():
        found = [
            PeftModel.from_pretrained(
                AutoModelForCausalLM.from_pretrained(tmp_path / "base"), str(folder)
            )(ids).logits.numpy()
            for folder in (adapter, tmp_path / "out")
        ]
    np.testing.assert_array_equal(*found)


def test_the_base_gets_its_name_elsewhere(adapter: Path, tmp_path: Path) -> None:
    options = {"base_model_name_or_path": "someone/model", "revision": "main"}
    exported = check_exporter(AdapterFolder, options, Trained("tiny", adapter), tmp_path / "out")
    config = json.loads((tmp_path / "out" / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "someone/model"
    assert config["revision"] == "main"
    assert exported.notes == ()
    assert config["r"] == 4


def test_numbers_that_are_not_finite_are_refused(adapter: Path, tmp_path: Path) -> None:
    from safetensors.numpy import load_file, save_file

    file = adapter / "adapter_model.safetensors"
    weights = load_file(file)
    next(iter(weights.values()))[0, 0] = np.nan
    save_file(weights, file)
    with pytest.raises(ArtefactError, match="NaN"):
        AdapterFolder(AdapterFolder.Config()).export(Trained("tiny", adapter), tmp_path / "out")


def test_a_config_that_peft_does_not_take_is_refused(adapter: Path, tmp_path: Path) -> None:
    file = adapter / "adapter_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "peft_type": "NO_SUCH"}))
    with pytest.raises(ArtefactError, match="PEFT does not take it"):
        AdapterFolder(AdapterFolder.Config()).export(Trained("tiny", adapter), tmp_path / "out")


def test_pickled_weights_are_refused(adapter: Path, tmp_path: Path) -> None:
    (adapter / "adapter_model.safetensors").rename(adapter / "adapter_model.bin")
    with pytest.raises(ArtefactError, match="pickle"):
        AdapterFolder(AdapterFolder.Config()).export(Trained("tiny", adapter), tmp_path / "out")
