"""LLaMA-Factory's data sets become sources and tasks."""

from __future__ import annotations

import json

import pytest
from imported import fates, imported, recipe_of

from peftkit.plugins import Fate

BASE = "model_name_or_path: a/b\nstage: sft\nfinetuning_type: lora\ndataset: mine\n"


@pytest.mark.parametrize(
    ("info", "source", "task"),
    [
        ({"file_name": "m.json"}, {"json": {"files": "data/m.json"}},
         {"prompt_completion": {"prompt": "{instruction}{#input}\n{input}{/input}",
                                "completion": "output"}}),
        ({"hf_hub_url": "x/y", "formatting": "openai"}, {"hub": {"path": "x/y"}},
         {"chat": {}}),
        ({"file_name": "m.json", "ranking": True, "columns": {"prompt": "q"}},
         {"json": {"files": "data/m.json"}},
         {"preference": {"prompt": "q", "chosen": "chosen", "rejected": "rejected"}}),
    ],
)  # fmt: skip
def test_an_entry_becomes_a_source_and_a_task(tmp_path, info, source, task):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "dataset_info.json").write_text(json.dumps({"mine": info}))
    data = recipe_of(imported(tmp_path, BASE))["data"]
    assert (data["source"], data["task"]) == (source, task)


def test_a_column_of_system_messages_and_frozen_layers(tmp_path):
    columns = {"prompt": "q", "response": "a", "system": "s"}
    info = {"mine": {"file_name": "m.json", "columns": columns}}
    (tmp_path / "dataset_info.json").write_text(json.dumps(info))
    frozen = BASE.replace("lora", "freeze") + "freeze_trainable_layers: 3\n"
    written = imported(tmp_path, frozen)
    recipe = recipe_of(written)
    assert recipe["data"]["dialogue"] == {"system": "{s}"}
    assert recipe["adapter"] == {"full": {"train": ["layers.-3:"]}}
    assert Fate.UNSUPPORTED not in fates(written).values()


def test_a_name_without_an_entry_is_said(tmp_path):
    written = imported(tmp_path, BASE)
    assert fates(written)["dataset.mine"] is Fate.DIFFERS
    assert recipe_of(written)["data"]["source"] == {"json": {"files": "data/mine.json"}}


def test_images_are_not_supported(tmp_path):
    info = {"mine": {"file_name": "m.json", "columns": {"images": "images"}}}
    (tmp_path / "dataset_info.json").write_text(json.dumps(info))
    assert fates(imported(tmp_path, BASE))["dataset.mine.columns"] is Fate.UNSUPPORTED


@pytest.mark.parametrize(
    ("line", "said"),
    [("mask_history: true", "last_answer"), ("train_on_prompt: true", "everything")],
)
def test_which_turns_are_trained(tmp_path, line, said):
    assert recipe_of(imported(tmp_path, f"{BASE}{line}\n"))["data"]["dialogue"] == {"train": said}
