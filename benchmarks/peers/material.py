"""The model and the rows that every peer trains: random, from a seed."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path
from typing import Any

SIZES: dict[str, dict[str, Any]] = {
    "5M": {
        "hidden_size": 256, "intermediate_size": 768, "num_hidden_layers": 5,
        "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 4096,
    },
    "80M": {
        "hidden_size": 768, "intermediate_size": 2048, "num_hidden_layers": 10,
        "num_attention_heads": 12, "num_key_value_heads": 4, "vocab_size": 16384,
    },
}  # fmt: skip
"""Llamas with a head tied to their embeddings."""
SIGMAS = {"even": 0.3, "uneven": 0.8}
"""How far lengths scatter: log-normal about the median."""
MEDIAN_LENGTH = 150
MAX_LENGTH = 2048
TRAINED_SHARE = 8
"""One token in so many is trained, at the end of its row."""
END = 1
"""The token that ends every row; 0 is for padding."""
TEMPLATE = (
    "{% for message in messages %}{% if message['role'] == 'assistant' %} "
    "{% generation %}{{ message['content'] }}{{ eos_token }}{% endgeneration %}"
    "{% else %}{{ message['content'] }}{% endif %}{% endfor %}"
)
"""Joins a prompt and a completion into exactly the row's tokens, for who reads texts."""


def draw_rows(num_rows: int, sigma: float, vocab_size: int, seed: int = 1) -> list[dict[str, Any]]:
    """Draw rows of a small language: each token follows from the last but for one in four."""
    drawn = random.Random(seed)  # noqa: S311 - no secret
    follows = [drawn.randrange(2, vocab_size) for _ in range(vocab_size)]
    rows = []
    for _ in range(num_rows):
        length = round(math.exp(drawn.gauss(math.log(MEDIAN_LENGTH), sigma)))
        length = min(max(length, TRAINED_SHARE * 2), MAX_LENGTH)
        ids = [drawn.randrange(2, vocab_size)]
        while len(ids) < length - 1:
            ids.append(
                drawn.randrange(2, vocab_size) if drawn.random() < 0.25 else follows[ids[-1]]
            )
        rows.append({"ids": [*ids, END], "num_trained": max(length // TRAINED_SHARE, 2)})
    return rows


def write_rows(file: Path, rows: list[dict[str, Any]]) -> None:
    """Write rows as JSON lines."""
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def write_model(folder: Path, size: str, seed: int = 1) -> int:
    """Write a model and its tokenizer; return how many weights its products have, head and all."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    config = LlamaConfig(
        **SIZES[size], tie_word_embeddings=True, max_position_embeddings=MAX_LENGTH,
        bos_token_id=None, eos_token_id=END, pad_token_id=0,
    )  # fmt: skip
    model = LlamaForCausalLM(config)
    model.save_pretrained(folder)
    _write_tokenizer(folder, config.vocab_size)
    linears = [one for one in model.modules() if isinstance(one, torch.nn.Linear)]
    return sum(one.weight.numel() for one in linears)


def _write_tokenizer(folder: Path, vocab_size: int) -> None:
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import WhitespaceSplit
    from transformers import PreTrainedTokenizerFast

    words = {"<pad>": 0, "</s>": END} | {f"w{token}": token for token in range(2, vocab_size)}
    inner = Tokenizer(WordLevel(words, unk_token="<pad>"))  # noqa: S106 - a token of text
    inner.pre_tokenizer = WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=inner,
        pad_token="<pad>",  # noqa: S106 - a token of text
        eos_token="</s>",  # noqa: S106
    )
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(folder)
