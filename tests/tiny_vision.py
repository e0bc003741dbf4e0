"""A tiny model that sees, in Gemma 3's shape, with the processor of a new model."""

from __future__ import annotations

import json
from pathlib import Path

CONFIG = {
    "model_type": "gemma3",
    "mm_tokens_per_image": 4,
    "text_config": {
        "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
        "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 16,
        "max_position_embeddings": 128, "sliding_window": 128,
    },
    "vision_config": {
        "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1,
        "num_attention_heads": 2, "image_size": 16, "patch_size": 4,
    },
}  # fmt: skip


def tiny_processor():
    """Make the processor of a new model, its tokenizer trained on a few words."""
    from peftkit.methods.vision_new import make_processor, train_tokenizer

    texts = ["What is drawn? red, top left", "blue, bottom right green yellow purple black"]
    tokenizer = train_tokenizer(texts, vocab_size=300, max_length=128)
    return make_processor(tokenizer, CONFIG)


def tiny_gemma3(folder: Path) -> Path:
    """Save the model with its processor; return the folder."""
    import torch
    from transformers import AutoModelForImageTextToText

    from peftkit.methods.vision_new import config_options
    from peftkit.models.new_model import new_config

    processor = tiny_processor()
    config = new_config({**CONFIG, **config_options(processor.tokenizer, CONFIG)})
    torch.manual_seed(0)
    model = AutoModelForImageTextToText.from_config(config)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def recipe_text(model: Path, *, adapter: str = "{lora: {r: 4, target_modules: all-linear}}") -> str:
    """Return a complete recipe over drawings."""
    return json.dumps(
        {
            "name": "seen",
            "model": {"path": str(model), "dtype": "float32"},
            "data": {
                "source": {"drawings": {"num_rows": 8, "side": 16}},
                "splits": {"train": "train", "test": "test"},
                "task": {"image_text": {}},
            },
            "adapter": "ADAPTER",
            "method": {"vision_sft": {"max_steps": 2, "per_device_train_batch_size": 4}},
            "evaluate": {"generation": {"max_new_tokens": 4}},
        }
    ).replace('"ADAPTER"', adapter)
