"""One tiny model of each architecture that the exporters know, with a tokenizer beside it."""

from __future__ import annotations

from pathlib import Path

import tiny

SIZES = {
    "vocab_size": 512,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "max_position_embeddings": 128,
    "bos_token_id": None,
    "eos_token_id": 0,
    "pad_token_id": 1,
}
GPT2 = {
    "vocab_size": 512, "n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 128,
    "bos_token_id": 0, "eos_token_id": 0,
}  # fmt: skip
LLAMA3_ROPE = {
    "rope_type": "llama3", "rope_theta": 10000.0, "factor": 8.0, "low_freq_factor": 1.0,
    "high_freq_factor": 4.0, "original_max_position_embeddings": 32,
}  # fmt: skip
FAMILIES = {
    "llama": ("LlamaForCausalLM", SIZES),
    "llama-untied-biased": (
        "LlamaForCausalLM",
        {**SIZES, "tie_word_embeddings": False, "attention_bias": True, "mlp_bias": True},
    ),
    "llama-3-rope": ("LlamaForCausalLM", {**SIZES, "rope_parameters": LLAMA3_ROPE}),
    "mistral": ("MistralForCausalLM", {**SIZES, "sliding_window": None}),
    "qwen2": ("Qwen2ForCausalLM", {k: v for k, v in SIZES.items() if k != "head_dim"}),
    "qwen3": ("Qwen3ForCausalLM", {**SIZES, "tie_word_embeddings": True}),
    "gemma": ("GemmaForCausalLM", SIZES),
    "gemma2": (
        "Gemma2ForCausalLM", {**SIZES, "query_pre_attn_scalar": 32, "sliding_window": 32},
    ),
    "gemma3": (
        "Gemma3ForCausalLM",
        {**SIZES, "num_hidden_layers": 7, "query_pre_attn_scalar": 32, "sliding_window": 32},
    ),
    "gpt2": ("GPT2LMHeadModel", GPT2),
}  # fmt: skip


def save(name: str, folder: Path, *, seed: int = 0, **config) -> Path:
    """Save a model of a family, every parameter random, norms and biases included."""
    import torch
    import transformers

    architecture, settings = FAMILIES[name]
    tiny.tiny_tokenizer(folder)
    torch.manual_seed(seed)
    cls = getattr(transformers, architecture)
    model = cls(cls.config_class(**{**settings, **config}))
    randomize(model)
    model.save_pretrained(folder)
    return folder


def randomize(model) -> None:
    """Move norms and biases off the ones and zeros that would hide a mistake."""
    import torch

    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * (0.3 if parameter.ndim == 1 else 0.05))


def save_bert(folder: Path, *, lowercase: bool = True, architecture: str = "BertModel") -> Path:
    """Save a tiny BERT with a WordPiece tokenizer of its own."""
    import torch
    import transformers
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
    from tokenizers.processors import TemplateProcessing

    specials = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    piece = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    piece.normalizer = normalizers.BertNormalizer(lowercase=lowercase)
    piece.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    piece.decoder = decoders.WordPiece()
    trainer = trainers.WordPieceTrainer(
        vocab_size=300, special_tokens=specials, show_progress=False
    )
    piece.train_from_iterator([" ".join(tiny.WORDS), "Return Naïve Café"] * 3, trainer)
    piece.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    names = {"pad": "[PAD]", "unk": "[UNK]", "cls": "[CLS]", "sep": "[SEP]", "mask": "[MASK]"}
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=piece, **{f"{name}_token": token for name, token in names.items()}
    )
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=320, hidden_size=64, num_hidden_layers=2, num_attention_heads=4,
        intermediate_size=96, max_position_embeddings=64,
    )  # fmt: skip
    model = getattr(transformers, architecture)(config)
    randomize(model)
    model.save_pretrained(folder)
    return folder
