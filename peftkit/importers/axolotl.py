"""axolotl's YAML: the table of its keys."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from peftkit.importers.axolotl_parts import (
    ATTENTION,
    read_adapter,
    read_model,
    read_trackers,
    read_training,
    write_defaults,
)
from peftkit.importers.axolotl_rows import read_rows
from peftkit.importers.schemas import keys_of, version_of
from peftkit.importers.settled import settle
from peftkit.plugins.imported import (
    Converted,
    Draft,
    differs,
    implied,
    kept,
    no_effect,
    number,
    read_by_hand,
    revision,
    switch,
    unsupported,
    whole,
)
from peftkit.plugins.importer import Fate, Foreign, Imported, Importer

_HUB = no_effect("nothing is uploaded while training: `peftkit push RUN OWNER/NAME`")
_SPEED = no_effect("how fast it computes, not what")
_DEVICES = no_effect("a launcher says it: `peftkit run --launch accelerate`")
_BY_ITSELF = implied("peftkit does it by itself")
METHODS = {"dpo": ("dpo", {}), "ipo": ("dpo", {"loss_type": ["ipo"]}), "kto": ("kto", {}),
           "grpo": ("grpo", {"rewards": ["rougeL"]})}  # fmt: skip


def _scheduler(value: Any) -> Any:
    if str(value) in ("one_cycle", "rex"):
        raise Converted(Fate.UNSUPPORTED, f"{value} is axolotl's own; cosine comes nearest")
    return value


def _optimizer(value: Any) -> Any:
    own = ("muon", "dion", "sinkgd", "optimi_adamw", "ao_adamw_fp8", "adopt_adamw", "came_pytorch")
    if str(value) in own or str(value).startswith(("flash_", "q_galore")):
        raise Converted(Fate.UNSUPPORTED, f"{value} is axolotl's own; adamw_torch comes nearest")
    return value


TABLE = {
    # what is loaded
    "base_model": kept("model.path"),
    "revision_of_model": kept("model.revision", revision),
    "model_revision": kept("model.revision", revision),
    "base_model_config": implied("the model's own configuration is read"),
    "base_model_ignore_patterns": no_effect("only safetensors are read"),
    "tokenizer_config": differs("the base's own tokenizer is read"),
    "model_type": implied("the method chooses the class"),
    "type_of_model": implied("the method chooses the class"),
    "tokenizer_type": implied("the tokenizer's own class is read"),
    "tokenizer_use_fast": implied("fast tokenizers are read"),
    "tokenizer_legacy": implied("the tokenizer's own files say it"),
    "is_llama_derived_model": implied("the model's own configuration says it"),
    "is_mistral_derived_model": implied("the model's own configuration says it"),
    "is_falcon_derived_model": implied("the model's own configuration says it"),
    "is_qwen_derived_model": implied("the model's own configuration says it"),
    "trust_remote_code": kept("model.trust_remote_code", switch),
    "load_in_4bit": read_by_hand,
    "load_in_8bit": read_by_hand,
    "bnb_config_kwargs": read_by_hand,
    "gptq": implied("a quantized base is recognised"),
    "bf16": read_by_hand,
    "fp16": read_by_hand,
    "bfloat16": read_by_hand,
    "float16": read_by_hand,
    "tf32": kept("method.tf32", switch),
    "device_map": _DEVICES,
    "max_memory": _DEVICES,
    "gpu_memory_limit": no_effect("write memory.budget to bound it"),
    **dict.fromkeys(ATTENTION, read_by_hand),
    "attn_implementation": kept("model.attn_implementation"),
    "xformers_attention": implied("transformers has dropped xformers; sdpa computes the same"),
    "s2_attention": unsupported("shifted sparse attention; attend to all, with flash_attention_2"),
    "flash_attn_cross_entropy": implied("trl's fused loss makes no full logits"),
    "flash_attn_fuse_qkv": _SPEED,
    "flash_attn_rms_norm": _SPEED,
    "low_cpu_mem_usage": _BY_ITSELF,
    "flash_attn_fuse_mlp": _SPEED,
    "flash_optimum": _SPEED,
    # what is trained
    "adapter": read_by_hand,
    "lora_r": kept("adapter.r", whole),
    "lora_alpha": kept("adapter.lora_alpha", number),
    "lora_dropout": kept("adapter.lora_dropout", number),
    "lora_target_linear": read_by_hand,
    "lora_target_modules": read_by_hand,
    "lora_target_parameters": kept("adapter.target_parameters"),
    "lora_modules_to_save": read_by_hand,
    "lora_fan_in_fan_out": implied("peft finds out by itself"),
    "lora_rank_pattern": kept("adapter.rank_pattern"),
    "lora_alpha_pattern": kept("adapter.alpha_pattern"),
    "peft_layers_to_transform": kept("adapter.layers_to_transform"),
    "peft_layers_pattern": kept("adapter.layers_pattern"),
    "peft_use_dora": kept("adapter.use_dora", switch),
    "peft_use_rslora": kept("adapter.use_rslora", switch),
    "peft_init_lora_weights": kept("adapter.init_lora_weights"),
    "peft_trainable_token_indices": kept("adapter.trainable_token_indices"),
    "peft_ensure_weight_tying": kept("adapter.ensure_weight_tying", switch),
    "lora_on_cpu": _DEVICES,
    "lora_mlp_kernel": _SPEED,
    "lora_qkv_kernel": _SPEED,
    "lora_o_kernel": _SPEED,
    "lora_model_dir": read_by_hand,
    "loraplus_lr_ratio": unsupported("B learns at the rate of A; raise learning_rate"),
    "relora": unsupported("one adapter is trained once; run again with adapter.from"),
    "relora_steps": unsupported("see relora"),
    "unfrozen_parameters": read_by_hand,
    # how it is trained
    "rl": read_by_hand,
    "learning_rate": kept("method.learning_rate", number),
    "num_epochs": kept("method.num_train_epochs", number),
    "max_steps": kept("method.max_steps", whole),
    "micro_batch_size": kept("method.per_device_train_batch_size", whole),
    "gradient_accumulation_steps": kept("method.gradient_accumulation_steps", whole),
    "batch_size": read_by_hand,
    "eval_batch_size": kept("method.per_device_eval_batch_size", whole),
    "optimizer": kept("method.optim", _optimizer),
    "optim_args": read_by_hand,
    "optim_target_modules": kept("method.optim_target_modules"),
    "lr_scheduler": kept("method.lr_scheduler_type", _scheduler),
    "lr_scheduler_kwargs": kept("method.lr_scheduler_kwargs"),
    "cosine_min_lr_ratio": read_by_hand,
    "warmup_steps": kept("method.warmup_steps", whole),
    "warmup_ratio": read_by_hand,
    "weight_decay": kept("method.weight_decay", number),
    "max_grad_norm": kept("method.max_grad_norm", number),
    "adam_beta1": kept("method.adam_beta1", number),
    "adam_beta2": kept("method.adam_beta2", number),
    "adam_epsilon": kept("method.adam_epsilon", number),
    "neftune_noise_alpha": kept("method.neftune_noise_alpha", number),
    "noisy_embedding_alpha": kept("method.neftune_noise_alpha", number),
    "gradient_checkpointing": read_by_hand,
    "gradient_checkpointing_kwargs": kept("method.gradient_checkpointing_kwargs"),
    "seed": kept("method.seed", whole),
    "torch_compile": kept("method.torch_compile", switch),
    "torch_compile_backend": kept("method.torch_compile_backend"),
    "group_by_length": read_by_hand,
    "curriculum_sampling": read_by_hand,
    "auto_find_batch_size": kept("method.auto_find_batch_size", switch),
    "dataloader_num_workers": kept("method.dataloader_num_workers", whole),
    "dataloader_pin_memory": kept("method.dataloader_pin_memory", switch),
    "dataloader_prefetch_factor": kept("method.dataloader_prefetch_factor", whole),
    "dataloader_drop_last": kept("method.dataloader_drop_last", switch),
    "beta": kept("method.beta", number),
    "rl_beta": kept("method.beta", number),
    "dpo_beta": kept("method.beta", number),
    "dpo_label_smoothing": kept("method.label_smoothing", number),
    "rpo_alpha": unsupported("trl has dropped it: loss_type: [sigmoid, sft] with loss_weights"),
    "rl_adapter_ref_model": implied("the reference is the base with the adapter switched off"),
    "plugins": read_by_hand,
    # rows
    **dict.fromkeys(
        ("datasets", "test_datasets", "eval_dataset", "pretraining_dataset", "val_set_size",
         "chat_template", "chat_template_jinja", "default_system_message", "train_on_inputs",
         "special_tokens", "tokens", "added_tokens_overrides"),
        read_by_hand,
    ),
    "sequence_len": read_by_hand,
    "max_packed_sequence_len": kept("method.max_length", whole),
    "sample_packing": read_by_hand,
    "eval_sample_packing": implied("validation rows are packed as the training rows are"),
    "sample_packing_eff_est": no_effect("blocks are counted, not estimated"),
    "sample_packing_group_size": no_effect("all rows are packed at once"),
    "sample_packing_bin_size": no_effect("all rows are packed at once"),
    "sample_packing_sequentially": differs("rows are packed by best fit, not in their order"),
    "multipack_real_batches": no_effect("rows of a block never see each other"),
    "pad_to_sequence_len": no_effect("rows are padded to the longest of a batch"),
    "excess_length_strategy": read_by_hand,
    "shuffle_merged_datasets": implied("the sampler draws rows in a random order"),
    "dataset_prepared_path": no_effect("rows are encoded at the beginning of a run"),
    "push_dataset_to_hub": _HUB,
    "dataset_processes": no_effect("rows are encoded in batches"),
    "dataset_num_proc": no_effect("rows are encoded in batches"),
    "dataset_keep_in_memory": no_effect("rows are encoded in batches"),
    "dataset_exact_deduplication": differs("duplicates are counted and said, not left out"),
    "remove_unused_columns": _BY_ITSELF,
    # evaluations, checkpoints, logs
    **dict.fromkeys(
        ("evals_per_epoch", "saves_per_epoch", "eval_steps", "save_steps", "eval_strategy",
         "evaluation_strategy", "save_strategy", "early_stopping_patience"),
        read_by_hand,
    ),
    "save_total_limit": kept("method.save_total_limit", whole),
    "load_best_model_at_end": kept("method.load_best_model_at_end", switch),
    "metric_for_best_model": kept("method.metric_for_best_model"),
    "greater_is_better": kept("method.greater_is_better", switch),
    "logging_steps": kept("method.logging_steps", number),
    "loss_watchdog_threshold": kept("stop_above.loss", number),
    "loss_watchdog_patience": kept("stop_above.steps", whole),
    "eval_table_size": differs("answers are generated after training: `evaluate`"),
    "eval_max_new_tokens": no_effect("it belongs to eval_table_size"),
    "eval_table_max_new_tokens": no_effect("it belongs to eval_table_size"),
    "eval_causal_lm_metrics": differs("`evaluate` scores answers after training"),
    "do_causal_lm_eval": differs("`evaluate` scores answers after training"),
    "save_only_model": implied("checkpoints can always be resumed"),
    "save_safetensors": implied("only safetensors are written"),
    "resume_from_checkpoint": implied("the same `peftkit run` again resumes"),
    "auto_resume_from_checkpoints": _BY_ITSELF,
    "output_dir": no_effect("`peftkit run --out DIR`; by default runs/NAME"),
    "hub_model_id": _HUB,
    "hub_strategy": _HUB,
    "push_to_hub": _HUB,
    "hf_use_auth_token": no_effect("the environment's HF_TOKEN is used"),
    **dict.fromkeys(
        ("wandb_project", "wandb_entity", "wandb_name", "wandb_run_id", "wandb_watch",
         "wandb_log_model", "wandb_mode", "use_wandb", "use_tensorboard", "use_mlflow",
         "use_trackio", "use_comet", "mlflow_experiment_name"),
        read_by_hand,
    ),
    # devices
    **dict.fromkeys(
        ("deepspeed", "fsdp", "fsdp_config", "fsdp_version", "ddp", "ddp_timeout",
         "ddp_bucket_cap_mb", "ddp_broadcast_buffers", "ddp_find_unused_parameters", "local_rank",
         "world_size", "deepspeed_config", "tensor_parallel_size", "context_parallel_size",
         "sequence_parallel_degree", "ring_attn_func", "heads_k_stride"),
        _DEVICES,
    ),
    "strict": no_effect("it is about axolotl's own checks"),
    "debug": no_effect("`peftkit data` shows the rows"),
    "include_tokens_per_second": _BY_ITSELF,
    "include_tkps": _BY_ITSELF,
    **dict.fromkeys(
        ("liger_rope", "liger_rms_norm", "liger_glu_activation", "liger_swiglu",
         "liger_layer_norm", "liger_fused_linear_cross_entropy", "liger_cross_entropy",
         "cut_cross_entropy", "unsloth_cross_entropy_loss", "unsloth_lora_mlp",
         "unsloth_lora_qkv", "unsloth_lora_o"),
        _SPEED,
    ),
}  # fmt: skip


class Axolotl(Importer):
    """Read axolotl's YAML."""

    title = "axolotl"
    version = version_of("axolotl")
    keys = keys_of("axolotl")
    telling = frozenset(
        [
            "base_model",
            "micro_batch_size",
            "sequence_len",
            "sample_packing",
            "lora_target_linear",
            "num_epochs",
            "val_set_size",
            "dataset_prepared_path",
            "lora_r",
            "pad_to_sequence_len",
            "train_on_inputs",
            "load_in_8bit",
            "lora_target_modules",
            "evals_per_epoch",
            "saves_per_epoch",
            "flash_attention",
        ]
    )
    commands = (r"\baxolotl (?:train|preprocess)\b", r"-m axolotl\.cli\.train\b")

    def convert(self, foreign: Foreign, folder: Path) -> Imported:
        """Say the same as a recipe."""
        rl = foreign.data.get("rl")
        method, options = METHODS.get(str(rl).lower(), ("dpo" if rl else "sft", {}))
        draft = Draft(foreign, method=method, adapter=_adapter_of(foreign))
        draft.put("model.path", None)
        read_model(draft)
        read_rows(draft, folder)
        read_adapter(draft)
        for option, value in options.items():
            draft.put(f"method.{option}", value)
        if method == "grpo":
            draft.say("rl", Fate.DIFFERS, "method.grpo: rewards are plugins or metrics of a task")
        elif rl and str(rl).lower() in METHODS:
            draft.say("rl", Fate.KEPT, f"method.{method}")
        elif rl:
            draft.say("rl", Fate.UNSUPPORTED, f"there is no method {rl}; dpo comes nearest")
        read_training(draft)
        draft.apply(TABLE)
        write_defaults(draft)
        read_trackers(draft)
        settle(draft)
        return draft.finish(TABLE, self.keys, "axolotl ignores it too")


def _adapter_of(foreign: Foreign) -> str | None:
    kind = foreign.data.get("adapter")
    return "lora" if kind in ("lora", "qlora", "mora") else str(kind) if kind else None
