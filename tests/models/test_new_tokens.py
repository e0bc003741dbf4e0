"""Tokens that a base has not read: their rows begin as the mean, are trained, and go everywhere."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import tiny
import torch
import training_fixture

from peftkit.errors import UsageError
from peftkit.models.base import load_base
from peftkit.models.tokenizer import expected_tokens, load_tokenizer, read_tokenizer
from peftkit.plugins import CAUSAL_LM
from peftkit.recipe.schema import Choice, ModelSection

TOKENS = ["<|im_start|>", "<|im_end|>"]
NUM_KNOWN = 383
"""What `tiny_tokenizer` comes to."""


@pytest.fixture(scope="module")
def bases(tmp_path_factory) -> dict[str, Path]:
    """Make bases with a row a token, head tied or not, and one with rows in reserve."""
    folder = tmp_path_factory.mktemp("bases")
    return {
        "tied": tiny.tiny_llama(folder / "tied", vocab_size=NUM_KNOWN),
        "untied": tiny.tiny_llama(
            folder / "untied", vocab_size=NUM_KNOWN, tie_word_embeddings=False
        ),
        "reserve": tiny.tiny_llama(folder / "reserve", tie_word_embeddings=False),
    }


def section(base: Path, **more) -> ModelSection:
    return ModelSection(path=str(base), **{"dtype": "float32", "add_tokens": TOKENS, **more})


@pytest.mark.parametrize("name", ["tied", "untied", "reserve"])
def test_new_rows_are_the_mean_of_the_trained_ones(name, bases) -> None:
    from transformers import AutoModelForCausalLM

    plain = AutoModelForCausalLM.from_pretrained(bases[name])
    base = load_base(section(bases[name]), kind=CAUSAL_LM)
    assert read_tokenizer(section(bases[name])).new.ids == (NUM_KNOWN, NUM_KNOWN + 1)
    num_rows = max(plain.config.vocab_size, NUM_KNOWN + 2)
    assert base.config.vocab_size == num_rows
    assert (base.lm_head.weight is base.model.embed_tokens.weight) == (name == "tied")
    for ours, theirs in (
        (base.model.embed_tokens, plain.model.embed_tokens),
        (base.lm_head, plain.lm_head),
    ):
        assert ours.weight.shape[0] == num_rows
        assert torch.equal(ours.weight[:NUM_KNOWN], theirs.weight[:NUM_KNOWN])
        mean = theirs.weight[:NUM_KNOWN].double().mean(0)
        for row in ours.weight[NUM_KNOWN : NUM_KNOWN + 2]:
            torch.testing.assert_close(row.double(), mean, atol=1e-7, rtol=1e-5)


def test_a_token_that_is_there_is_not_added_again(bases) -> None:
    model = section(bases["tied"], add_tokens=["<|user|>", "<new>"])
    with pytest.raises(UsageError) as caught:
        load_tokenizer(model, Path())
    assert "model.add_tokens: '<|user|>': the tokenizer of" in caught.value.message
    assert "has it already, as 3" in caught.value.message


def test_what_the_template_writes_is_special_and_other_tokens_are_text(bases) -> None:
    model = section(bases["tied"], add_tokens=[*TOKENS, "<word>"], chat_template="chatml")
    tokenizer = load_tokenizer(model, Path())
    added = tokenizer.added_tokens_decoder
    assert [added[NUM_KNOWN + at].special for at in range(3)] == [True, True, False]
    assert tokenizer.decode(tokenizer("a <word>")["input_ids"]) == "a <word>"


def test_special_tokens_take_a_token_that_is_there_or_a_new_one(bases) -> None:
    stated = {"eos_token": "<|user|>", "pad_token": "<|fill|>"}
    model = section(bases["tied"], add_tokens=[], special_tokens=stated)
    tokenizer = load_tokenizer(model, Path())
    assert (tokenizer.eos_token_id, tokenizer.pad_token_id) == (3, NUM_KNOWN)
    assert read_tokenizer(model).new.ids == (NUM_KNOWN,)


def test_a_tokenizer_of_another_place(bases, tmp_path) -> None:
    other = tiny.tiny_tokenizer(tmp_path / "other")
    other.add_tokens(["<more>"])
    other.save_pretrained(tmp_path / "other")
    at = Choice("path", {"path": str(tmp_path / "other")})
    model = section(bases["tied"], add_tokens=[], tokenizer=at)
    assert len(load_tokenizer(model, Path())) == NUM_KNOWN + 1
    assert read_tokenizer(model).new.ids == (NUM_KNOWN,)


def test_a_base_that_is_not_here_is_planned_with_a_row_for_each_token() -> None:
    from transformers import LlamaConfig

    found = expected_tokens(ModelSection(path="org/far", add_tokens=TOKENS), LlamaConfig())
    assert found.ids == (32000, 32001)


@pytest.mark.parametrize("name", ["tied", pytest.param("untied", marks=pytest.mark.slow)])
def test_a_run_s_rows_go_into_plain_peft_the_merge_and_a_resumed_run(name, bases, tmp_path) -> None:
    """ChatML on a base without its tokens, in a vocabulary that grows."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    from peftkit.merge import merge
    from peftkit.training.open_run import load_tuned, open_run

    rows = tiny.write_jsonl(tmp_path / "rows.jsonl", tiny.rows(12))
    model = {"path": str(bases[name]), "dtype": "float32", "chat_template": "chatml"}
    recipe = training_fixture.write_recipe(
        tmp_path / "r.yaml", bases[name], rows, model={**model, "add_tokens": TOKENS},
        sft={"max_steps": 3, "learning_rate": 1e-2, "max_length": 200, "save_steps": 1,
             "per_device_train_batch_size": 2},
    )  # fmt: skip
    run = training_fixture.train(recipe, tmp_path / "run")
    config = json.loads((run.adapter / "adapter_config.json").read_text())
    assert set(config["trainable_token_indices"]) == (
        {"embed_tokens"} if name == "tied" else {"embed_tokens", "lm_head"}
    )
    tuned = load_tuned(open_run(run))
    ids = torch.tensor([[NUM_KNOWN, 40, 50, NUM_KNOWN + 1, 60]])
    with torch.no_grad():
        ours = tuned(input_ids=ids).logits
    plain = AutoModelForCausalLM.from_pretrained(bases[name], dtype=torch.float32)
    start = plain.get_input_embeddings().weight.mean(0)
    plain.resize_token_embeddings(NUM_KNOWN + 2)
    plain = PeftModel.from_pretrained(plain, run.adapter)
    assert "resize_token_embeddings(385)" in (run.adapter / "README.md").read_text()
    with torch.no_grad():
        torch.testing.assert_close(plain.eval()(input_ids=ids).logits, ours)
    assert not torch.allclose(plain.get_input_embeddings().weight[NUM_KNOWN], start, atol=1e-4)
    merge(run.path, out=tmp_path / "merged")
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    assert merged.config.vocab_size == NUM_KNOWN + 2
    with torch.no_grad():
        torch.testing.assert_close(merged(input_ids=ids).logits, ours, atol=1e-5, rtol=1e-4)
    digest = training_fixture.sha256(run)
    training_fixture.cut_back(run, step=2)
    assert training_fixture.sha256(training_fixture.train(recipe, tmp_path / "run")) == digest
