"""Model cards parse, whatever stands in the recipe."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import yaml

from peftkit.plugins import CAUSAL_LM
from peftkit.reporting.model_card import Card, render_card, write_card

CARD = Card(
    name="summarize-lora",
    base_model="Qwen/Qwen3-0.6B",
    is_on_hub=True,
    adapter="lora",
    method="sft",
    kind=CAUSAL_LM,
    recipe="name: summarize-lora\n# ```` a fence in a comment\n",
    fingerprint="9f2c",
    packages={"peft": "0.21.2", "torch": "2.13.0"},
)
SCORES = {
    "split": "test",
    "num_rows": 200,
    "base": {"rougeL": 0.0934, "perplexity": 61.7},
    "tuned": {"rougeL": 0.3121, "perplexity": 9.84},
    "baselines": {"first_sentence": {"rougeL": 0.1934}},
}


def _front_matter(text: str) -> dict:
    _, front, _ = text.split("---\n", 2)
    return yaml.safe_load(front)


def test_the_front_matter_is_what_the_hub_reads(tmp_path: Path) -> None:
    text = write_card(tmp_path, CARD).read_text()
    assert _front_matter(text) == {
        "library_name": "peft",
        "base_model": "Qwen/Qwen3-0.6B",
        "tags": ["peftkit", "sft", "lora"],
        "pipeline_tag": "text-generation",
    }
    assert "# summarize-lora\n" in text
    assert "`````yaml\nname: summarize-lora\n" in text
    assert "## Scores" not in text


def test_scores_stand_in_a_table() -> None:
    text = render_card(dataclasses.replace(CARD, scores=SCORES))
    assert "| | base | tuned | first_sentence |\n|---|---:|---:|---:|\n" in text
    assert "| rougeL | 0.0934 | 0.3121 | 0.1934 |\n" in text
    assert "| perplexity | 61.7 | 9.84 |  |\n" in text


@pytest.mark.parametrize("adapter", ["lora", None])
def test_the_code_on_the_card_is_python(adapter: str | None) -> None:
    text = render_card(dataclasses.replace(CARD, adapter=adapter))
    code = text.split("```python\n")[1].split("```")[0]
    compile(code, "card", "exec")


def test_a_folder_on_this_machine_is_no_base_model_of_the_hub() -> None:
    embedded = render_card(
        dataclasses.replace(CARD, base_model="embedded:docstring-lm", is_on_hub=False)
    )
    assert "base_model" not in _front_matter(embedded)
    assert "from peftkit.embedded import model_path\n" in embedded
    assert "from_pretrained(model_path('docstring-lm'), " in embedded
    local = render_card(dataclasses.replace(CARD, base_model="/models/base", is_on_hub=False))
    assert "base_model" not in _front_matter(local)
    assert "adapter for `base`," in local
    assert 'from_pretrained("THE BASE", ' in local
    assert "/models" not in local


def test_a_quantized_base_is_loaded_as_it_was_trained() -> None:
    card = dataclasses.replace(
        CARD,
        dtype="bfloat16",
        quantization=("BitsAndBytesConfig", {"load_in_4bit": True}),
        after_loading="base.prepare()\n",
    )
    text = render_card(card)
    code = text.partition("```python\n")[2].partition("```")[0]
    assert code == (
        "from peft import PeftModel\n"
        "from transformers import AutoModelForCausalLM, GenerationConfig, BitsAndBytesConfig\n\n"
        "quantization = BitsAndBytesConfig(load_in_4bit=True)  # as in training\n"
        "base = AutoModelForCausalLM.from_pretrained('Qwen/Qwen3-0.6B', dtype='bfloat16',"
        " quantization_config=quantization)\n"
        "# where answers end\n"
        'base.generation_config = GenerationConfig.from_pretrained("THIS FOLDER")\n'
        "base.prepare()\n"
        'model = PeftModel.from_pretrained(base, "THIS FOLDER")\n'
    )
    compile(code, "card", "exec")
