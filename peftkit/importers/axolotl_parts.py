"""What axolotl says by several keys together: precision, targets, intervals, trackers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from peftkit.plugins.imported import Draft, is_off, listed, mapped, number, numeric, switch, whole
from peftkit.plugins.importer import Fate

ATTENTION = {
    "flash_attention": "flash_attention_2",
    "flash_attn": "flash_attention_2",
    "sdp_attention": "sdpa",
    "eager_attention": "eager",
    "flex_attention": "flex_attention",
}


def read_model(draft: Draft) -> None:
    """Read dtype, quantization and attention."""
    get = draft.get
    bf16 = not is_off(get("bf16")) or not is_off(get("bfloat16"))
    fp16 = not bf16 and (switch(get("fp16")) or switch(get("float16")))
    half = "float16" if fp16 or switch(get("load_in_8bit")) else "float32"
    dtype = "bfloat16" if bf16 else half
    draft.put("model.dtype", dtype)
    for key in ("bf16", "bfloat16", "fp16", "float16"):
        chosen = bf16 if key.startswith("b") else fp16
        how = "model.dtype" if chosen else f"the weights are {dtype}"
        draft.say(key, Fate.KEPT if chosen else Fate.IMPLIED, how)
    _read_quantization(draft)
    for key, value in ATTENTION.items():
        if switch(get(key)):
            draft.keep(key, "model.attn_implementation", value)
        draft.say(key, Fate.IMPLIED, "off here too")


def _read_quantization(draft: Draft) -> None:
    get = draft.get
    adapter = get("adapter")
    options: dict[str, Any] = {}
    if switch(get("load_in_4bit")) and adapter in ("qlora", "lora"):
        options = {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4",
                   "bnb_4bit_use_double_quant": True}  # fmt: skip
    elif switch(get("load_in_8bit")) and adapter:
        options = {"load_in_8bit": True}
    extra = get("bnb_config_kwargs", {})
    where = "model.quantize.bitsandbytes"
    if options:
        draft.put(where, {**options, **_of_bits(mapped(extra), options)})
        draft.say("bnb_config_kwargs", Fate.KEPT, where)
    for key in ("load_in_4bit", "load_in_8bit", "bnb_config_kwargs"):
        if key in options:
            draft.say(key, Fate.KEPT, where)
        off = is_off(get(key))
        how = "off here too" if off else f"axolotl quantizes nothing with adapter {adapter}"
        draft.say(key, Fate.IMPLIED, how)


def _of_bits(extra: Mapping[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out what belongs to the other number of bits, which bitsandbytes ignores."""
    other = "llm_int8_" if "load_in_4bit" in options else "bnb_4bit_"
    return {name: value for name, value in extra.items() if not str(name).startswith(other)}


_ADAPTERS_OWN = ("lora_r", "lora_alpha", "lora_dropout", "lora_target_modules",
                 "lora_target_linear", "lora_modules_to_save", "peft_use_dora")  # fmt: skip


def read_adapter(draft: Draft) -> None:
    """Read what is trained: a LoRA, its going on, or everything."""
    kind = draft.get("adapter")
    if draft.adapter is None:
        patterns = [str(one) for one in listed(draft.get("unfrozen_parameters"))]
        draft.put("adapter", {"full": {"train": patterns}} if patterns else "full")
        draft.say("unfrozen_parameters", Fate.KEPT, "adapter.full.train")
        draft.say("adapter", Fate.DEFAULT, "adapter: full", value="none")
        for key in (*_ADAPTERS_OWN, "lora_model_dir"):
            draft.say(key, Fate.NO_EFFECT, "nothing is adapted: every weight is trained")
        return
    if kind not in ("lora", "qlora"):
        draft.adapter = "lora"
        draft.say("adapter", Fate.UNSUPPORTED, f"{kind} is not read; a LoRA comes nearest")
    draft.say("adapter", Fate.KEPT, "adapter.lora")
    draft.say("unfrozen_parameters", Fate.NO_EFFECT, "an adapter is trained, and no parameter")
    start = draft.get("lora_model_dir")
    if start:
        draft.recipe["adapter"] = {}
        draft.keep("lora_model_dir", "adapter", {"from": str(start)})
        for key in _ADAPTERS_OWN:
            draft.say(key, Fate.IMPLIED, "the adapter that goes on says it")
        draft.adapter = None
        return
    _read_targets(draft)


