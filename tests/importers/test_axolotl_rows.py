"""axolotl's prompt strategies become tasks."""

from __future__ import annotations

import pytest
from imported import fates, imported, recipe_of, refused

from peftkit.importers.templates import ALPACA
from peftkit.plugins import Fate

BASE = "base_model: a/b\nadapter: lora\nmicro_batch_size: 2\nsequence_len: 64\n"


@pytest.mark.parametrize(
    ("entry", "task"),
    [
        ("{path: a.jsonl, type: alpaca}",
         {"prompt_completion": {"prompt": ALPACA, "completion": "output"}}),
        ("{path: a.jsonl, type: sharegpt, conversation: chatml}",
         {"chat": {"messages": "conversations", "role": "from", "content": "value"}}),
        ("{path: a.jsonl, type: chat_template, field_messages: turns,"
         " message_property_mappings: {role: who, content: what}, roles: {assistant: [bot]}}",
         {"chat": {"messages": "turns", "role": "who", "content": "what",
                   "roles": {"bot": "assistant"}}}),
        ("{path: a.txt, type: completion}", {"text": {"text": "text"}}),
        ("{path: a.jsonl, type: {field_instruction: q, field_output: a, format: '{instruction}'}}",
         {"prompt_completion": {"prompt": "{q}", "completion": "a"}}),
        ("{path: a.jsonl, type: {system_prompt: 'Be {kind}.', field_instruction: q,"
         " format: 'Q: {instruction} A:', field_output: a}}",
         {"prompt_completion": {"prompt": "Be {{kind}}.Q: {q} A:", "completion": "a"}}),
        ("{path: a.jsonl, type: {field_system: s, format: '{instruction}'}}",
         {"prompt_completion": {"prompt": "{#s}{s}{/s}{instruction}", "completion": "output"}}),
    ],
)  # fmt: skip
def test_a_strategy_becomes_a_task(tmp_path, entry, task):
    assert recipe_of(imported(tmp_path, f"{BASE}datasets: [{entry}]\n"))["data"]["task"] == task


def test_several_sets_and_one_to_validate_on(tmp_path):
    text = BASE + (
        "datasets: [{path: a/b, type: alpaca, split: 'train[:10%]'}, {path: c.jsonl, type: alpaca}]"
        "\ntest_datasets: [{path: d.jsonl, type: alpaca, split: train}]\n"
    )
    source = recipe_of(imported(tmp_path, text))["data"]["source"]
    assert source == [
        {"hub": {"path": "a/b"}, "splits": {"train": "train[:10%]"}},
        {"json": {"files": "c.jsonl"}, "splits": {"train": "train"}},
        {"json": {"files": "d.jsonl"}, "splits": {"validation": "train"}},
    ]


def test_prompts_are_trained_where_the_config_says_so(tmp_path):
    text = f"{BASE}train_on_inputs: true\ndatasets: [{{path: a.jsonl, type: chat_template}}]\n"
    assert recipe_of(imported(tmp_path, text))["data"]["dialogue"] == {"train": "everything"}


@pytest.mark.parametrize(
    ("roles", "said"),
    [("[assistant]", None), ("[human, gpt]", ["user", "assistant"]), ("user", ["user"])],
)
def test_whose_turns_are_trained(tmp_path, roles, said):
    entry = f"{{path: a.jsonl, type: chat_template, roles_to_train: {roles}}}"
    written = imported(tmp_path, f"{BASE}curriculum_sampling: true\ndatasets: [{entry}]\n")
    recipe = recipe_of(written)
    assert recipe["data"].get("dialogue") == (said and {"train": said})
    assert recipe["method"]["sft"]["train_sampling_strategy"] == "sequential"
    assert not refused(written)


@pytest.mark.parametrize("packs", [True, False])
def test_running_text_is_read_in_pieces_or_said_to_be_cut(tmp_path, packs):
    text = f"{BASE}sample_packing: {packs}\ndatasets: [{{path: a.jsonl, type: completion}}]\n"
    written = imported(tmp_path, text)
    recipe = recipe_of(written)
    assert "rows" not in recipe["data"], "nothing is dropped there"
    assert recipe["method"]["sft"].get("packing_strategy") == ("bfd_split" if packs else None)
    assert (fates(written)["sequence_len"] is Fate.DIFFERS) != packs
    assert not refused(written)
