"""A small model of every family that the installed transformers has, made from its own config."""

from __future__ import annotations

import dataclasses
import inspect
from typing import Any

SIZES: dict[str, Any] = {
    "vocab_size": 512, "pad_token_id": 1, "eos_token_id": 0, "bos_token_id": 0,
    "hidden_size": 32, "d_model": 32, "n_embd": 32, "dim": 32, "emb_dim": 32,
    "embedding_size": 32, "intermediate_size": 64, "d_ff": 64, "ffn_dim": 64, "hidden_dim": 64,
    "n_inner": 64, "dff": 64, "moe_intermediate_size": 16, "shared_expert_intermediate_size": 16,
    "moe_shared_expert_intermediate_size": 16, "dim_ff": 64, "encoder_ffn_dim": 64,
    "decoder_ffn_dim": 64, "num_hidden_layers": 2, "n_layer": 2, "n_layers": 2, "num_layers": 2,
    "encoder_layers": 2, "decoder_layers": 2, "num_attention_heads": 4, "n_head": 4, "n_heads": 4,
    "num_heads": 4, "encoder_attention_heads": 4, "decoder_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 8, "num_experts": 4, "num_local_experts": 4,
    "n_routed_experts": 4, "moe_num_experts": 4, "num_experts_per_tok": 2, "moe_k": 2, "top_k": 2,
    "moe_topk": 2, "n_group": 1, "topk_group": 1, "first_k_dense_replace": 1,
    "max_position_embeddings": 256, "n_positions": 256, "q_lora_rank": 16, "kv_lora_rank": 16,
    "qk_nope_head_dim": 8, "qk_rope_head_dim": 8, "v_head_dim": 8, "linear_num_key_heads": 2,
    "linear_num_value_heads": 4, "linear_key_head_dim": 8, "linear_value_head_dim": 8,
    "mamba_num_heads": 4, "mamba_head_dim": 16, "mamba_n_heads": 4, "mamba_d_state": 8,
    "ssm_state_size": 8,
}  # fmt: skip
"""Key of a config -> its value here, in every family whose config has the key."""

IMAGES = {"image_size": 28, "patch_size": 14, "depth": 1, "out_hidden_size": 32}
"""The same of configs that speak of images."""

_ONE_KV_HEAD_EACH = {"num_key_value_heads": 4}
_ONE_OF_EACH = {"layer_types": ["linear_attention", "full_attention"]}
OWN: dict[str, dict[str, Any]] = {
    "axk1": _ONE_KV_HEAD_EACH,
    "axk2": _ONE_KV_HEAD_EACH,
    "bailing_hybrid": {"layer_group_size": 2},
    "bamba": {"attn_layer_indices": [1]},
    "bert-generation": {"is_decoder": True},
    "codegen": {"rotary_dim": 8},
    "dbrx": {"attn_config": {"kv_n_heads": 2, "rope_theta": 10000.0, "clip_qkv": 8},
             "ffn_config": {"ffn_hidden_size": 64, "moe_num_experts": 4, "moe_top_k": 2}},
    "deepseek_v2": _ONE_KV_HEAD_EACH,
    "deepseek_v3": _ONE_KV_HEAD_EACH,
    "deepseek_v32": _ONE_KV_HEAD_EACH,
    "glm4_moe_lite": _ONE_KV_HEAD_EACH,
    "glm_moe_dsa": _ONE_KV_HEAD_EACH,
    "dots1": {"n_shared_experts": 1},
    "dots3_note_text": _ONE_KV_HEAD_EACH,
    "esmc": _ONE_KV_HEAD_EACH,
    "funnel": {"block_sizes": [1, 1], "num_decoder_layers": 1, "d_head": 8, "d_inner": 64},
    "gemma3n_text": {"num_hidden_layers": 4, "num_kv_shared_layers": 0, "laurel_rank": 8,
                     "layer_types": ["sliding_attention", "full_attention"] * 2,
                     "vocab_size_per_layer_input": 512, "hidden_size_per_layer_input": 8,
                     "intermediate_size": [64] * 4, "activation_sparsity_pattern": [0.0] * 4},
    "gemma4_text": {"vocab_size_per_layer_input": 512, "hidden_size_per_layer_input": 8,
                    "num_kv_shared_layers": 0},
    "gptj": {"rotary_dim": 8},
    "granitemoehybrid": {"layer_types": ["linear_attention", "full_attention"]},
    "jamba": {"attn_layer_period": 2, "attn_layer_offset": 1},
    "gpt_neo": {"attention_types": [[["global", "local"], 1]]},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"], "num_dense_layers": 1},
    "lfm3": {"layer_types": ["conv", "full_attention"]},
    "minicpm3": _ONE_KV_HEAD_EACH,
    "longcat_flash": {**_ONE_KV_HEAD_EACH, "ffn_hidden_size": 64, "expert_ffn_hidden_size": 16,
                      "zero_expert_num": 2},
    "marian": {"decoder_vocab_size": 512},
    "luke": {"entity_vocab_size": 32, "entity_emb_size": 16},
    "mamba2": {"num_heads": 4, "head_dim": 16},
    "markuplm": {"max_xpath_tag_unit_embeddings": 8, "max_xpath_subs_unit_embeddings": 8,
                 "tag_pad_id": 7, "subs_pad_id": 7, "xpath_unit_hidden_size": 8, "max_depth": 4},
    "nemotron_h": {"n_groups": 1},
    "perceiver": {"num_latents": 8, "d_latents": 32, "num_blocks": 1, "qk_channels": 32,
                  "num_self_attends_per_block": 2, "num_self_attention_heads": 4,
                  "num_cross_attention_heads": 4, "v_channels": 32},
    "reformer": {"is_decoder": True, "axial_pos_embds_dim": [16, 16], "axial_pos_shape": [16, 16],
                 "attention_head_size": 8},
    "qwen3_5_moe_text": _ONE_OF_EACH,
    "qwen3_5_text": _ONE_OF_EACH,
    "qwen3_next": _ONE_OF_EACH,
    "qwen4_exp_text": _ONE_OF_EACH,
    "rembert": {"input_embedding_size": 32, "output_embedding_size": 32},
    "roc_bert": {"pronunciation_vocab_size": 32, "shape_vocab_size": 32,
                 "pronunciation_embed_dim": 16, "shape_embed_dim": 16},
    "zamba": {"num_hidden_layers": 4, "attn_layer_period": 2, "attn_layer_offset": 1},
    "zamba2": {"num_hidden_layers": 4, "layers_block_type": ["mamba", "hybrid"] * 2,
               "layer_types": ["mamba", "hybrid"] * 2},
    "zaya": {"num_experts_per_tok": 1},
}  # fmt: skip
"""Family -> what else its config must say at these sizes."""


