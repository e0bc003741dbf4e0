"""The cards of merges: what was made of what, how, and what was lost; front matter is YAML."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from peftkit.merging.card import write_card, write_combined_card
from peftkit.merging.inputs import Inputs
from peftkit.merging.result import CombineResult

CONFIG = {"architectures": ["LlamaForCausalLM"]}


@pytest.mark.parametrize(("base", "named"), [("owner/model", "owner/model"), ("/here/base", None)])
def test_a_hub_base_is_named_and_a_folder_is_not(base, named, tmp_path) -> None:
    adapter = tmp_path / "mine"
    adapter.mkdir()
    config = {"base_model_name_or_path": base}
    (adapter / "adapter_config.json").write_text(json.dumps(config))
    inputs = Inputs(adapter, adapter, tmp_path, None, None)
    write_card(tmp_path, inputs, method="LORA", onto="full", config=CONFIG, num_changed=14)
    _, matter, text = (tmp_path / "README.md").read_text().split("---\n", 2)
    front = yaml.safe_load(matter)
    assert front.get("base_model") == named
    assert front["tags"] == ["peftkit", "merged", "lora"]
    assert front["pipeline_tag"] == "text-generation"
    assert "14 tensors changed" in text and "LlamaForCausalLM.from_pretrained" in text


@pytest.mark.parametrize(
    ("to", "library", "loads"),
    [("base", "transformers", "LlamaForCausalLM.from_pretrained(\"THIS FOLDER\""),
     ("adapter", "peft", "PeftModel.from_pretrained(LlamaForCausalLM")],
)  # fmt: skip
def test_a_card_names_sources_method_and_loss(tmp_path: Path, to, library: str, loads: str) -> None:
    options = {"weights": [0.7, 0.3], "svd_rank": 4}
    result = CombineResult(
        tmp_path, to, (Path("runs/one"), Path("runs/other")), "base", "svd", options, rank=4,
        error=0.123,
    )  # fmt: skip
    assert write_combined_card(result, config=CONFIG, num_changed=14) == "README.md"
    text = (tmp_path / "README.md").read_text()
    _, matter, body = text.split("---\n", 2)
    assert yaml.safe_load(matter)["library_name"] == library
    assert "svd" in yaml.safe_load(matter)["tags"]
    assert yaml.safe_load(body.split("```yaml\n")[1].split("```")[0]) == {"svd": options}
    assert loads in body
    assert "`one`, `other`" in body
    assert ("14 tensors changed" in body) == (to == "base")
    assert ("of rank 4, off from the combined change by 1.23e-01" in body) == (to == "adapter")
