"""Tiny encoder-decoders and classifiers, their rows, and recipes that train them for real."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import tiny
import training_fixture

from peftkit.rundir.paths import RunDir

LORA = {"r": 4, "lora_alpha": 8, "target_modules": "all-linear", "lora_dropout": 0.1}
SEQ2SEQ = {
    "learning_rate": 1e-2, "max_steps": 4, "per_device_train_batch_size": 2, "logging_steps": 1,
    "max_source_length": 96, "max_target_length": 24, "save_steps": 1, "save_total_limit": 4,
    "seed": 3,
}  # fmt: skip
CLASSIFY = {
    "learning_rate": 1e-2, "max_steps": 4, "per_device_train_batch_size": 4, "logging_steps": 1,
    "max_length": 48, "save_steps": 1, "save_total_limit": 4, "seed": 3,
}  # fmt: skip
T5 = {
    "model_type": "t5", "vocab_size": 512, "d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2,
    "num_heads": 4, "pad_token_id": 1, "eos_token_id": 0, "decoder_start_token_id": 1,
}  # fmt: skip
BART = {
    "model_type": "bart", "vocab_size": 512, "d_model": 32, "encoder_layers": 2,
    "decoder_layers": 2, "encoder_attention_heads": 4, "decoder_attention_heads": 4,
    "encoder_ffn_dim": 64, "decoder_ffn_dim": 64, "max_position_embeddings": 128,
    "bos_token_id": 0, "pad_token_id": 1, "eos_token_id": 0, "decoder_start_token_id": 0,
}  # fmt: skip
BERT = {
    "model_type": "bert", "vocab_size": 512, "hidden_size": 64, "num_hidden_layers": 2,
    "num_attention_heads": 4, "intermediate_size": 128, "max_position_embeddings": 64,
    "pad_token_id": 1,
}  # fmt: skip


def closed_tokenizer(folder: Path) -> Any:
    """Save a tokenizer without a chat template that ends a text, and parts two, by itself."""
    from tokenizers.processors import TemplateProcessing

    tokenizer = tiny.tiny_tokenizer(folder, chat_template=None)
    end = "<|endoftext|>"
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single=f"$A {end}", pair=f"$A {end} $B:1 {end}:1", special_tokens=[(end, 0)]
    )
    names = ["input_ids", "token_type_ids", "attention_mask"]
    tokenizer.model_input_names = tokenizer.init_kwargs["model_input_names"] = names
    tokenizer.save_pretrained(folder)
    return tokenizer


def save(folder: Path, config: dict[str, Any], auto_class: str) -> Path:
    """Save a model with random weights and `closed_tokenizer` beside it; return the folder."""
    import torch
    import transformers

    closed_tokenizer(folder)
    options = {key: value for key, value in config.items() if key != "model_type"}
    built = transformers.AutoConfig.for_model(
        config["model_type"], **options, **({"init_std": 0.1} if "d_model" in options else {})
    )
    torch.manual_seed(0)
    getattr(transformers, auto_class).from_config(built).save_pretrained(folder)
    return folder


def pairs(num_rows: int) -> list[dict[str, str]]:
    """Make pairs of texts, half of them `same`: the second begins as the first does."""
    source = random.Random(0)
    rows = []
    for number in range(num_rows):
        first = [source.choice(tiny.WORDS) for _ in range(source.randint(4, 12))]
        is_same = bool(number % 2)
        second = first[:3] if is_same else [source.choice(tiny.WORDS) for _ in range(3)]
        label = "same" if is_same else "other"
        rows.append({"text": " ".join([*first, str(number)]), "second": " ".join(second),
                     "label": label})  # fmt: skip
    return rows


def recipe(
    folder: Path,
    base: Path,
    rows: list[dict[str, Any]],
    method: dict[str, Any],
    task: dict[str, Any],
    **sections: Any,
) -> Path:
    """Write a recipe that trains on rows and is scored on the same."""
    file = tiny.write_jsonl(folder / "rows.jsonl", rows)
    generates = {"generation": {"max_new_tokens": 8}} if "seq2seq" in method else {}
    document = {
        "name": "small",
        "model": {"path": str(base), "dtype": "float32"},
        "data": {
            "source": {"json": {"files": {"train": str(file), "test": str(file)}}},
            "splits": {"train": "train", "test": "test"},
            "task": task,
        },
        "adapter": {"lora": LORA},
        "method": method,
        "evaluate": {"split": "test", "limit": 6, **generates},
        **sections,
    }
    made = folder / "recipe.json"
    made.write_text(json.dumps(document, indent=1), encoding="utf-8")
    return made


def train(folder: Path, made: Path, *overrides: str) -> RunDir:
    """Run a recipe without a word."""
    return training_fixture.train(made, folder, *overrides)


def assert_resumes(run: RunDir, made: Path, folder: Path, *overrides: str) -> None:
    """Cut a copy of a run back to its second step, go on, and compare to the bit."""
    import shutil

    part = RunDir(folder)
    shutil.copytree(run.path, part.path)
    training_fixture.cut_back(part, step=2)
    training_fixture.train(made, part.path, *overrides)
    assert training_fixture.losses(part) == training_fixture.losses(run)
    assert training_fixture.sha256(part) == training_fixture.sha256(run)


QUESTION_ANSWERING = {
    "learning_rate": 1e-2, "max_steps": 4, "per_device_train_batch_size": 4, "logging_steps": 1,
    "max_length": 32, "doc_stride": 8, "max_answer_length": 6, "save_steps": 1,
    "save_total_limit": 4, "seed": 3,
}  # fmt: skip


def questions(num_rows: int, *, unanswerable: bool = False) -> list[dict[str, Any]]:
    """Make rows of SQuAD's shape whose contexts are longer than a window of 32 tokens."""
    source = random.Random(0)
    rows = []
    for number in range(num_rows):
        words = [str(number), *(source.choice(tiny.WORDS) for _ in range(40))]
        at = source.randint(1, 38)
        start = len(" ".join(words[:at])) + 1
        answers = {"text": [" ".join(words[at : at + 2])], "answer_start": [start]}
        if unanswerable and number % 3 == 0:
            answers = {"text": [], "answer_start": []}
        rows.append({"id": str(number), "question": f"what follows {words[at - 1]}",
                     "context": " ".join(words), "answers": answers})  # fmt: skip
    return rows
