"""Chat templates by name write what their families write, and what they train is the answers."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import tiny_tokenizers

from peftkit.embedded.named_templates import OWN_TEMPLATES, named_templates, template_names
from peftkit.models.tokenizer import set_template
from peftkit.plugins import Conversation, Question
from peftkit.plugins.rows import IGNORED
from peftkit.preprocessing.dialogue import Dialogue

ALPACA = (
    "Below is an instruction that describes a task. Write a response that appropriately completes"
    " the request."
)
VICUNA = (
    "A chat between a curious user and an artificial intelligence assistant. The assistant gives"
    " helpful, detailed, and polite answers to the user's questions."
)


def wrapped(turns, before, after) -> str:
    """Write each turn between two texts, in which {} is the role."""
    return "".join(before.format(role) + said + after for role, said in turns)


def paired(turns, system: str, ask: str, answer: str) -> str:
    """Write pairs of a question and its answer after a system message."""
    said = [text for role, text in turns if role != "system"]
    pairs = zip(said[::2], said[1::2], strict=True)
    return system + "".join(ask.format(one) + answer.format(two) for one, two in pairs)


def system_of(turns, default: str) -> str:
    return turns[0][1] if turns[0][0] == "system" else default


WRITTEN = {
    "chatml": lambda turns: wrapped(turns, "<|im_start|>{}\n", "<|im_end|>\n"),
    "llama3": lambda turns: "<s>" + wrapped(
        turns, "<|start_header_id|>{}<|end_header_id|>\n\n", "<|eot_id|>"
    ),
    "zephyr": lambda turns: wrapped(turns, "<|{}|>\n", "</s>\n"),
    "phi": lambda turns: wrapped(turns, "<|{}|>\n", "<|end|>\n") + "</s>",
    "gemma": lambda turns: "<s>" + wrapped(
        [(role.replace("assistant", "model"), said) for role, said in turns],
        "<start_of_turn>{}\n", "<end_of_turn>\n",
    ),
    "mistral": lambda turns: "<s>" + paired(turns, "", "[INST] {}[/INST]", " {}</s>").replace(
        "[INST] ", f"[INST] {system_of(turns, '')}" + ("\n\n" if system_of(turns, "") else ""), 1
    ),
    "vicuna": lambda turns: "<s>" + paired(
        turns, system_of(turns, VICUNA) + " ", "USER: {} ASSISTANT:", " {}</s>"
    ),
    "alpaca": lambda turns: "<s>" + paired(
        turns, system_of(turns, ALPACA), "\n\n### Instruction:\n{}\n\n### Response:\n", "{}</s>"
    ),
    "plain": lambda turns: "<s>" + "".join(
        said + ("</s>" if role == "assistant" else "") for role, said in turns
    ),
}  # fmt: skip
"""Each format as its family's own code joins it, in plain Python."""
PIECES = ("sort keys", "naïve café", "東京", "x = {'a': 1}", "two\n\nlines", "{{ m }}", "1,234.5")


@pytest.fixture(scope="module")
def of_llama(tmp_path_factory):
    """Give a tokenizer that opens texts with a token, and has every template's tokens."""
    tokenizer = tiny_tokenizers.sentencepiece(tmp_path_factory.mktemp("sentencepiece"))
    tokens = {t for one in OWN_TEMPLATES for t in named_templates()[one].tokens or ()}
    tokenizer.add_special_tokens({"additional_special_tokens": sorted(tokens)})
    return tokenizer


def draw(number: int, name: str) -> list[tuple[str, str]]:
    source = random.Random(number)
    roles = ["user", "assistant"] * source.randint(1, 3)
    if number % 2 and name != "gemma":
        roles.insert(0, "system")
    return [(role, " ".join(source.choices(PIECES, k=source.randint(1, 4)))) for role in roles]


@pytest.mark.parametrize("name", OWN_TEMPLATES)
def test_a_named_template_writes_its_family_s_text_and_trains_its_answers(name, of_llama) -> None:
    set_template(of_llama, name, Path())
    dialogue = Dialogue(of_llama)
    for number in range(100):
        turns = draw(number, name)
        messages = tuple({"role": role, "content": said} for role, said in turns)
        assert dialogue.template.render(messages) == WRITTEN[name](turns)
        if number % 10 == 0:
            (row,) = dialogue.encode([Conversation(messages)])
            asked = dialogue.prompt(Question(messages=messages[:-1]))
            assert row["input_ids"][: len(asked)] == asked
            trained = [label for label in row["labels"] if label != IGNORED]
            shown = of_llama.decode(trained, clean_up_tokenization_spaces=False)
            end = {"chatml": "<|im_end|>", "llama3": "<|eot_id|>", "phi": "<|end|>",
                   "gemma": "<end_of_turn>"}.get(name, "</s>")  # fmt: skip
            answers = "".join(said + end for role, said in turns if role == "assistant")
            assert shown.replace(" ", "") == answers.replace(" ", "")
            assert of_llama.convert_tokens_to_ids(end) == dialogue.end_ids[0]


@pytest.mark.parametrize(("ours", "theirs"), [("llama3",) * 2, ("gemma",) * 2, ("phi", "phi3")])
def test_a_named_template_writes_what_trl_s_of_the_model_writes(ours, theirs, of_llama) -> None:
    import trl.chat_template_utils as of_trl

    set_template(of_llama, ours, Path())
    for number in range(0, 100, 1 + (ours == "gemma")):
        messages = [{"role": r, "content": said} for r, said in draw(number, ours)]
        for is_prompt in (False, True):
            asked = messages[:-1] if is_prompt else messages
            options = {"tokenize": False, "add_generation_prompt": is_prompt}
            source = getattr(of_trl, f"{theirs}_chat_template")
            theirs_of_it = of_llama.apply_chat_template(asked, chat_template=source, **options)
            assert of_llama.apply_chat_template(asked, **options) == theirs_of_it


def test_trl_s_templates_for_training_are_known(of_llama) -> None:
    assert {"qwen3", "gemma3", "gptoss", "deepseekv3"} <= set(template_names())
    assert template_names()[: len(OWN_TEMPLATES)] == list(OWN_TEMPLATES)
    set_template(of_llama, "qwen3", Path())
    text = of_llama.apply_chat_template([{"role": "user", "content": "a"}], tokenize=False)
    assert text == "<|im_start|>user\na<|im_end|>\n"
