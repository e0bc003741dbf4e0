"""Tiny bases and adapters of every kind, and plain peft in float64 as the reference for merging."""

from __future__ import annotations

import copy
import json
import warnings
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

SIZES = {
    "vocab_size": 48, "hidden_size": 32, "intermediate_size": 56, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 32,
    "bos_token_id": None, "eos_token_id": 0, "pad_token_id": 1,
}  # fmt: skip
MOE = {**SIZES, "moe_intermediate_size": 24, "num_experts_per_tok": 2}
BASES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("LlamaForCausalLM", {**SIZES, "tie_word_embeddings": False}),
    "llama-tied": ("LlamaForCausalLM", {**SIZES, "tie_word_embeddings": True}),
    "llama-biased": (
        "LlamaForCausalLM", {**SIZES, "attention_bias": True, "mlp_bias": True},
    ),
    "qwen3": ("Qwen3ForCausalLM", {**SIZES, "head_dim": 16, "tie_word_embeddings": True}),
    "gpt2": (
        "GPT2LMHeadModel",
        {"vocab_size": 48, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 32,
         "bos_token_id": 0, "eos_token_id": 0},
    ),
    "bert": (
        "BertForSequenceClassification",
        {"vocab_size": 48, "hidden_size": 32, "intermediate_size": 56, "num_hidden_layers": 2,
         "num_attention_heads": 4, "max_position_embeddings": 32, "num_labels": 3},
    ),
    "t5": (
        "T5ForConditionalGeneration",
        {"vocab_size": 48, "d_model": 32, "d_kv": 12, "d_ff": 56, "num_layers": 2, "num_heads": 4,
         "decoder_start_token_id": 0},
    ),
    "whisper": (
        "WhisperForConditionalGeneration",
        {"vocab_size": 48, "d_model": 32, "encoder_layers": 1, "decoder_layers": 1,
         "encoder_attention_heads": 4, "decoder_attention_heads": 4, "encoder_ffn_dim": 56,
         "decoder_ffn_dim": 56, "num_mel_bins": 20, "max_source_positions": 16,
         "max_target_positions": 16, "pad_token_id": 0, "bos_token_id": 0, "eos_token_id": 0,
         "decoder_start_token_id": 0},
    ),
    "resnet": (
        "ResNetForImageClassification",
        {"num_channels": 3, "embedding_size": 8, "hidden_sizes": [8, 12], "depths": [1, 1],
         "num_labels": 3, "layer_type": "basic"},
    ),
    "mixtral": ("MixtralForCausalLM", {**SIZES, "num_local_experts": 5, "num_experts_per_tok": 2}),
    "qwen3_moe": ("Qwen3MoeForCausalLM", {**MOE, "num_experts": 6, "head_dim": 8}),
    "gpt_oss": (
        "GptOssForCausalLM",
        {**SIZES, "num_local_experts": 3, "num_experts_per_tok": 2, "head_dim": 8,
         "layer_types": ["full_attention", "full_attention"]},
    ),
}  # fmt: skip
NOTICES = (
    "`is_gradient_checkpointing` is deprecated",
    "Detected that the base layer has no bias term",
    "Failed to load the CUDA extension",
    "Setting boft_n_butterfly_factor to 1",
    "Setting `save_embedding_layers` to `True`",
    "Sparse invariant checks are implicitly disabled",
    "Unsupported layer type",
    "Model has `tie_word_embeddings=True`",
    "Model with `tie_word_embeddings=True`",
    "Input and output embeddings are no longer tied",
    "fan_in_fan_out is set to",
    "`lora_bias=True` was passed",
    "Adapter 'default'.*have invalid shape",
    "`init_lora_weights` is 'eva' but",
    "Invalid `oft_block_size`",
    "The following (rank|alpha)_pattern keys",
    "Specified to not (save|load) vera_A",
    "lora with eva initialization used",
)


def make_base(kind: str, folder: Path, *, dtype: str = "bfloat16", seed: int = 0) -> Path:
    """Save a tiny model with random weights, norms and biases included; return the folder."""
    import torch
    import transformers

    name, settings = BASES[kind]
    cls = getattr(transformers, name)
    torch.manual_seed(seed)
    model = cls(cls.config_class(**settings))
    for parameter in model.parameters():
        parameter.data = torch.randn_like(parameter) * 0.2
    model.tie_weights()
    model.to(getattr(torch, dtype)).save_pretrained(folder)
    return folder


def load(folder: Path, dtype: str = "float64") -> Any:
    """Load a folder with the class that its config names."""
    import torch

    model = copy.deepcopy(_loaded(folder))
    return model.to(getattr(torch, dtype)).eval()


@cache
def _loaded(folder: Path) -> Any:
    """Load a folder once in float64, which holds every smaller dtype exactly."""
    import torch
    import transformers
    from transformers.utils import logging

    logging.disable_progress_bar()
    name = json.loads((folder / "config.json").read_text())["architectures"][0]
    return getattr(transformers, name).from_pretrained(folder, dtype=torch.float64)


def make_adapter(
    base: Path, folder: Path, config: Any, *, dtype: str = "float32", seed: int = 1
) -> Path:
    """Attach an adapter with plain peft, make every number of it random, and save it."""
    import torch
    from peft import get_peft_model

    with warnings.catch_warnings():
        for notice in NOTICES:
            warnings.filterwarnings("ignore", notice)
        model = load(base, "float32")
        attached = get_peft_model(model, config)
        torch.manual_seed(seed)
        for parameter in attached.parameters():
            if parameter.requires_grad:
                scale = max(0.05, 0.5 * float(parameter.detach().std(correction=0)))
                parameter.data += scale * torch.randn_like(parameter)
        attached.to(getattr(torch, dtype))
        attached.save_pretrained(folder)
    return folder


def reference(base: Path, adapter: Path, out: Path, *, dtype: str = "float64") -> Path:
    """Merge with plain peft in float64 and let transformers write the float64 result."""
    import torch
    from peft import PeftModel

    with warnings.catch_warnings():
        for notice in NOTICES:
            warnings.filterwarnings("ignore", notice)
        attached = PeftModel.from_pretrained(load(base, dtype), adapter, torch_device="cpu")
        attached.to(torch.float64)
        merged = attached.merge_and_unload()
        merged.save_pretrained(out)
    return out


def tensors(folder: Path) -> dict[str, Any]:
    """Read every tensor of a folder's weights as torch has it."""
    from safetensors.torch import load_file

    found: dict[str, Any] = {}
    for file in sorted(folder.glob("*.safetensors")):
        found |= load_file(file)
    return found


def nearest(values: np.ndarray, dtype: str) -> np.ndarray:
    """Round float64 to the nearest bfloat16 or float16, ties to even, by measuring distances.

    Slow and independent of the package: the two neighbours are made from the float32 that lies
    below in size, and the nearer one is taken.
    """
    bias, bits = {"bfloat16": (127, 7), "float16": (15, 10)}[dtype]
    sign = np.signbit(values)
    size = np.abs(values)
    with np.errstate(divide="ignore"):
        exponent = np.floor(np.log2(np.where(size > 0, size, 1.0)))
    exponent = np.where(np.ldexp(1.0, exponent.astype(int)) > size, exponent - 1, exponent)
    exponent = np.maximum(exponent, 1 - bias)  # subnormal numbers have the smallest's step
    step = np.ldexp(1.0, (exponent - bits).astype(int))
    count = size / step
    low = np.floor(count)
    rest = count - low
    up = (rest > 0.5) | ((rest == 0.5) & (low % 2 == 1))
    return np.where(sign, -1.0, 1.0) * (low + up) * step