def _read_targets(draft: Draft) -> None:
    get = draft.get
    named = get("lora_target_modules")
    if switch(get("lora_target_linear")):
        draft.keep("lora_target_linear", "adapter.target_modules", "all-linear")
        draft.say("lora_target_modules", Fate.IMPLIED, "all-linear holds them, as there")
    elif named:
        names = named.split(",") if isinstance(named, str) and "," in named else named
        draft.keep("lora_target_modules", "adapter.target_modules", names)
    draft.say("lora_target_linear", Fate.IMPLIED, "the modules are named, or peft chooses them")
    draft.say("lora_target_modules", Fate.IMPLIED, "none are named")
    saved = get("lora_modules_to_save")
    if saved:
        draft.keep("lora_modules_to_save", "adapter.modules_to_save", listed(saved, separator=","))
    draft.say("lora_modules_to_save", Fate.IMPLIED, "off here too")


def read_training(draft: Draft) -> None:
    """Read intervals, warmup, accumulation and the optimizer."""
    get = draft.get
    for noun, key in (("eval", "evals_per_epoch"), ("save", "saves_per_epoch")):
        _read_interval(draft, noun, key)
    if get("warmup_steps") is None and get("warmup_ratio") is not None:
        draft.take("warmup_ratio", "method.warmup_steps", number)
    draft.say("warmup_ratio", Fate.IMPLIED, "warmup_steps counts, as there")
    checkpointing = get("gradient_checkpointing")
    draft.put("method.gradient_checkpointing", switch(checkpointing))
    where = draft.spelled("method.gradient_checkpointing")
    draft.say("gradient_checkpointing", Fate.KEPT, where)
    if get("batch_size") and not get("gradient_accumulation_steps"):
        rows, step = numeric(get("batch_size")), numeric(get("micro_batch_size", 1))
        if rows and step:
            times = max(int(rows // step), 1)
            draft.keep("batch_size", "method.gradient_accumulation_steps", times)
    draft.say("batch_size", Fate.IMPLIED, "micro_batch_size and accumulation say it")
    if switch(get("group_by_length")):
        draft.keep("group_by_length", "method.train_sampling_strategy", "group_by_length")
    elif switch(get("curriculum_sampling")):
        draft.keep("curriculum_sampling", "method.train_sampling_strategy", "sequential")
    for key in ("group_by_length", "curriculum_sampling"):
        draft.say(key, Fate.IMPLIED, "off here too")
    patience = get("early_stopping_patience")
    if not is_off(patience):
        draft.take("early_stopping_patience", "early_stopping.patience", whole)
    draft.say("early_stopping_patience", Fate.IMPLIED, "off here too")
    _read_optimizer(draft)


def _read_optimizer(draft: Draft) -> None:
    get = draft.get
    arguments = get("optim_args")
    if isinstance(arguments, dict):
        arguments = ",".join(f"{name}={value}" for name, value in arguments.items())
    if arguments:
        draft.keep("optim_args", "method.optim_args", arguments)
    least = get("cosine_min_lr_ratio")
    if least is not None and get("lr_scheduler", "cosine") == "cosine":
        draft.put("method.lr_scheduler_type", "cosine_with_min_lr")
        draft.keep("cosine_min_lr_ratio", "method.lr_scheduler_kwargs", {"min_lr_rate": least})
        draft.say("lr_scheduler", Fate.KEPT, draft.spelled("method.lr_scheduler_type"))
    draft.say("cosine_min_lr_ratio", Fate.NO_EFFECT, "it belongs to the scheduler cosine")
    plugins = get("plugins", [])
    if all("liger" in str(one) or "cut_cross" in str(one) for one in listed(plugins)):
        draft.say("plugins", Fate.NO_EFFECT, "they compute the same faster")
    draft.say("plugins", Fate.UNSUPPORTED, "they are axolotl's own")


def _read_interval(draft: Draft, noun: str, key: str) -> None:
    """Read how often is evaluated or saved: by epochs, by steps or by a strategy."""
    get = draft.get
    times, steps = get(key), get(f"{noun}_steps")
    names = [f"{noun}_strategy", *(["evaluation_strategy"] if noun == "eval" else [])]
    stated = next((name for name in names if get(name)), None)
    often = (numeric(times) or 0) * (numeric(get("num_epochs", 1)) or 1)
    if often > 1:
        draft.put(f"method.{noun}_strategy", "steps")
        draft.keep(key, f"method.{noun}_steps", round(1 / often, 6), f"{times} an epoch")
        for other in (f"{noun}_steps", *names):
            draft.say(other, Fate.IMPLIED, f"{key} counts, as there")
    elif steps and not is_off(steps):
        draft.put(f"method.{noun}_strategy", "steps")
        draft.take(f"{noun}_steps", f"method.{noun}_steps", number)
    elif stated:
        draft.keep(stated, f"method.{noun}_strategy", get(stated))
    elif times is not None:
        draft.put(f"method.{noun}_strategy", "epoch" if noun == "save" else "no")
    draft.say(key, Fate.IMPLIED, "it is more than the training lasts: at its end alone")
    for other in (f"{noun}_steps", *names):
        draft.say(other, Fate.IMPLIED, f"{noun}_strategy says it")


def write_defaults(draft: Draft) -> None:
    """Write out what axolotl means where it is silent and trl means something else."""
    draft.default("learning_rate", "method.learning_rate", 5e-5)
    draft.default("num_epochs", "method.num_train_epochs", 1)
    draft.default("micro_batch_size", "method.per_device_train_batch_size", 1)
    draft.default("lr_scheduler", "method.lr_scheduler_type", "cosine")
    draft.default("optimizer", "method.optim", "adamw_torch_fused")
    if draft.get("warmup_steps") is None and draft.get("warmup_ratio") is None:
        why = "axolotl: 3 %, at most 100 steps"
        draft.default("warmup_steps", "method.warmup_steps", 0.03, why)
    if draft.adapter == "lora":
        draft.default("lora_r", "adapter.r", 8)
        draft.default("lora_alpha", "adapter.lora_alpha", 8)
    draft.default("save_strategy", "method.save_strategy", "epoch")
    if draft.recipe["method"][draft.method].get("save_strategy") != "no":
        draft.default("save_total_limit", "method.save_total_limit", 4)


def read_trackers(draft: Draft) -> None:
    """Read who is told about a run."""
    get = draft.get
    wanted = {
        "wandb": get("wandb_project") or switch(get("use_wandb")),
        "mlflow": get("mlflow_experiment_name") or switch(get("use_mlflow")),
        "tensorboard": switch(get("use_tensorboard")),
        "trackio": switch(get("use_trackio")),
        "comet_ml": switch(get("use_comet")),
    }
    names = [name for name, is_on in wanted.items() if is_on]
    draft.put("method.report_to", names[0] if len(names) == 1 else names or "none")
    report_to = draft.spelled("method.report_to")
    if get("wandb_project"):
        where = f"the environment's WANDB_PROJECT={get('wandb_project')}"
        draft.say("wandb_project", Fate.DIFFERS, f"{report_to}: the project is {where}")
    for key in ("wandb_project", "use_wandb", "use_mlflow", "use_tensorboard", "use_trackio",
                "use_comet", "mlflow_experiment_name"):  # fmt: skip
        draft.say(key, Fate.IMPLIED if is_off(get(key)) else Fate.KEPT, report_to)
    draft.say("wandb_name", Fate.NO_EFFECT, "`name:` of the recipe says it")
    for key in draft.foreign.data:
        if key.startswith("wandb_"):
            draft.say(key, Fate.NO_EFFECT, f"the environment's {key.upper()} says it")
