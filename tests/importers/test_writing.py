"""What is written is a recipe, and what is printed says everything."""

from __future__ import annotations

import pytest
import yaml
from imported import fates, imported, recipe_of, refused

from peftkit.plugins import Fate

CONFIG = """\
base_model: a/b
adapter: lora
lora_r: 0
sequence_len: 64
micro_batch_size: 1
datasets: [{path: a.jsonl, type: chat_template}]
learning_rate: 1e-4
relora: true
"""


def test_a_value_that_check_refuses_is_said_and_left_out(tmp_path):
    written = imported(tmp_path, CONFIG)
    assert "r" not in recipe_of(written)["adapter"]["lora"]
    assert fates(written)["lora_r"] is Fate.UNSUPPORTED
    assert refused(written) == []


def test_the_table_names_every_key_and_counts_them(tmp_path):
    written = imported(tmp_path, CONFIG)
    lines = str(written).splitlines()
    for key in yaml.safe_load(CONFIG):
        assert sum(line.lstrip().startswith(f"{key}:") for line in lines) == 1, key
    assert any("not supported" in line and "(line 8)" in line for line in lines)
    assert lines[-1].startswith("next: peftkit data")


@pytest.mark.parametrize(
    "text",
    [
        "a\nb\n",
        "a\n\n  b",
        " a\nb",
        "a: 1\n# b\n",
        "\na\nb",
        "a\nb\n\n",
        "{a}\n\tb",
        "| x\ny\u2028z",
    ],
)
def test_a_text_of_several_lines_stays_as_it_is(tmp_path, text):
    config = yaml.safe_load(CONFIG)
    config["datasets"][0]["type"] = {"format": text}
    recipe = recipe_of(imported(tmp_path, yaml.safe_dump(config)))
    prompt = recipe["data"]["task"]["prompt_completion"]["prompt"]
    assert prompt.replace("{a}", "a") == text.replace("{a}", "{{a}}").replace("{a}", "a")


def test_the_recipes_comments_say_what_it_is_of(tmp_path):
    written = imported(tmp_path, CONFIG)
    assert written.text.startswith("# The recipe for config.yml, a config of axolotl")
    assert "    # lr_scheduler: the default there" in written.text
