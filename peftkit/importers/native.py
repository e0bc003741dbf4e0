"""What tools share that hand their options to transformers' trainer: its own names, old and new."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from peftkit.plugins import find
from peftkit.plugins.imported import (
    Draft,
    Rule,
    implied,
    is_off,
    kept,
    listed,
    no_effect,
    number,
    read_by_hand,
    switch,
    whole,
)
from peftkit.plugins.importer import Fate
from peftkit.recipe.signatures import signature_of

DEVICES = no_effect("a launcher says it: `peftkit run --launch accelerate`")
HUB = no_effect("nothing is uploaded while training: `peftkit push RUN OWNER/NAME`")
SPEED = no_effect("how fast it computes, not what")
ROWS_ENCODED = no_effect("rows are encoded once, at the beginning of a run")
BY_HAND = ("bf16", "fp16", "warmup_ratio", "warmup_steps", "group_by_length", "report_to",
           "gradient_checkpointing", "max_length", "loss_type")  # fmt: skip
"""Options of the same name that functions read."""

OLDER: Mapping[str, Rule] = {
    "evaluation_strategy": kept("method.eval_strategy"),
    "per_gpu_train_batch_size": kept("method.per_device_train_batch_size", whole),
    "per_gpu_eval_batch_size": kept("method.per_device_eval_batch_size", whole),
    "no_cuda": kept("method.use_cpu", switch),
    "overwrite_output_dir": no_effect("a run never overwrites another: `--out DIR`"),
    "save_safetensors": implied("only safetensors are written"),
    "logging_dir": no_effect("a run's folder holds its logs"),
    "include_tokens_per_second": implied("tokens per second are always counted"),
    "predict_with_generate": implied("`peftkit evaluate` generates answers and scores them"),
    "hub_private_repo": HUB,
    "push_to_hub_model_id": HUB,
    "push_to_hub_organization": HUB,
    "push_to_hub_token": HUB,
    **dict.fromkeys(
        ("deepspeed", "fsdp", "fsdp_config", "fsdp_min_num_params", "ddp_timeout", "ddp_backend",
         "ddp_find_unused_parameters", "ddp_bucket_cap_mb", "ddp_broadcast_buffers",
         "fsdp_transformer_layer_cls_to_wrap", "tpu_num_cores", "use_mps_device", "local_rank",
         "sharded_ddp", "mp_parameters", "dispatch_batches", "split_batches",
         "save_on_each_node", "log_on_each_node", "parallelism_config", "accelerator_config"),
        DEVICES,
    ),
    **dict.fromkeys(
        ("half_precision_backend", "fp16_backend", "fp16_opt_level", "torchdynamo", "use_ipex",
         "jit_mode_eval", "bf16_full_eval", "fp16_full_eval", "tpu_metrics_debug", "debug",
         "log_level", "log_level_replica", "skip_memory_metrics", "use_legacy_prediction_loop",
         "include_inputs_for_metrics", "include_for_metrics", "past_index", "ray_scope",
         "use_liger_kernel", "eval_do_concat_batches", "batch_eval_metrics",
         "dataloader_num_workers", "dataloader_pin_memory", "dataloader_persistent_workers",
         "dataloader_prefetch_factor", "logging_first_step", "include_num_input_tokens_seen",
         "eval_on_start"),
        SPEED,
    ),
    **dict.fromkeys(BY_HAND, read_by_hand),
}  # fmt: skip
"""Options of older versions, and those that say where and how fast but not what."""


def native_rules(method: str) -> dict[str, Rule]:
    """Keep every option that the method's own trainer has, under its name."""
    plugin = find("methods", method)
    owned = {name: no_effect(f"instead: {why}") for name, why in plugin.owned.items()}
    own = {name: kept(f"method.{name}", _typed) for name in signature_of(plugin.Config).options}
    still = {name: rule for name, rule in OLDER.items() if name not in own or _is_set(rule)}
    return {**own, **owned, **still}


def _is_set(rule: Rule) -> bool:
    return rule in (DEVICES, SPEED, read_by_hand) or rule.to != ""


def _typed(value: Any) -> Any:
    """Read a number in quotes, which the tools' own dataclasses convert."""
    if isinstance(value, str) and value.strip().replace(".", "").replace("e-", "").isdigit():
        return number(value)
    return value


def read_trainer(draft: Draft) -> None:
    """Read what needs more than its own name: warmup, trackers, checkpointing."""
    get = draft.get
    ratio, steps = get("warmup_ratio"), get("warmup_steps")
    if steps is not None and not is_off(steps):
        draft.take("warmup_steps", "method.warmup_steps", number)
        if ratio is not None:
            draft.say("warmup_ratio", Fate.IMPLIED, "warmup_steps counts, as there")
    elif ratio is not None and not is_off(ratio):
        draft.take("warmup_ratio", "method.warmup_steps", number)
    for key in ("warmup_ratio", "warmup_steps"):
        if get(key) is not None:
            draft.say(key, Fate.IMPLIED, "no warmup, here neither")
    if switch(get("group_by_length")):
        draft.keep("group_by_length", "method.train_sampling_strategy", "group_by_length")
    elif get("group_by_length") is not None:
        draft.say("group_by_length", Fate.IMPLIED, "off here too")
    checkpointing = get("gradient_checkpointing")
    if checkpointing is not None:
        draft.keep("gradient_checkpointing", "method.gradient_checkpointing", switch(checkpointing))
    read_trackers(draft)


def read_trackers(draft: Draft) -> None:
    """Read who is told about a run."""
    stated = draft.get("report_to")
    if stated is None:
        return
    names = [str(name) for name in listed(stated) if not is_off(name)]
    draft.keep("report_to", "method.report_to", names[0] if len(names) == 1 else names or "none")


def precision(draft: Draft, *, default: str, pure: str | None = None) -> str:
    """Say in which dtype weights are held and computed.

    Args:
        default: `model.dtype` where neither bf16 nor fp16 is asked for.
        pure: the key that asks for bfloat16 weights in full fine-tuning; where there is one, full
            fine-tuning without it holds float32 weights and computes in bf16.
    """
    bf16, fp16 = switch(draft.get("bf16")), switch(draft.get("fp16"))
    is_pure = pure is not None and switch(draft.get(pure))
    dtype = "bfloat16" if bf16 or is_pure else "float16" if fp16 else default
    mixed = pure is not None and draft.adapter is None and (bf16 or fp16) and not is_pure
    if mixed:
        draft.put("model.dtype", "float32")
        draft.put("method.bf16" if bf16 else "method.fp16", True)
    else:
        draft.put("model.dtype", dtype)
    for key in ("bf16", "fp16", *([pure] if pure else [])):
        if draft.get(key) is not None:
            is_on = switch(draft.get(key)) and not (key == "fp16" and bf16)
            where = draft.spelled(f"method.{key}") if mixed and is_on else "model.dtype"
            draft.say(key, Fate.KEPT if is_on else Fate.IMPLIED, where if is_on else "off here too")
    return "float32" if mixed else dtype
