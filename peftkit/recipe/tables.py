"""Where native signatures mislead: the short lists that widen, narrow, bound and rename.

Each entry was needed on the tested pins; `tests/recipe/test_tables.py` finds the stale ones.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from peftkit.recipe.kinds import DTYPES, NULL, Kind, union


@dataclass(frozen=True)
class Bound:
    """Say which numbers can work although hint and constructor take more."""

    low: float = -math.inf
    high: float = math.inf
    is_open_low: bool = False
    """Whether `low` itself is refused."""
    is_open_high: bool = False
    also: tuple[float, ...] = ()
    """Single values outside the interval that mean something of their own, e.g. -1."""

    def holds(self, value: float) -> bool:
        """Tell whether a number can work."""
        if value in self.also:
            return True
        above = value > self.low if self.is_open_low else value >= self.low
        below = value < self.high if self.is_open_high else value <= self.high
        return above and below

    def __str__(self) -> str:
        parts = []
        if self.low > -math.inf:
            parts.append(f"{'above' if self.is_open_low else 'at least'} {self.low:g}")
        if self.high < math.inf:
            parts.append(f"{'below' if self.is_open_high else 'at most'} {self.high:g}")
        text = " and ".join(parts)
        return text + "".join(f", or {value:g}" for value in self.also)


_AT_LEAST_0 = Bound(0)
_AT_LEAST_1 = Bound(1)
_POSITIVE = Bound(0, is_open_low=True)
_SHARE = Bound(0, 1, is_open_high=True)

BOUNDS: Mapping[str, Bound] = {
    # Training arguments.
    "learning_rate": _POSITIVE,
    "num_train_epochs": _POSITIVE,
    "max_steps": Bound(1, also=(-1,)),
    "per_device_train_batch_size": _AT_LEAST_1,
    "per_device_eval_batch_size": _AT_LEAST_1,
    "gradient_accumulation_steps": _AT_LEAST_1,
    "eval_accumulation_steps": _AT_LEAST_1,
    "weight_decay": _AT_LEAST_0,
    "adam_beta1": _SHARE,
    "adam_beta2": _SHARE,
    "adam_epsilon": _POSITIVE,
    "max_grad_norm": _AT_LEAST_0,
    "label_smoothing_factor": _SHARE,
    "warmup_steps": _AT_LEAST_0,
    "logging_steps": _POSITIVE,
    "eval_steps": _POSITIVE,
    "eval_delay": _AT_LEAST_0,
    "save_steps": _POSITIVE,
    "save_total_limit": _AT_LEAST_1,
    "dataloader_num_workers": _AT_LEAST_0,
    "dataloader_prefetch_factor": _AT_LEAST_1,
    "neftune_noise_alpha": _POSITIVE,
    "torch_empty_cache_steps": _AT_LEAST_1,
    # torch and numpy take seeds below 2**32 only.
    "seed": Bound(0, 2**32 - 1),
    "data_seed": Bound(0, 2**32 - 1),
    "max_length": _AT_LEAST_1,
    "max_source_length": _AT_LEAST_1,
    "max_target_length": _AT_LEAST_1,
    "pad_to_multiple_of": _AT_LEAST_1,
    "router_aux_loss_coef": _AT_LEAST_0,
    # Masked words.
    "mlm_probability": Bound(0, 1, is_open_low=True),
    "mask_replace_prob": Bound(0, 1),
    "random_replace_prob": Bound(0, 1),
    "short_seq_prob": Bound(0, 1),
    "dupe_factor": _AT_LEAST_1,
    # Adapters.
    "r": _AT_LEAST_1,
    "init_r": _AT_LEAST_1,
    "target_r": _AT_LEAST_1,
    "lora_alpha": _POSITIVE,
    "num_virtual_tokens": _AT_LEAST_1,
    "adapter_len": _AT_LEAST_1,
    "n_frequency": _AT_LEAST_1,
    "block_size": _AT_LEAST_1,
    "num_vectors": _AT_LEAST_1,
    "vector_length": _AT_LEAST_1,
    # Quantization.
    "llm_int8_threshold": _AT_LEAST_0,
    # Models from scratch.
    "hidden_size": _AT_LEAST_1,
    "intermediate_size": _AT_LEAST_1,
    "num_hidden_layers": _AT_LEAST_1,
    "num_attention_heads": _AT_LEAST_1,
    "num_key_value_heads": _AT_LEAST_1,
    "max_position_embeddings": _AT_LEAST_1,
    # Generation.
    "max_new_tokens": _AT_LEAST_1,
    "min_new_tokens": _AT_LEAST_0,
    "num_beams": _AT_LEAST_1,
    "temperature": _POSITIVE,
    "top_p": Bound(0, 1, is_open_low=True),
    "top_k": _AT_LEAST_0,
    "min_p": Bound(0, 1),
    "repetition_penalty": _POSITIVE,
    "max_time": _POSITIVE,
    # Merges of several adapters.
    "density": Bound(0, 1, is_open_low=True),
    "svd_rank": _AT_LEAST_1,
    "svd_clamp": Bound(0, 1, is_open_low=True),
    # Our own sections.
    "max_dropped": Bound(0, 1),
    "max_truncated": Bound(0, 1),
    "max_masked": Bound(0, 1),
    "max_leaked": Bound(0, 1),
    "max_unread": Bound(0, 1),
    "limit": _AT_LEAST_1,
    "batch_size": _AT_LEAST_1,
}
"""Option -> numbers that can work, whatever class it stands in."""

SUFFIX_BOUNDS: Mapping[str, Bound] = {"_dropout": _SHARE, "_dropout_p": _SHARE}
"""The same for every option with this ending."""

_DTYPE = union(Kind("choice", choices=DTYPES), NULL)

CORRECTED: Mapping[tuple[str, str], Kind] = {
    # Wider than the hint: the number of iterations is part of the name.
    ("LoraConfig", "init_lora_weights"): union(
        Kind("bool"),
        Kind(
            "choice",
            choices=(
                "gaussian",
                "eva",
                "olora",
                "pissa",
                "corda",
                "loftq",
                "orthogonal",
                "mica",
                "lora_ga",
            ),
        ),
        Kind("pattern", pattern=r"pissa_niter_\d+"),
    ),
    # Narrower than the hint, which is `str` or nothing at all: these values alone work.
    ("BitsAndBytesConfig", "bnb_4bit_quant_type"): Kind("choice", choices=("fp4", "nf4")),
    ("BitsAndBytesConfig", "bnb_4bit_compute_dtype"): _DTYPE,
    ("BitsAndBytesConfig", "bnb_4bit_quant_storage"): _DTYPE,
    ("SFTConfig", "packing_strategy"): Kind(
        "choice", choices=("bfd", "bfd_split", "wrapped", "bfd-requeue")
    ),
    ("SFTConfig", "truncation_mode"): Kind("choice", choices=("keep_start", "keep_end")),
    ("SFTConfig", "pad_to_multiple_of"): union(
        Kind("int"), Kind("choice", choices=("auto",)), NULL
    ),
    ("ModelSection", "dtype"): Kind("choice", choices=("auto", "float32", "bfloat16", "float16")),
}
"""(class, option) -> what really works, where the hint says otherwise."""

TRACKERS = (
    "none",
    "all",
    "azure_ml",
    "clearml",
    "codecarbon",
    "comet_ml",
    "dagshub",
    "dvclive",
    "flyte",
    "kubeflow",
    "mlflow",
    "neptune",
    "swanlab",
    "tensorboard",
    "trackio",
    "wandb",
)
"""What `report_to` takes; transformers' own list is behind an import of torch."""

