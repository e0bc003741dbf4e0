"""ms-swift's command line, YAML and JSON: the table of its keys."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from peftkit.importers.native import DEVICES, ROWS_ENCODED, SPEED, native_rules, read_trainer
from peftkit.importers.quantized import WHERE, put_bits
from peftkit.importers.rows import TASKS, Rows, no_rows, put_rows, share, source_of
from peftkit.importers.schemas import keys_of, version_of
from peftkit.importers.settled import settle
from peftkit.importers.templates import put_tokens
from peftkit.plugins.imported import (
    Converted,
    Draft,
    Rule,
    differs,
    implied,
    is_off,
    kept,
    listed,
    no_effect,
    number,
    numeric,
    read_by_hand,
    revision,
    switch,
    unsupported,
    whole,
)
from peftkit.plugins.importer import Fate, Foreign, Imported, Importer

METHODS = {"dpo": "dpo", "kto": "kto", "rm": "reward", "grpo": "grpo"}
_TUNERS = ("tuner_type", "train_type", "sft_type")
_MODELS = ("model", "model_id_or_path", "model_path")
_SETS = ("dataset", "custom_train_dataset_path")
_HELD = ("val_dataset", "custom_val_dataset_path")
_VISION = no_effect("it is about images, of which there are none")
_BY_SWIFT = no_effect("it is about swift itself")
_ANSWERS = no_effect("`evaluate.generation` says how answers are generated")


def _attention(value: Any) -> str:
    names = {
        "flash_attn": "flash_attention_2",
        "flash_attention_2": "flash_attention_2",
        "sdpa": "sdpa",
        "eager": "eager",
        "flash_attention_3": "flash_attention_3",
    }
    if str(value) in names:
        return names[str(value)]
    raise Converted(Fate.IMPLIED, "transformers chooses")


TABLE: Mapping[str, Rule] = {
    **dict.fromkeys((*_TUNERS, *_MODELS, *_SETS, *_HELD), read_by_hand),
    "model_type": implied("the model's own configuration says it"),
    "model_revision": kept("model.revision", revision),
    "torch_dtype": read_by_hand,
    "dtype": read_by_hand,
    "attn_impl": kept("model.attn_implementation", _attention),
    "use_flash_attn": kept("model.attn_implementation", _attention),
    "quant_bits": read_by_hand,
    "quantization_bit": read_by_hand,
    "quant_method": read_by_hand,
    "bnb_4bit_quant_type": read_by_hand,
    "bnb_4bit_use_double_quant": read_by_hand,
    "bnb_4bit_compute_dtype": implied("4-bit weights are computed in the model's dtype"),
    "bnb_4bit_comp_dtype": implied("4-bit weights are computed in the model's dtype"),
    "new_special_tokens": read_by_hand,
    "rope_scaling": unsupported("a base keeps its positions; take one that was trained longer"),
    "add_non_thinking_prefix": differs("the chat template alone says how an answer begins"),
    "use_hf": no_effect("the Hub of Hugging Face is asked"),
    "lora_rank": kept("adapter.r", whole),
    "lora_alpha": kept("adapter.lora_alpha", number),
    "lora_dropout": kept("adapter.lora_dropout", number),
    "lora_dropout_p": kept("adapter.lora_dropout", number),
    "lora_bias": kept("adapter.bias"),
    "lora_dtype": implied("adapter weights are float32"),
    "target_modules": read_by_hand,
    "lora_target_modules": read_by_hand,
    "target_regex": kept("adapter.target_modules"),
    "target_parameters": kept("adapter.target_parameters"),
    "modules_to_save": kept("adapter.modules_to_save", listed),
    "use_rslora": kept("adapter.use_rslora", switch),
    "use_dora": kept("adapter.use_dora", switch),
    "init_weights": read_by_hand,
    "lorap_lr_ratio": unsupported("B learns at the rate of A; raise learning_rate"),
    "adapters": read_by_hand,
    "resume_only_model": implied("adapter.from goes on with weights alone"),
    **dict.fromkeys(("freeze_parameters", "freeze_parameters_ratio", "trainable_parameters"),
                    unsupported("part of a base; a LoRA, or adapter: full, comes nearest")),
    **dict.fromkeys(("freeze_llm", "freeze_vit", "freeze_aligner", "max_pixels", "vit_lr",
                     "aligner_lr", "vit_gradient_checkpointing", "norm_bbox"), _VISION),
    "max_length": read_by_hand,
    "truncation_strategy": read_by_hand,
    "split_dataset_ratio": read_by_hand,
    "dataset_test_ratio": read_by_hand,
    "train_dataset_sample": differs("all rows are read; write `train[:1000]` into data.splits"),
    "template": differs("the tokenizer's own chat template writes conversations"),
    "template_type": differs("the tokenizer's own chat template writes conversations"),
    "system": read_by_hand,
    "loss_scale": read_by_hand,
    "enable_thinking": read_by_hand,
    "agent_template": implied("the chat template writes tools"),
    "use_chat_template": implied("the chat template writes conversations"),
    "loss_type": read_by_hand,
    "packing": kept("method.packing", switch),
    "packing_length": kept("method.max_length", whole),
    "padding_free": kept("method.padding_free", switch),
    "columns": unsupported("name the columns in data.task"),
    "custom_dataset_info": unsupported("write data.source for its sets"),
    "batch_size": kept("method.per_device_train_batch_size", whole),
    "router_aux_loss_coef": kept("method.router_aux_loss_coef", number),
    "rlhf_type": read_by_hand,
    "rpo_alpha": unsupported("trl has dropped it: loss_type: [sigmoid, sft] with loss_weights"),
    "early_stop_interval": kept("early_stopping.patience", whole),
    "optimizer": unsupported("swift's own; `optim` names transformers'"),
    "dataset_shuffle": implied("the sampler draws rows in a random order"),
    "train_dataloader_shuffle": implied("the sampler draws rows in a random order"),
    "channels": unsupported("losses by channel; `evaluate` scores a set of its own"),
    "model_kwargs": unsupported("write the keys under `model:`"),
    "custom_register_path": unsupported("swift's own code; a plugin package does the same"),
    "external_plugins": unsupported("swift's own code; a plugin package does the same"),
    **dict.fromkeys(("dataset_num_proc", "lazy_tokenize", "load_from_cache_file", "streaming",
                     "preprocess_num_proc", "strict", "download_mode", "cached_dataset"),
                    ROWS_ENCODED),
    **dict.fromkeys(("use_liger", "acc_strategy", "use_logits_to_keep", "use_cce",
                     "experts_impl"), SPEED),
    **dict.fromkeys(("device_map", "sequence_parallel_size", "zero_hpz_partition_size",
                     "deepspeed_autotp_size", "max_memory", "ddp_backend"), DEVICES),
    **dict.fromkeys(("add_version", "check_model", "tuner_backend", "ignore_args_error",
                     "check_dataset_strategy", "load_args", "create_checkpoint_symlink",
                     "save_only_model", "model_name", "model_author", "self_cognition_sample",
                     "safe_serialization", "max_shard_size", "use_ray"), _BY_SWIFT),
    **dict.fromkeys(("max_new_tokens", "temperature", "top_p", "top_k", "repetition_penalty",
                     "num_beams", "predict_with_generate", "stop_words"), _ANSWERS),
    **dict.fromkeys(("swanlab_project", "swanlab_token", "swanlab_mode", "swanlab_exp_name",
                     "swanlab_workspace"), no_effect("the environment's SWANLAB_* say it")),
}  # fmt: skip


class MsSwift(Importer):
    """Read ms-swift's command line in a shell script, and its YAML."""

    title = "ms-swift"
    version = version_of("ms_swift")
    keys = keys_of("ms_swift")
    telling = frozenset(
        ("tuner_type", "train_type", "sft_type", "attn_impl", "split_dataset_ratio", "target_regex",
         "truncation_strategy", "model_id_or_path", "freeze_vit", "loss_scale", "quant_bits")
    )  # fmt: skip
    commands = (r"\bswift (?:sft|pt|rlhf)\b", r"\bswift/cli/(?:sft|pt|rlhf)\.py\b")

    def convert(self, foreign: Foreign, folder: Path) -> Imported:
        """Say the same as a recipe."""
        kind = str(foreign.data.get("rlhf_type") or "")
        is_text = " pt" in foreign.command
        draft = Draft(foreign, METHODS.get(kind, "dpo" if kind else "sft"), _tuner_of(foreign))
        draft.put("model.path", None)
        if kind in METHODS:
            draft.say("rlhf_type", Fate.KEPT, f"method.{draft.method}")
        draft.say("rlhf_type", Fate.UNSUPPORTED, f"there is no method {kind}; dpo comes nearest")
        if draft.method == "grpo":
            draft.put("method.rewards", ["rougeL"])
        _read_model(draft)
        _read_rows(draft, folder, is_text)
        _read_adapter(draft)
        _read_dialogue(draft)
        read_trainer(draft)
        table = {**native_rules(draft.method), **TABLE}
        if draft.method != "sft":
            table = {k: r for k, r in table.items() if k not in ("packing", "padding_free")}
        draft.apply(table)
        _write_defaults(draft, is_text)
        settle(draft)
        return draft.finish(table, self.keys, "ms-swift refuses it")


