"""The tiny model and the rows that every tool reads, each in the shape that it wants."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

SPECIAL = (
    "<|endoftext|>", "<|pad|>", "<|im_start|>", "<|im_end|>", "<|begin_of_text|>",
    "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>",
)  # fmt: skip
NUM_ROWS = 48
INFO = {
    "alpaca": {"file_name": "pairs/alpaca.jsonl"},
    "sharegpt": {
        "file_name": "chats/sharegpt.jsonl", "formatting": "sharegpt",
        "columns": {"messages": "conversations"},
    },
    "text": {"file_name": "texts/text.jsonl", "columns": {"prompt": "text"}},
}  # fmt: skip
"""LLaMA-Factory's `dataset_info.json`."""


def write(folder: Path, sample: Path) -> None:
    """Write a model and its rows: those of a sample of documents and summaries, said otherwise."""
    texts = [json.loads(line) for line in sample.open(encoding="utf-8")][:NUM_ROWS]
    _write_model(folder / "model", [text["document"] for text in texts])
    pairs = [
        _pair(one["document"][:200].strip(), one["summary"], at) for at, one in enumerate(texts)
    ]
    said = [
        _said(one["document"][:120].strip(), one["summary"], at) for at, one in enumerate(texts)
    ]
    names = {"user": "human", "assistant": "gpt", "system": "system"}
    _write(folder / "pairs" / "alpaca.jsonl", pairs)
    _write(folder / "prompts" / "train.jsonl", map(_as_prompt, pairs))
    _write(folder / "messages" / "train.jsonl", ({"messages": one} for one in said))
    _write(folder / "chats" / "sharegpt.jsonl", (
        {"conversations": [{"from": names[t["role"]], "value": t["content"]} for t in one]}
        for one in said
    ))  # fmt: skip
    _write(folder / "texts" / "text.jsonl", ({"text": one["document"]} for one in texts))
    (folder / "dataset_info.json").write_text(json.dumps(INFO), encoding="utf-8")


def _pair(document: str, summary: str, at: int) -> dict[str, str]:
    """Say a document as Alpaca's rows, some without an input."""
    given = "" if at % 3 == 0 else document
    return {"instruction": "Summarize it.", "input": given, "output": summary}


def _as_prompt(pair: Mapping[str, str]) -> dict[str, str]:
    prompt = f"{pair['instruction']} {pair['input']}".strip()
    return {"prompt": f"{prompt}\n", "completion": pair["output"]}


def _said(document: str, summary: str, at: int) -> list[dict[str, str]]:
    """Say a document as a conversation: of one or two answers, some under a system message."""
    turns = [document, summary, "And shorter?", summary[:40].strip()][: 2 if at % 2 else 4]
    roles = ("user", "assistant") * 2
    said = [{"role": role, "content": text} for role, text in zip(roles, turns, strict=False)]
    return [{"role": "system", "content": "Be brief."}, *said] if at % 4 == 0 else said


def _write(file: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    file.parent.mkdir(exist_ok=True)
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def _write_model(folder: Path, texts: list[str]) -> None:
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    from peftkit.embedded.named_templates import named_templates

    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    made.train_from_iterator(texts, trainers.BpeTrainer(
        vocab_size=1024, special_tokens=list(SPECIAL), initial_alphabet=alphabet,
        show_progress=False,
    ))  # fmt: skip
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=made,
        eos_token=SPECIAL[0],
        pad_token=SPECIAL[1],
        additional_special_tokens=list(SPECIAL[2:]),
    )
    tokenizer.chat_template = named_templates()["chatml"].source
    torch.manual_seed(1)
    model = LlamaForCausalLM(LlamaConfig(
        vocab_size=1024, hidden_size=64, intermediate_size=128, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=512,
        tie_word_embeddings=False, bos_token_id=None, eos_token_id=0, pad_token_id=1,
    ))  # fmt: skip
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