_TRACKER = Kind("choice", choices=TRACKERS)
CORRECTED_EVERYWHERE: Mapping[str, Kind] = {
    "report_to": union(_TRACKER, Kind("list", (_TRACKER,)), NULL),
    # Hinted as text for its command line's sake; text is deprecated.
    "fsdp": union(Kind("bool"), Kind("str"), NULL),
}
"""The same for options of every class that inherits them."""

RENAMED: Mapping[str, tuple[str, ...]] = {
    # transformers
    "evaluation_strategy": ("eval_strategy",),
    "torch_dtype": ("dtype",),
    "tokenizer": ("processing_class",),
    "warmup_ratio": ("warmup_steps",),
    "group_by_length": ("train_sampling_strategy",),
    "no_cuda": ("use_cpu",),
    "per_gpu_train_batch_size": ("per_device_train_batch_size",),
    "per_gpu_eval_batch_size": ("per_device_eval_batch_size",),
    "gpu_memory_budget": ("budget",),
    # trl
    "max_seq_length": ("max_length",),
    "max_seq_len": ("max_length",),
    "sequence_len": ("max_length",),
    "cutoff_len": ("max_length",),
    # other trainers' words
    "lr": ("learning_rate",),
    "epochs": ("num_train_epochs",),
    "num_epochs": ("num_train_epochs",),
    "steps": ("max_steps",),
    "batch_size": ("per_device_train_batch_size",),
    "micro_batch_size": ("per_device_train_batch_size",),
    "train_batch_size": ("per_device_train_batch_size",),
    "eval_batch_size": ("per_device_eval_batch_size",),
    "gradient_accumulation": ("gradient_accumulation_steps",),
    "grad_accumulation": ("gradient_accumulation_steps",),
    "gradient_clipping": ("max_grad_norm",),
    "scheduler": ("lr_scheduler_type",),
    "lr_scheduler": ("lr_scheduler_type",),
    "optimizer": ("optim",),
    "sample_packing": ("packing",),
    "rank": ("r",),
    "lora_r": ("r",),
    "lora_rank": ("r",),
    "alpha": ("lora_alpha",),
    "dropout": ("lora_dropout",),
    "target": ("target_modules",),
    "lora_target_modules": ("target_modules",),
    "target_layers": ("layers_to_transform",),
    "model_name_or_path": ("path",),
    "name_or_path": ("path",),
    "base_model": ("path",),
    "quantization": ("quantize",),
    "quantization_config": ("quantize",),
    "attention": ("attn_implementation",),
    "dataset": ("source", "data"),
    "datasets": ("source", "data"),
    "peft": ("adapter",),
    "lora": ("adapter",),
    "train": ("method",),
    "training": ("method",),
    "trainer": ("method",),
    "eval": ("evaluate",),
    "evaluation": ("evaluate",),
    "max_tokens": ("max_new_tokens",),
    "val": ("validation",),
    "dev": ("validation",),
    "valid": ("validation",),
    "eval_split": ("split",),
    "num_rows": ("limit",),
    "max_samples": ("limit",),
    "n_layer": ("num_hidden_layers",),
    "n_head": ("num_attention_heads",),
    "d_model": ("hidden_size",),
    "n_embd": ("hidden_size",),
}
"""A word of an older upstream or of another trainer -> today's, taken where that key exists."""