def _tuner_of(foreign: Foreign) -> str | None:
    kind = next((foreign.data[key] for key in _TUNERS if foreign.data.get(key)), "lora")
    return None if kind == "full" else "lora"


def _first(draft: Draft, keys: tuple[str, ...]) -> tuple[str, Any]:
    key = next((key for key in keys if draft.get(key) is not None), keys[0])
    return key, draft.get(key)


def _read_model(draft: Draft) -> None:
    get = draft.get
    key, path = _first(draft, _MODELS)
    if path is not None:
        draft.keep(key, "model.path", str(path))
    key, dtype = _first(draft, ("torch_dtype", "dtype"))
    names = {"bf16": "bfloat16", "fp16": "float16", "fp32": "float32"}
    dtype = names.get(str(dtype), str(dtype or "auto"))
    known = dtype if dtype in (*names.values(), "auto") else "auto"
    mixed = switch(get("bf16")) and known in ("float32", "auto") and draft.adapter is None
    draft.put("model.dtype", known)
    is_known = known == dtype
    how = "model.dtype" if is_known else "no dtype is known before the script runs; auto is written"
    draft.say(key, Fate.KEPT if is_known else Fate.UNSUPPORTED, how)
    for name in ("bf16", "fp16"):
        if mixed and name == "bf16":
            draft.keep("bf16", "method.bf16", True)
        draft.say(name, Fate.IMPLIED, f"model.dtype {known} says it")
    key, bits = _first(draft, ("quant_bits", "quantization_bit"))
    how = str(get("quant_method", "bnb"))
    kind, twice = str(get("bnb_4bit_quant_type", "nf4")), get("bnb_4bit_use_double_quant", True)
    is_put = how == "bnb" and draft.adapter is not None and put_bits(
        draft, numeric(bits), kind=kind, twice=switch(twice))  # fmt: skip
    for name in (key, "quant_method", "bnb_4bit_quant_type", "bnb_4bit_use_double_quant"):
        if not is_put and switch(bits):
            draft.say(name, Fate.UNSUPPORTED, f"{bits} bits by {how}; bitsandbytes has 4 and 8")
        draft.say(name, Fate.KEPT if is_put else Fate.IMPLIED, WHERE if is_put else "off here too")
    put_tokens(draft, "", "new_special_tokens")


