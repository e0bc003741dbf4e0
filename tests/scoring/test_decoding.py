"""Decoding without work for nothing gives what plain transformers gives, row by row."""

from __future__ import annotations

import pytest
import tiny_families

from peftkit.scoring import at_once, decoding, generation

PROMPTS = tuple(tuple(range(5, 5 + length)) for length in (31, 30, 17, 9, 9, 2, 1))
"""Longest first, as they are answered."""
SERVED = ("qwen3", "gpt2", "llama-untied-biased", "llama-3-rope", "mistral", "qwen2", "gemma")
QUICK = ("qwen3", "gpt2")


class Reader:
    """Stand for a tokenizer where tokens are looked at and no text."""

    pad_token_id, bos_token_id = 1, None


def model_of(name: str):
    import torch
    import transformers

    architecture, settings = tiny_families.FAMILIES[name]
    torch.manual_seed(0)
    cls = getattr(transformers, architecture)
    model = cls(cls.config_class(**settings)).eval()
    for parameter in model.parameters():  # sharp, so that float noise decides nothing
        parameter.data.mul_(4)
    return model


def alone(model, prompt, config):
    """Answer with plain transformers, without padding."""
    import torch

    ids = torch.tensor([prompt])
    made = model.generate(ids, attention_mask=torch.ones_like(ids), generation_config=config)
    return made[0, len(prompt) :].tolist()


def cut(ids, stops):
    end = next((at for at, token in enumerate(ids) if token in stops), None)
    return (ids, False) if end is None else (ids[:end], True)


def ends_of(model):
    """Choose stops that end some answers early and others late."""
    config = generation.generation_config({"max_new_tokens": 12}, Reader(), stop_ids=())
    free = [alone(model, prompt, config) for prompt in PROMPTS]
    return free, tuple({free[0][2], free[3][0], free[5][7]} - {free[1][0]})


@pytest.mark.parametrize(
    "name",
    [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in SERVED],
)
@pytest.mark.parametrize("num_tokens", [1024, 40])
def test_answers_are_those_of_plain_transformers_row_by_row(name, num_tokens, monkeypatch):
    monkeypatch.setitem(at_once._TOKENS, "cpu", num_tokens)
    model = model_of(name)
    free, stops = ends_of(model)
    config = generation.generation_config({"max_new_tokens": 12}, Reader(), stop_ids=stops)
    assert decoding.why_not(model, config) == ""
    found = generation._generate(model, PROMPTS, config, tokenizer=Reader())
    assert found == [cut(ids, stops) for ids in free]
    assert len({len(ids) for ids, _ in found}) > 1, "rows leave the batch at different steps"


@pytest.mark.parametrize(
    "options",
    [
        {"do_sample": True, "temperature": 1.5},
        {"repetition_penalty": 1.7, "no_repeat_ngram_size": 2, "min_new_tokens": 4},
    ],
    ids=["sampled", "processed"],
)
def test_draws_and_processors_see_what_they_see_in_transformers_loop(options, monkeypatch):
    import torch

    model = model_of("qwen3")
    _, stops = ends_of(model)
    given = {"max_new_tokens": 12, **options}
    config = generation.generation_config(given, Reader(), stop_ids=stops)
    found = []
    for loop in (decoding.loop_for, lambda *_: {}):
        monkeypatch.setattr(decoding, "loop_for", loop)
        torch.manual_seed(5)
        found.append(generation._generate(model, PROMPTS, config, tokenizer=Reader()))
    assert found[0] == found[1]


def test_finished_rows_leave_the_batch_and_prompts_are_hardly_padded(monkeypatch):
    model = model_of("qwen3")
    _, stops = ends_of(model)
    monkeypatch.setitem(at_once._TOKENS, "cpu", 64)
    sizes: list[tuple[int, ...]] = []
    model.model.embed_tokens.register_forward_hook(
        lambda _, inputs, __: sizes.append(tuple(inputs[0].shape))
    )
    config = generation.generation_config({"max_new_tokens": 12}, Reader(), stop_ids=stops)
    found = generation._generate(model, PROMPTS, config, tokenizer=Reader())
    assert sizes[:2] == [(2, 31), (3, 17)]
    rows = [sum(len(ids) > step for ids, _ in found) for step in range(12)]
    steps = [size[0] for size in sizes if size[1] == 1]
    assert steps[-11:] == [num for num in rows if num][: len(steps[-11:])]


@pytest.mark.parametrize(
    ("name", "options", "reason"),
    [
        ("qwen3", {"num_beams": 2}, "several answers are weighed at a time"),
        ("qwen3", {"use_cache": False}, "use_cache is false"),
        ("qwen3", {"cache_implementation": "static"}, "it knows no cache_implementation"),
        ("openai-gpt", {}, "the model's cache is its own"),
        ("gemma2", {}, "some layers keep other than the keys and values of all tokens"),
    ],
)
def test_what_it_cannot_answer_is_left_to_transformers(name, options, reason):
    import transformers

    if name == "openai-gpt":
        sizes = transformers.OpenAIGPTConfig(n_embd=32, n_layer=1, n_head=2, vocab_size=512)
        model = transformers.OpenAIGPTLMHeadModel(sizes)
    else:
        model = model_of(name)
    config = generation.generation_config(options, Reader(), stop_ids=(7,))
    assert decoding.why_not(model, config) == reason
    assert decoding.loop_for(model, config) == {}