RECORDED = (
    "activation_checkpointing",
    "bf16",
    "fp16",
    "gradient_accumulation_steps",
    "learning_rate",
    "loss_type",
    "lr_scheduler_type",
    "max_grad_norm",
    "max_length",
    "max_source_length",
    "max_steps",
    "max_target_length",
    "num_train_epochs",
    "optim",
    "packing",
    "per_device_train_batch_size",
    "seed",
    "warmup_steps",
    "weight_decay",
)
"""Defaults of the training arguments that decide a run and move between upstream versions: read
from the built object and recorded, stated or not."""

ADVICE: Mapping[str, str] = {
    "warmup_ratio": "write warmup_steps: {}: a share works",
    "lora_target_linear": "write target_modules: all-linear",
}
"""A word of an older upstream -> what to write in its place, where its value goes along."""

OWNED: Mapping[str, Mapping[str, str]] = {
    "adapter": {
        "task_type": "nothing: the method chooses the model class and with it the task type",
        "peft_type": "nothing: the adapter's name says it",
        "base_model_name_or_path": "`model.path`",
        "inference_mode": "nothing: a run trains; for inference see `peftkit generate`",
        "revision": "`model.revision`",
        "auto_mapping": "nothing: peft writes it",
        "peft_version": "nothing: peft writes it",
    },
    "quantizer": {"quant_method": "nothing: the quantization's name says it"},
    "config": {
        "vocab_size": "`model.tokenizer`: {bpe: {vocab_size: 8192}}, or wordpiece for an encoder",
        "bos_token_id": "nothing: it comes from the tokenizer",
        "eos_token_id": "nothing: it comes from the tokenizer",
        "pad_token_id": "nothing: it comes from the tokenizer",
        "dtype": "`model.dtype`",
        "transformers_version": "nothing: transformers writes it",
        "architectures": "nothing: the method chooses the model class",
    },
    "generation": {
        "transformers_version": "nothing: transformers writes it",
        "return_dict_in_generate": "nothing: peftkit keeps the text alone",
        "num_return_sequences": "nothing: each prompt has one answer",
        "max_length": "`max_new_tokens`, which leaves the prompt out of the count",
        **dict.fromkeys(
            ("output_attentions", "output_hidden_states", "output_logits", "output_scores"),
            "nothing: peftkit keeps the text alone",
        ),
        **dict.fromkeys(
            (
                "constraints",
                "diversity_penalty",
                "dola_layers",
                "force_words_ids",
                "num_beam_groups",
                "penalty_alpha",
            ),
            "nothing: transformers 5 takes the code for it from the Hub",
        ),
        **dict.fromkeys(
            ("assistant_early_exit", "is_assistant", "prompt_lookup_num_tokens", "use_mtp"),
            "nothing: drafts need one prompt at a time, and prompts share batches",
        ),
        "token_healing": "nothing: an answer begins behind its prompt, as in training",
        "compile_config": "`disable_compile`",
    },
}
"""Section -> native key that peftkit sets itself -> what to do instead. Methods name their own."""


def owned_by(group: str, plugin: Any) -> dict[str, str]:
    """Return the native keys of a plugin that peftkit sets, and what to do instead of each."""
    return {**OWNED.get(group.removesuffix("s"), {}), **plugin.owned}