def _read_rows(draft: Draft, folder: Path, is_text: bool) -> None:
    task: dict[str, Any] = {"text": {}} if is_text else {TASKS[draft.method]: {}}
    key, names = _first(draft, _SETS)
    train = [_set(draft, str(name), folder, task) for name in listed(names)]
    held_key, held_names = _first(draft, _HELD)
    held = [_set(draft, str(name), folder, task) for name in listed(held_names)]
    ratio_key, ratio = _first(draft, ("split_dataset_ratio", "dataset_test_ratio"))
    cut = share(numeric(ratio))
    put_rows(draft, train or [no_rows(draft, key)], held=held, cut=cut)
    draft.say(key, Fate.KEPT, "data.source")
    draft.say(held_key, Fate.KEPT, "data.source")
    is_cut = bool(cut) and not held
    how = "data.splits.validation" if is_cut else "nothing is cut from the training rows"
    draft.say(ratio_key, Fate.KEPT if is_cut else Fate.IMPLIED, how)


def _set(draft: Draft, name: str, folder: Path, task: Mapping[str, Any]) -> Rows:
    path, _, count = name.partition("#")
    path = path.removeprefix("HF::").removeprefix("MS::")
    subset = None
    if ":" in path and not Path(path).is_absolute():
        path, _, subset = path.partition(":")
    split = f"train[:{count}]" if count.isdigit() else "train"
    return Rows(source_of(draft, path, folder, name=subset), task, split)


