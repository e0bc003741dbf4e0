"""What is trained: the assistant's turns with their end, and nothing else."""

from __future__ import annotations

import pytest
import tiny
from hypothesis import given, settings
from hypothesis import strategies as st

from peftkit.errors import DataError
from peftkit.plugins.rows import IGNORED
from peftkit.preprocessing.chat_labels import (
    TemplateError,
    encode_chats,
    encode_conversation,
    encode_conversations,
    encode_text,
    encode_texts,
    has_double_bos,
)

UNMARKED = tiny.CHAT_TEMPLATE.replace("{% generation %}", "").replace("{% endgeneration %}", "")
EOS_OUTSIDE = tiny.CHAT_TEMPLATE.replace(
    "{{ message['content'] + '<|endoftext|>' }}{% endgeneration %}",
    "{{ message['content'] }}{% endgeneration %}{{ '<|endoftext|>' }}",
)
NO_EOS = UNMARKED.replace(" + '<|endoftext|>'", "")
THINKING = (
    "{% for m in messages %}{{ '<|' + m['role'] + '|>\n' }}"
    "{% if m['role'] == 'assistant' and loop.last %}{{ 'thought ' }}{% endif %}"
    "{{ m['content'] + '<|endoftext|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}"
)


@pytest.fixture(scope="module")
def tokenizers(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizers")
    templates = {
        "marked": tiny.CHAT_TEMPLATE,
        "unmarked": UNMARKED,
        "eos_outside": EOS_OUTSIDE,
        "no_eos": NO_EOS,
        "thinking": THINKING,
        "none": None,
    }
    return {name: tiny.tiny_tokenizer(folder, template) for name, template in templates.items()}


def chat(*contents: str) -> list[dict[str, str]]:
    roles = ("user", "assistant")
    return [{"role": roles[n % 2], "content": text} for n, text in enumerate(contents)]


def trained(encoded, tokenizer) -> str:
    return tokenizer.decode([label for label in encoded["labels"] if label != IGNORED])


def test_only_the_answer_and_its_end_are_trained(tokenizers):
    tokenizer = tokenizers["marked"]
    encoded = encode_conversation(chat("sort keys", "by name"), tokenizer)
    assert tokenizer.decode(encoded["input_ids"]) == (
        "<|user|>\nsort keys<|endoftext|>\n<|assistant|>\nby name<|endoftext|>\n"
    )
    assert trained(encoded, tokenizer) == "by name<|endoftext|>"


@pytest.mark.parametrize("kind", ["unmarked", "eos_outside"])
def test_every_turn_of_a_conversation_is_trained_with_its_end(tokenizers, kind):
    messages = [{"role": "system", "content": "be brief"}, *chat("a", "one", "b", "two")]
    encoded = encode_conversation(messages, tokenizers[kind])
    assert trained(encoded, tokenizers[kind]) == "one<|endoftext|>two<|endoftext|>"


words = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12).map(
    lambda text: "x" + text
)
conversations = st.lists(words, min_size=1, max_size=3).map(
    lambda texts: chat(*[part for text in texts for part in (text, text[::-1] + "y")])
)


@settings(max_examples=60, deadline=None)
@given(conversations)
def test_the_mask_by_prefix_equals_the_mask_by_marks(tokenizers, messages):
    for message in messages:  # an answer that opens with a newline shares a token with the prompt
        message["content"] = "x" + message["content"].replace("<|", "")
    by_marks = encode_conversation(messages, tokenizers["marked"])
    assert encode_conversation(messages, tokenizers["unmarked"]) == by_marks


@settings(max_examples=60, deadline=None)
@given(conversations)
def test_labels_are_inputs_or_ignored_and_the_text_comes_back(tokenizers, messages):
    tokenizer = tokenizers["marked"]
    encoded = encode_conversation(messages, tokenizer)
    pairs = list(zip(encoded["input_ids"], encoded["labels"], strict=True))
    assert all(label in (IGNORED, token) for token, label in pairs)
    assert tokenizer.decode(encoded["input_ids"]) == tokenizer.apply_chat_template(
        messages, tokenize=False
    )


def test_text_is_trained_whole_and_ends_once(tokenizers):
    tokenizer = tokenizers["none"]
    encoded = encode_text("read a file", tokenizer)
    assert encoded["labels"] == encoded["input_ids"]
    assert tokenizer.decode(encoded["input_ids"]) == "read a file<|endoftext|>"
    assert encode_text("read a file<|endoftext|>", tokenizer) == encoded


def test_no_chat_template_says_the_way_out(tokenizers):
    tokenizer = tokenizers["none"]
    with pytest.raises(TemplateError) as caught:
        encode_conversation(chat("a", "b"), tokenizer)
    assert str(caught.value) == (
        "the tokenizer of this model has no chat template\n"
        "  try: model.chat_template=alpaca needs no more than an end token; it takes"
        " chatml, llama3, mistral, gemma, phi, zephyr, vicuna, alpaca, plain, others"
        " (peftkit explain model.chat_template) and Jinja files"
    )


def test_a_template_that_never_ends_a_turn_is_refused(tokenizers):
    with pytest.raises(TemplateError, match="would never learn to stop"):
        encode_conversation(chat("a", "b", "c", "d"), tokenizers["no_eos"])
    with pytest.raises(TemplateError) as caught:
        encode_conversation(chat("a", "b"), tokenizers["no_eos"])
    assert caught.value.message == (
        "the chat template writes no end-of-turn token after an assistant's answer,"
        " so the model would never learn to stop"
    )
    assert caught.value.hint == (
        "end the assistant's turn with {{ eos_token }} in a template of your own, as"
        " `model.chat_template: FILE`"
    )


