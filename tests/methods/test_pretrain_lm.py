"""Pretraining packs each token once, makes a usable tokenizer and learns by upstream's Trainer."""

from __future__ import annotations

from pathlib import Path

import pytest
import tiny

from peftkit.errors import DataError
from peftkit.methods.pretrain_lm import (
    END_OF_TEXT,
    PAD,
    SPECIAL_TOKENS,
    PretrainLM,
    pack,
    train_tokenizer,
)
from peftkit.plugins import Machine, Text, Training

TEXTS = [" ".join(tiny.WORDS[i:] + tiny.WORDS[:i]) for i in range(40)]


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(TEXTS, vocab_size=320, max_length=32)


def arguments(folder: Path, **options):
    from peftkit.methods.pretrain_lm import PretrainLMArguments

    settings = {"output_dir": str(folder), "max_length": 32, "use_cpu": True, "report_to": "none"}
    return PretrainLMArguments(**{**settings, "disable_tqdm": True, "seed": 3, **options})


def test_tokenizer_encodes_any_text_and_knows_its_special_tokens(tokenizer, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    for text in ("return the sum", "Gänse\t🪿 \n  x = 1\n", ""):
        assert loaded.decode(loaded(text)["input_ids"]) == text
    assert len(loaded) == 320
    assert loaded.convert_tokens_to_ids(list(SPECIAL_TOKENS)) == [0, 1, 2, 3, 4]
    assert (loaded.eos_token, loaded.pad_token, loaded.bos_token) == (END_OF_TEXT, PAD, None)
    assert loaded.model_max_length == 32
    assert loaded("sum")["input_ids"] == tokenizer("sum")["input_ids"]


def test_chat_template_trains_exactly_the_answers(tokenizer) -> None:
    chat = [
        {"role": "system", "content": "Be short."},
        {"role": "user", "content": " Who? "},
        {"role": "assistant", "content": "Geese.\n"},
        {"role": "user", "content": "When?"},
        {"role": "assistant", "content": "At night."},
    ]
    text = tokenizer.apply_chat_template(chat, tokenize=False)
    assert text == (
        "<|system|>\nBe short.\n<|user|>\nWho?\n<|assistant|>\nGeese.<|endoftext|>\n"
        "<|user|>\nWhen?\n<|assistant|>\nAt night.<|endoftext|>\n"
    )
    encoded = tokenizer.apply_chat_template(
        chat, return_dict=True, return_assistant_tokens_mask=True
    )
    ids, mask = encoded["input_ids"], encoded["assistant_masks"]
    trained = [token for token, is_trained in zip(ids, mask, strict=True) if is_trained]
    assert tokenizer.decode(trained) == "Geese.<|endoftext|>At night.<|endoftext|>"
    prompt = tokenizer.apply_chat_template(chat[:4], add_generation_prompt=True, return_dict=True)
    assert ids[: len(prompt["input_ids"])] == prompt["input_ids"]


def test_packing_keeps_every_token_in_order_but_the_last_partial_block() -> None:
    blocks = pack([[1, 2, 3], [], [4], [5, 6, 7, 8, 9]], max_length=4)
    assert blocks["input_ids"][:] == [[1, 2, 3, 4], [5, 6, 7, 8]]
    assert blocks["labels"][:] == blocks["input_ids"][:]
    with pytest.raises(DataError, match="hold 3 tokens, fewer than one block of 4"):
        pack([[1, 2, 3]], max_length=4)
    with pytest.raises(DataError, match="hold 0 tokens"):
        pack([], max_length=4)


def test_every_text_ends_and_every_token_is_a_label(tokenizer, tmp_path: Path) -> None:
    from datasets import Dataset

    method = PretrainLM(arguments(tmp_path))
    rows = [row for (row,) in method.encode([Text(text) for text in TEXTS], tokenizer)]
    assert all(row["input_ids"][-1] == tokenizer.eos_token_id for row in rows)
    blocks = method.arrange(Dataset.from_list(rows), tokenizer)
    joined = "".join(text + END_OF_TEXT for text in TEXTS)
    flat = [token for block in blocks["input_ids"][:] for token in block]
    assert joined.startswith(tokenizer.decode(flat))
    assert 0 <= len(tokenizer(joined)["input_ids"]) - len(flat) < 32


def test_arguments_are_found_by_name_and_survive_pickling(tmp_path: Path) -> None:
    import pickle

    from peftkit.methods import pretrain_lm

    made = arguments(tmp_path, max_length=64)
    assert type(made) is pretrain_lm.PretrainLMArguments
    assert pickle.loads(pickle.dumps(made)).max_length == 64  # noqa: S301 - our own bytes
    with pytest.raises(AttributeError, match="has no attribute 'PretrainArguments'"):
        pretrain_lm.PretrainArguments  # noqa: B018


def test_options_follow_the_machine_only_where_the_recipe_is_silent() -> None:
    cpu = Machine(
        device="cpu", supports_bfloat16=True, total_bytes=2**33, free_bytes=2**32, name="a CPU"
    )
    keys = decide({}, cpu)
    assert keys["use_cpu"] is True
    assert "bf16" not in keys
    assert "use_cpu" not in decide({"use_cpu": False}, cpu)
    gpu = Machine(
        device="cuda", supports_bfloat16=True, total_bytes=2**37, free_bytes=2**37, name="a GPU"
    )
    assert "use_cpu" not in decide({}, gpu)


def decide(options: dict, machine: Machine):
    chosen = PretrainLM.decide(options, dtype="float32", machine=machine)
    return {one.option: one.value for one in chosen if one.option not in options}


def test_training_learns_and_repeats_itself(tokenizer, tmp_path: Path) -> None:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1}
    config = LlamaConfig(
        **sizes, num_attention_heads=2, vocab_size=len(tokenizer), max_position_embeddings=32
    )

    def train(folder: Path) -> list[float]:
        method = PretrainLM(arguments(folder, max_steps=20, learning_rate=1e-2, logging_steps=1))
        rows = method.encode([Text(text) for text in TEXTS], tokenizer)
        blocks = pack([row["input_ids"] for (row,) in rows], max_length=32)
        torch.manual_seed(3)
        trainer = method.trainer(
            Training(LlamaForCausalLM(config), tokenizer, blocks, None, (), folder)
        )
        trainer.train()
        return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]

    losses = train(tmp_path / "a")
    assert losses[-1] < 0.7 * losses[0]
    assert losses == train(tmp_path / "b")
