"""A merged model's card."""

from __future__ import annotations

import json

import pytest
import yaml

from peftkit.merging.card import write_card
from peftkit.merging.inputs import Inputs


@pytest.mark.parametrize(("base", "named"), [("owner/model", "owner/model"), ("/here/base", None)])
def test_a_hub_base_is_named_and_a_folder_is_not(base, named, tmp_path) -> None:
    adapter = tmp_path / "mine"
    adapter.mkdir()
    config = {"base_model_name_or_path": base}
    (adapter / "adapter_config.json").write_text(json.dumps(config))
    inputs = Inputs(adapter, adapter, tmp_path, None, None)
    config = {"architectures": ["LlamaForCausalLM"]}
    write_card(tmp_path, inputs, method="LORA", onto="full", config=config, num_changed=14)
    _, matter, text = (tmp_path / "README.md").read_text().split("---\n", 2)
    front = yaml.safe_load(matter)
    assert front.get("base_model") == named
    assert front["tags"] == ["peftkit", "merged", "lora"]
    assert front["pipeline_tag"] == "text-generation"
    assert "14 tensors changed" in text and "LlamaForCausalLM.from_pretrained" in text
