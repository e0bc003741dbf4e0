"""Tiny real models and tokenizers, built from configs, that the tests save to folders."""

from __future__ import annotations

import json
from pathlib import Path

WORDS = (
    "return the sum of two numbers and raise an error when a value is missing ; "
    "read a file from disk into an array ; write rows to a table ; sort keys by name ; "
    "compute the mean over an axis ; open a connection to a server and close it"
).split()

CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|' + message['role'] + '|>\n' }}"
    "{% if message['role'] == 'assistant' %}"
    "{% generation %}{{ message['content'] + '<|endoftext|>' }}{% endgeneration %}"
    "{% else %}{{ message['content'] + '<|endoftext|>' }}{% endif %}"
    "{{ '\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}"
)


def tiny_tokenizer(folder: Path, chat_template: str | None = CHAT_TEMPLATE):
    """Train and save a byte-level BPE tokenizer of 512 tokens with a chat template."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    specials = ["<|endoftext|>", "<|pad|>", "<|system|>", "<|user|>", "<|assistant|>"]
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=512,
        special_tokens=specials,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator([" ".join(WORDS)] * 4, trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=bpe, eos_token="<|endoftext|>", pad_token="<|pad|>"
    )
    tokenizer.chat_template = chat_template
    tokenizer.save_pretrained(folder)
    return tokenizer


def tiny_llama(folder: Path, *, seed: int = 0, **config):
    """Save a 2-layer Llama of hidden size 64 with `tiny_tokenizer` beside it; return the folder."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = tiny_tokenizer(folder)
    torch.manual_seed(seed)
    settings = {
        "vocab_size": 512,
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 256,
        "tie_word_embeddings": True,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": None,
    }
    model = LlamaForCausalLM(LlamaConfig(**{**settings, **config}))
    model.save_pretrained(folder)
    return folder


def rows(num_rows: int, *, seed: int = 0) -> list[dict[str, str]]:
    """Make distinct document/summary rows of 8 to 40 words."""
    import random

    source = random.Random(seed)
    made = []
    for index in range(num_rows):
        body = [source.choice(WORDS) for _ in range(source.randint(8, 40))]
        made.append({"document": f"{index} " + " ".join(body), "summary": " ".join(body[:5]) + "."})
    return made


def write_jsonl(file: Path, records: list[dict]) -> Path:
    """Write records as JSON lines; return the file."""
    file.write_text("".join(json.dumps(r) + "\n" for r in records), encoding="utf-8")
    return file


def recipe_text(model: Path, data: Path, *, name: str = "tiny", sft: str = "") -> str:
    """Return a complete recipe for a tiny model and a JSONL file, one optimizer step a batch."""
    return f"""name: {name}
model:
  path: {model}
  dtype: float32
data:
  source: {{json: {{files: {{train: {data}, test: {data}}}}}}}
  splits: {{train: train, test: test}}
  task: {{summarize: {{document: document, summary: summary}}}}
adapter:
  lora: {{r: 4, lora_alpha: 8, target_modules: all-linear}}
method:
  sft:
    learning_rate: 1.0e-3
    max_steps: 4
    per_device_train_batch_size: 2
    max_length: 128
    {sft}
evaluate: {{split: test, limit: 4}}
"""