def small_config(family: str, *, is_decoder: bool = False, **own: Any) -> Any:
    """Make a family's config with small sizes where it has such keys, and in the configs within it.

    Args:
        family: a `model_type` of transformers.
        is_decoder: whether an encoder's config says that it reads from left to right.
        own: what it says besides.
    """
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    reads = {"is_decoder": True} if is_decoder else {}
    return _small(CONFIG_MAPPING[family], {**OWN.get(family, {}), **own}, reads)


def _small(cls: Any, own: dict[str, Any], where_known: dict[str, Any]) -> Any:
    known = set(inspect.signature(cls.__init__).parameters)
    if dataclasses.is_dataclass(cls):
        known |= {field.name for field in dataclasses.fields(cls)}
    sizes = {key: value for key, value in SIZES.items() if key in known}
    if "image_size" in known or "patch_size" in known:
        sizes |= {key: value for key, value in IMAGES.items() if key in known}
    for key, part in cls.sub_configs.items():
        has_type = inspect.isclass(part) and hasattr(part, "model_type")  # not any model's
        if has_type and key in known and key not in own:
            sizes[key] = _small(part, OWN.get(part.model_type, {}), {})
    given = {key: value for key, value in where_known.items() if key in known}
    return cls(**{**sizes, **given, **own})


def small_model(family: str, **own: Any) -> Any:
    """Make a causal model with random weights, norms and biases included."""
    import torch
    from transformers import AutoModelForCausalLM

    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(small_config(family, **own))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.02)
    return model


EXPERTS = """
    afmoe aria_text axk1 axk2 cohere2_moe deepseek_v2 deepseek_v3 deepseek_v32 deepseek_v4 dots1
    dots3_note_text ernie4_5_moe exaone_moe flex_olmo glm4_moe glm4_moe_lite glm_moe_dsa gpt_oss
    granitemoe granitemoe_swa granitemoehybrid granitemoeshared hunyuan_v1_moe hy_v3 hy_v4
    inkling2_text inkling_text jamba jetmoe kimi_linear kolibri1 laguna lfm2_moe llama4_text
    longcat_flash mellum mimo_v2_flash minimax minimax_m2 minimax_m3_vl_text mixtral nemotron_h
    olmoe phimoe qwen2_moe qwen3_5_moe_text qwen3_moe qwen3_next qwen4_exp_text solar_open zaya
""".split()  # noqa: SIM905 - a table of words
"""Causal families whose experts are weights stacked in a parameter."""
