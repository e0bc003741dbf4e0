"""A new model that sees, in the shape of Gemma 3 (arXiv 2503.19786): tokenizer and processor."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from peftkit.errors import UsageError

if TYPE_CHECKING:
    from transformers import (
        PreTrainedTokenizerBase,
        PreTrainedTokenizerFast,
        ProcessorMixin,
    )

SHAPE = "gemma3"
PAD, END = "<pad>", "<eos>"
TURN, TURN_END = "<start_of_turn>", "<end_of_turn>"
AROUND = {
    "boi_token": "<start_of_image>",
    "eoi_token": "<end_of_image>",
    "image_token": "<image_soft_token>",
}
"""What begins a picture, ends it, and stands for each of its parts."""
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<start_of_turn>' + ('model' if message['role'] == 'assistant' else message['role']) }}"
    "{{ '\n' }}"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}{{ '<start_of_image>' }}"
    "{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endif %}"
    "{{ '<end_of_turn>\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)


def train_tokenizer(
    texts: Iterable[str], *, vocab_size: int, max_length: int | None
) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE with the tokens that stand around and for pictures.

    Args:
        vocab_size: tokens in all, the special ones and the 256 bytes included.
        max_length: tokens of the model's context; None where it is unbounded.
    """
    from transformers import PreTrainedTokenizerFast

    from peftkit.methods.pretrain_lm import byte_level_bpe
    from peftkit.plugins import PICTURE

    special = (PAD, END, TURN, TURN_END, *AROUND.values())
    said = (text.replace(PICTURE, " ") for text in texts)
    return PreTrainedTokenizerFast(
        tokenizer_object=byte_level_bpe(said, vocab_size=vocab_size, special_tokens=special),
        eos_token=END,
        pad_token=PAD,
        additional_special_tokens=[TURN, TURN_END],
        extra_special_tokens=AROUND,
        chat_template=CHAT_TEMPLATE,
        model_max_length=max_length,
        clean_up_tokenization_spaces=False,
    )


def make_processor(tokenizer: PreTrainedTokenizerFast, config: Mapping[str, Any]) -> ProcessorMixin:
    """Make Gemma 3's processor, whose pictures are as large as the model's.

    Raises:
        UsageError: the model is of another shape.
    """
    from transformers import Gemma3ImageProcessorPil, Gemma3Processor

    _check_shape(config)
    side = int((config.get("vision_config") or {}).get("image_size", 224))
    pictures = Gemma3ImageProcessorPil(size={"height": side, "width": side})
    return Gemma3Processor(
        image_processor=pictures,
        tokenizer=tokenizer,
        chat_template=tokenizer.chat_template,
        image_seq_length=int(config.get("mm_tokens_per_image", 256)),
    )


def config_options(tokenizer: PreTrainedTokenizerBase, config: Mapping[str, Any]) -> dict[str, Any]:
    """Return which tokens stand for pictures, and the size of the vocabulary.

    Raises:
        UsageError: the model is of another shape.
    """
    _check_shape(config)
    ids = {name: tokenizer.convert_tokens_to_ids(token) for name, token in AROUND.items()}
    text = {
        **(config.get("text_config") or {}),
        "vocab_size": len(tokenizer),
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
    }
    return {
        "text_config": text,
        "boi_token_index": ids["boi_token"],
        "eoi_token_index": ids["eoi_token"],
        "image_token_index": ids["image_token"],
    }


def _check_shape(config: Mapping[str, Any]) -> None:
    if config.get("model_type") != SHAPE:
        raise UsageError(
            f"model.config.model_type: a new model that sees has the shape {SHAPE} here, not"
            f" {config.get('model_type')}",
            hint=f"model_type: {SHAPE}, or model.path for one that is trained",
        )
