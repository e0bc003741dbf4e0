"""A file is told to be another tool's by its keys."""

from __future__ import annotations

import pytest

from peftkit.check import check_files
from peftkit.errors import UsageError
from peftkit.recipe.foreign import describe_foreign, recognise

AXOLOTL = "base_model: a/b\nmicro_batch_size: 1\nsequence_len: 64\n"
FACTORY = "model_name_or_path: a/b\nstage: sft\nfinetuning_type: lora\ntemplate: qwen\n"


def write(folder, text, name="c.yaml"):
    file = folder / name
    file.write_text(text, encoding="utf-8")
    return file


def test_check_says_in_a_line_whose_config_it_is(tmp_path):
    file = write(tmp_path, AXOLOTL)
    (problem,) = check_files([file])
    assert problem.problem == "is a config of axolotl, not a recipe"
    assert "peftkit init" in problem.suggestion
    script = write(tmp_path, "llamafactory-cli train --stage sft\n", "train.sh")
    (problem,) = check_files([script])
    assert problem.problem == "is a script that runs LLaMA-Factory, not a recipe"


def test_a_recipe_and_other_yaml_are_nobodys(tmp_path):
    recipe = "model: {path: a/b}\ndata: {}\nadapter: full\nmethod: {sft: {}}\nsequence_len: 3\n"
    assert recognise(write(tmp_path, recipe)) is None
    assert describe_foreign(write(tmp_path, "services: {web: {image: x}}\n")) is None
    assert describe_foreign(tmp_path / "none.yaml") is None


def test_a_config_of_two_tools_is_the_one_whose_keys_are_more(tmp_path):
    found = recognise(write(tmp_path, AXOLOTL + "stage: sft\ncutoff_len: 8\n"))
    assert (found.name, found.others) == ("axolotl", ("LLaMA-Factory",))
    tied = write(tmp_path, AXOLOTL + "stage: sft\ncutoff_len: 8\ntemplate: x\n")
    with pytest.raises(UsageError, match="keys of axolotl and of LLaMA-Factory"):
        recognise(tied)
    assert recognise(tied, "llamafactory").name == "llamafactory"
