"""One tiny model of every encoder-decoder family that transformers trains on texts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import tiny_heads

IDS = {"bos_token_id": 0, "pad_token_id": 1, "eos_token_id": 0}
BART = {
    **IDS, "decoder_start_token_id": 0, "vocab_size": 512, "d_model": 32, "encoder_layers": 2,
    "decoder_layers": 2, "encoder_attention_heads": 4, "decoder_attention_heads": 4,
    "encoder_ffn_dim": 64, "decoder_ffn_dim": 64, "max_position_embeddings": 128,
    "forced_eos_token_id": None, "init_std": 0.1,
}  # fmt: skip
T5 = {key: value for key, value in tiny_heads.T5.items() if key != "model_type"}
GEMMA = {
    "vocab_size": 512, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8, "pad_token_id": 1,
    "max_position_embeddings": 128, "eos_token_id": 0, "bos_token_id": 0,
}  # fmt: skip
SEAMLESS = {
    **{key: value for key, value in BART.items() if key not in ("d_model", "init_std")},
    "hidden_size": 32, "speech_encoder_layers": 1, "speech_encoder_attention_heads": 4,
    "speech_encoder_intermediate_size": 64,
}  # fmt: skip
EYE = {
    "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2,
    "image_size": 28, "patch_size": 14,
}  # fmt: skip
FAMILIES: dict[str, dict[str, Any]] = {
    "bart": BART,
    "bigbird_pegasus": {**BART, "attention_type": "original_full"},
    "blenderbot": BART,
    "blenderbot-small": BART,
    "fsmt": {
        **BART, "langs": ["en", "de"], "src_vocab_size": 512, "tgt_vocab_size": 512,
        "decoder": {"vocab_size": 512},
    },
    "led": {
        **BART, "max_encoder_position_embeddings": 128, "max_decoder_position_embeddings": 128,
        "attention_window": 8,
    },
    "longt5": {**T5, "encoder_attention_type": "local", "local_radius": 7},
    "m2m_100": BART,
    "marian": {**BART, "decoder_start_token_id": 1, "decoder_vocab_size": 512},
    "mbart": BART,
    "mt5": T5,
    "mvp": BART,
    "nllb-moe": {**BART, "num_experts": 4, "encoder_sparse_step": 2, "decoder_sparse_step": 2},
    "pegasus": {**BART, "decoder_start_token_id": 1},
    "pegasus_x": {**BART, "decoder_start_token_id": 1, "block_size": 16, "num_global_tokens": 4},
    "plbart": BART,
    "switch_transformers": {**T5, "num_experts": 4, "num_sparse_encoder_layers": 1,
                            "num_sparse_decoder_layers": 1, "num_decoder_layers": 2},
    "t5": T5,
    "encoder-decoder": {
        **IDS, "decoder_start_token_id": 0, "vocab_size": 512, "encoder": tiny_heads.BERT,
        "decoder": {**tiny_heads.BERT, "is_decoder": True, "add_cross_attention": True},
    },
    "seamless_m4t": SEAMLESS,
    "seamless_m4t_v2": SEAMLESS,
    "t5gemma2": {
        "encoder": {"text_config": {**GEMMA, "sliding_window": 16}, "vision_config": EYE},
        "decoder": {**GEMMA, "sliding_window": 16},
    },
    "t5gemma": {"encoder": GEMMA, "decoder": GEMMA, "vocab_size": 512},
    "umt5": T5,
}  # fmt: skip


def save(folder: Path, model_type: str) -> Path:
    """Save a family's tiny model with random weights and a tokenizer beside it."""
    import torch
    import transformers

    tiny_heads.closed_tokenizer(folder)
    config = transformers.AutoConfig.for_model(model_type, **FAMILIES[model_type])
    torch.manual_seed(0)
    transformers.AutoModelForSeq2SeqLM.from_config(config).save_pretrained(folder)
    return folder
