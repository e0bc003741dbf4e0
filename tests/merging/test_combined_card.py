"""The card says what was combined, how, and what was measured, and its front matter is YAML."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from peftkit.merging.combined_card import write_combined_card
from peftkit.merging.result import CombineResult

CONFIG = {"architectures": ["LlamaForCausalLM"]}


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