def test_answers_are_found_where_a_template_rewrites_earlier_turns(tokenizers):
    tokenizer = tokenizers["thinking"]
    single = encode_conversation(chat("a", "one"), tokenizer)
    assert trained(single, tokenizer) == "thought one<|endoftext|>"
    several = encode_conversation(chat("a", "one", "b", "two"), tokenizer)
    assert trained(several, tokenizer) == "one<|endoftext|>thought two<|endoftext|>"


def test_a_row_that_the_template_refuses_leaves_the_others(tokenizers, tmp_path):
    template = "{{ raise_exception('no system role') if messages[0]['role'] == 'system' }}"
    tokenizer = tiny.tiny_tokenizer(tmp_path, template + tiny.CHAT_TEMPLATE)
    bad = [{"role": "system", "content": "be brief"}, *chat("a", "b")]
    good, refused = encode_conversations([chat("a", "b"), bad], tokenizer)
    assert trained(good, tokenizer) == "b<|endoftext|>"
    assert isinstance(refused, DataError)
    assert refused.message == "the chat template refuses the messages: no system role"


def test_an_answer_that_merges_with_the_prompt_is_parted_where_it_is_generated(tmp_path):
    template = UNMARKED.replace("'<|assistant|>\n'", "'<|assistant|>\n t'").replace(
        "{% if message['role'] == 'assistant' %}",
        "{% if message['role'] == 'assistant' %}{{ ' t' }}",
    )
    tokenizer = tiny.tiny_tokenizer(tmp_path, template)
    merged, apart = encode_conversations([chat("a", "he end"), chat("a", "! b")], tokenizer)
    assert trained(merged, tokenizer) == "he end<|endoftext|>"
    assert trained(apart, tokenizer) == "! b<|endoftext|>"
    prompt = encode_chats([chat("a")], tokenizer, is_prompt=True)[0]
    assert merged["input_ids"][: len(prompt)] == prompt
    (several,) = encode_conversations([chat("a", "he end", "b", "c")], tokenizer)
    assert isinstance(several, DataError)  # the second question sees both as one token
    assert several.message == "the answer's first characters merge with the prompt's last token"


def test_two_bos_tokens_are_seen(tokenizers):
    tokenizer = tokenizers["marked"]
    assert not has_double_bos([0, 0, 5], tokenizer)
    tokenizer.bos_token = "<|system|>"  # noqa: S105 - a token of text
    try:
        bos = tokenizer.bos_token_id
        assert has_double_bos([bos, bos, 5], tokenizer)
        assert not has_double_bos([bos, 5], tokenizer)
        assert not has_double_bos([bos], tokenizer)
    finally:
        tokenizer.bos_token = None


END_TOKENS = {
    "qwen2_5": "<|im_end|>",
    "qwen3": "<|im_end|>",
    "llama3": "<|eot_id|>",
    "gemma": "<end_of_turn>",
    "phi3": "<|end|>",
}


@pytest.mark.parametrize("name", END_TOKENS)
def test_real_templates_train_the_answer_up_to_its_end(tmp_path, name):
    tokenizer = with_template(tmp_path, name)
    single = trained(encode_conversation(chat("sort keys", "by name"), tokenizer), tokenizer)
    assert single.endswith(f"by name{END_TOKENS[name]}")  # phi3 closes the conversation too
    assert "sort keys" not in single
    turns = chat("a", "one", "b", "two")
    several = trained(encode_conversation(turns, tokenizer), tokenizer)
    thought = "<think>\n\n</think>\n\n" if name == "qwen3" else ""  # with the last answer alone
    assert several == f"one{END_TOKENS[name]}{thought}two{END_TOKENS[name]}"


@pytest.mark.parametrize("name", END_TOKENS)
def test_trls_training_templates_train_every_turn(tmp_path, name):
    tokenizer = with_template(tmp_path, f"{name}_training")
    encoded = encode_conversation(chat("a", "one", "b", "two"), tokenizer)
    assert f"two{END_TOKENS[name]}" in trained(encoded, tokenizer)
    assert trained(encoded, tokenizer).count(END_TOKENS[name]) == 2


def with_template(folder, name: str):
    from importlib.resources import files

    template = files("trl").joinpath("chat_templates", f"{name}.jinja").read_text("utf-8")
    tokenizer = tiny.tiny_tokenizer(folder, template)
    tokenizer.add_special_tokens({"additional_special_tokens": list(set(END_TOKENS.values()))})
    tokenizer.bos_token = "<|system|>"  # noqa: S105 - a token of text
    return tokenizer


def test_a_text_that_brings_its_own_bos_has_two(tmp_path):
    from tokenizers import processors

    tokenizer = tiny.tiny_tokenizer(tmp_path)
    tokenizer.bos_token = "<|system|>"  # noqa: S105 - a token of text
    bos = tokenizer.bos_token_id
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<|system|> $A", special_tokens=[("<|system|>", bos)]
    )
    plain, doubled = encode_texts(["read a file", "<|system|>read a file"], tokenizer)
    assert plain["input_ids"][0] == bos
    assert not has_double_bos(plain["input_ids"], tokenizer)
    assert has_double_bos(doubled["input_ids"], tokenizer)