def _read_adapter(draft: Draft) -> None:
    get = draft.get
    key, kind = _first(draft, _TUNERS)
    if draft.adapter is None:
        draft.put("adapter", "full")
        draft.say(key, Fate.KEPT, "adapter: full")
        for name in ("target_modules", "lora_target_modules", "init_weights"):
            draft.say(name, Fate.NO_EFFECT, "nothing is adapted: every weight is trained")
    else:
        draft.recipe["adapter"] = {"lora": {}}
        if kind not in (None, "lora"):
            draft.say(key, Fate.UNSUPPORTED, f"{kind} is not read; a LoRA comes nearest")
        fate = Fate.KEPT if kind else Fate.DEFAULT
        draft.say(key, fate, "adapter.lora", value="lora")
        name, target = _first(draft, ("target_modules", "lora_target_modules"))
        modules = listed(target, separator=" ") if isinstance(target, str) else listed(target)
        is_all = not modules or {str(one).lower() for one in modules} & {
            "all",
            "all-linear",
            "default",
            "auto",
        }
        if get("target_regex") is None:
            draft.put("adapter.target_modules", "all-linear" if is_all else modules)
        draft.say(name, Fate.KEPT, draft.spelled("adapter.target_modules"))
        draft.say(name, Fate.DEFAULT, draft.spelled("adapter.target_modules"), value="all-linear")
        start = str(get("init_weights", "true"))
        if start in ("pissa", "olora", "gaussian"):
            draft.keep("init_weights", "adapter.init_lora_weights", start)
        off = start == "true"
        draft.say("init_weights", Fate.IMPLIED if off else Fate.UNSUPPORTED, "peft's own start")
    adapters = listed(get("adapters"))
    if adapters:
        draft.recipe["adapter"] = {"from": str(adapters[0])}
        draft.say("adapters", Fate.KEPT, "adapter.from")
        draft.adapter = None


def _read_dialogue(draft: Draft) -> None:
    get = draft.get
    strategy = str(get("truncation_strategy", "delete"))
    if draft.method == "sft":
        draft.take("max_length", "method.max_length", whole)
        if strategy == "delete":
            draft.put("data.rows.too_long", "drop")
            draft.say("truncation_strategy", Fate.KEPT, "data.rows.too_long")
            draft.say("truncation_strategy", Fate.DEFAULT, "data.rows.too_long", value="delete")
        elif strategy == "left":
            draft.keep("truncation_strategy", "method.truncation_mode", "keep_end")
    if draft.method == "grpo":
        draft.say("max_length", Fate.IMPLIED, "prompts are as long as they are")
    draft.take("max_length", "method.max_length", whole)
    draft.say("truncation_strategy", Fate.IMPLIED, "rows that are too long are cut")
    scale = str(get("loss_scale", "default"))
    words = {"all": "everything", "last_round": "last_answer"}
    if scale in words:
        draft.keep("loss_scale", "data.dialogue.train", words[scale])
    known = set(scale.split("+")) <= {"default", "ignore_empty_think"}
    draft.say(
        "loss_scale", Fate.IMPLIED if known else Fate.UNSUPPORTED, "answers are trained alike"
    )
    draft.say("loss_type", Fate.UNSUPPORTED, "swift's own losses; cross-entropy comes nearest")
    if get("enable_thinking") is not None:
        draft.keep("enable_thinking", "data.dialogue.chat_template_kwargs",
                   {"enable_thinking": switch(get("enable_thinking"))})  # fmt: skip
    if not is_off(get("system")):
        system = str(get("system")).replace("{", "{{").replace("}", "}}")
        draft.keep("system", "data.dialogue.system", system)


def _write_defaults(draft: Draft, is_text: bool) -> None:
    """Write out what ms-swift means where it is silent."""
    is_lora = draft.adapter == "lora"
    rate = (1e-4 if is_lora else 1e-5) if draft.method != "grpo" else 1e-6
    draft.default("learning_rate", "method.learning_rate", rate)
    draft.default("num_train_epochs", "method.num_train_epochs", 3)
    draft.default("per_device_train_batch_size", "method.per_device_train_batch_size", 1)
    rows = draft.recipe["method"][draft.method].get("per_device_train_batch_size")
    if isinstance(rows, int) and rows > 0:
        draft.default("gradient_accumulation_steps", "method.gradient_accumulation_steps",
                      math.ceil(16 / rows), "ms-swift: 16 rows a step")  # fmt: skip
    draft.default("lr_scheduler_type", "method.lr_scheduler_type", "cosine")
    draft.default("weight_decay", "method.weight_decay", 0.1)
    draft.default("adam_beta2", "method.adam_beta2", 0.95)
    if draft.get("gradient_checkpointing") is None:
        draft.default("gradient_checkpointing", "method.gradient_checkpointing", True)
    if is_lora:
        draft.default("lora_rank", "adapter.r", 8)
        draft.default("lora_alpha", "adapter.lora_alpha", 32)
        draft.default("lora_dropout", "adapter.lora_dropout", 0.05)
    if is_text and draft.method == "sft":
        draft.default("packing", "method.packing", False)
