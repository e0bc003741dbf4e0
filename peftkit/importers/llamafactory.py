"""LLaMA-Factory's YAML and command line: the table of its keys."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from peftkit.importers.llamafactory_rows import read_rows
from peftkit.importers.native import (
    DEVICES,
    ROWS_ENCODED,
    SPEED,
    native_rules,
    precision,
    read_trainer,
)
from peftkit.importers.schemas import keys_of, version_of
from peftkit.importers.settled import settle
from peftkit.importers.templates import put_tokens
from peftkit.plugins.imported import (
    Converted,
    Draft,
    Rule,
    differs,
    implied,
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

METHODS = {"sft": "sft", "pt": "sft", "dpo": "dpo", "kto": "kto", "rm": "reward"}
"""Stage -> method."""
_ANSWERS = no_effect("`evaluate.generation` says how answers are generated")
_EXPORT = no_effect("`peftkit merge` and `peftkit export` write models")
_VISION = no_effect("it is about images, of which there are none")
_LOSSES = {"sigmoid": "sigmoid", "hinge": "hinge", "ipo": "ipo"}
_ATTENTION = {"fa2": "flash_attention_2", "fa3": "flash_attention_3", "sdpa": "sdpa",
              "disabled": "eager"}  # fmt: skip


def _attention(value: Any) -> str:
    if value in (True, "True"):
        return "flash_attention_2"
    if str(value) in _ATTENTION:
        return _ATTENTION[str(value)]
    raise Converted(Fate.IMPLIED, "transformers chooses")


TABLE: Mapping[str, Rule] = {
    # what is loaded
    "model_name_or_path": kept("model.path"),
    "model_revision": kept("model.revision", revision),
    "trust_remote_code": kept("model.trust_remote_code", switch),
    "flash_attn": kept("model.attn_implementation", _attention),
    "rope_scaling": unsupported("a base keeps its positions; take one that was trained longer"),
    "shift_attn": unsupported("shifted sparse attention; attend to all, with flash_attn: fa2"),
    "cache_dir": no_effect("the environment's HF_HOME says it"),
    "use_fast_tokenizer": implied("fast tokenizers are read"),
    "low_cpu_mem_usage": implied("transformers does it by itself"),
    "split_special_tokens": implied("special tokens in what is said are text:"
                                    " data.dialogue.control_tokens"),
    "resize_vocab": implied("tokens that are added get rows of their own"),
    "add_tokens": read_by_hand,
    "add_special_tokens": read_by_hand,
    "new_special_tokens": read_by_hand,
    "quantization_bit": read_by_hand,
    "quantization_method": read_by_hand,
    "quantization_type": read_by_hand,
    "double_quantization": read_by_hand,
    "pure_bf16": read_by_hand,
    "infer_dtype": no_effect("it is about answers"),
    "upcast_layernorm": differs("norms stay in the model's dtype"),
    "upcast_lmhead_output": implied("trl's loss is computed in float32"),
    "moe_aux_loss_coef": kept("method.router_aux_loss_coef", number),
    "hf_hub_token": no_effect("the environment's HF_TOKEN is used"),
    "ms_hub_token": no_effect("only the Hub of Hugging Face is read"),
    # what is trained
    "finetuning_type": read_by_hand,
    "adapter_name_or_path": read_by_hand,
    "create_new_adapter": read_by_hand,
    "lora_rank": kept("adapter.r", whole),
    "lora_alpha": kept("adapter.lora_alpha", number),
    "lora_dropout": kept("adapter.lora_dropout", number),
    "lora_target": read_by_hand,
    "additional_target": read_by_hand,
    "use_rslora": kept("adapter.use_rslora", switch),
    "use_dora": kept("adapter.use_dora", switch),
    "pissa_init": read_by_hand,
    "pissa_iter": no_effect("pissa by an exact decomposition, which takes no iterations"),
    "pissa_convert": no_effect("an adapter is saved as it is"),
    "loraplus_lr_ratio": unsupported("B learns at the rate of A; raise learning_rate"),
    "freeze_trainable_layers": read_by_hand,
    "freeze_trainable_modules": read_by_hand,
    "freeze_extra_modules": read_by_hand,
    "use_llama_pro": unsupported("new layers; a LoRA of a higher rank comes nearest"),
    "use_galore": read_by_hand,
    "use_apollo": read_by_hand,
    "use_badam": unsupported("blocks by turns; a LoRA takes as little memory"),
    "use_adam_mini": unsupported("adamw_torch_8bit or a LoRA takes as little memory"),
    "use_muon": unsupported("muon trains new models here: method.pretrain_lm"),
    "mixture_of_depths": unsupported("no layer is skipped"),
    # how it is trained
    "stage": read_by_hand,
    "do_train": implied("`peftkit run` trains"),
    "do_eval": implied("eval_strategy says it"),
    "do_predict": implied("`peftkit evaluate` answers and scores"),
    "disable_gradient_checkpointing": read_by_hand,
    "use_reentrant_gc": read_by_hand,
    "early_stopping_steps": kept("early_stopping.patience", whole),
    "pref_beta": kept("method.beta", number),
    "pref_loss": read_by_hand,
    "pref_ftx": read_by_hand,
    "dpo_label_smoothing": kept("method.label_smoothing", number),
    "kto_chosen_weight": kept("method.desirable_weight", number),
    "kto_rejected_weight": kept("method.undesirable_weight", number),
    "ref_model": unsupported("the reference is the base with the adapter switched off"),
    "compute_accuracy": differs("speed.loss: native logs mean_token_accuracy"),
    "plot_loss": implied("a run's report draws the loss"),
    "disable_shuffling": kept("method.train_sampling_strategy", lambda _: "sequential"),
    # rows
    **dict.fromkeys(
        ("dataset", "eval_dataset", "dataset_dir", "template", "cutoff_len", "max_samples",
         "val_size", "packing", "neat_packing", "train_on_prompt", "mask_history",
         "mix_strategy", "interleave_probs", "default_system", "enable_thinking", "streaming"),
        read_by_hand,
    ),
    "media_dir": _VISION,
    "overwrite_cache": ROWS_ENCODED,
    "preprocessing_num_workers": ROWS_ENCODED,
    "preprocessing_batch_size": ROWS_ENCODED,
    "tokenized_path": ROWS_ENCODED,
    "buffer_size": no_effect("it belongs to streaming"),
    "tool_format": implied("the chat template writes tools"),
    "ignore_pad_token_for_loss": implied("padding is never trained"),
    "eval_on_each_dataset": no_effect("`peftkit evaluate --data` scores one"),
    # devices, speed, what comes after
    **dict.fromkeys(("use_unsloth", "use_unsloth_gc", "enable_liger_kernel"), SPEED),
    **dict.fromkeys(("ray_run_name", "ray_num_workers", "resources_per_worker",
                     "placement_strategy", "device_map", "quantization_device_map",
                     "offload_folder"), DEVICES),
    **dict.fromkeys(("freeze_vision_tower", "freeze_multi_modal_projector", "image_max_pixels",
                     "image_min_pixels", "video_max_pixels", "video_min_pixels", "video_fps",
                     "video_maxlen", "freeze_language_model", "image_resolution"), _VISION),
    **dict.fromkeys(("do_sample", "temperature", "top_p", "top_k", "num_beams", "max_new_tokens",
                     "repetition_penalty", "length_penalty", "eval_num_beams", "infer_backend",
                     "generation_max_length"), _ANSWERS),
    **dict.fromkeys(("export_dir", "export_size", "export_device", "export_legacy_format",
                     "export_hub_model_id"), _EXPORT),
    "use_swanlab": read_by_hand,
    "swanlab_project": no_effect("the environment's SWANLAB_PROJECT says it"),
    "swanlab_run_name": no_effect("`name:` of the recipe says it"),
}  # fmt: skip


class LlamaFactory(Importer):
    """Read LLaMA-Factory's YAML, and its command line in a shell script."""

    title = "LLaMA-Factory"
    version = version_of("llamafactory")
    keys = keys_of("llamafactory")
    telling = frozenset(
        ("stage", "finetuning_type", "template", "cutoff_len", "lora_target", "lora_rank",
         "dataset_dir", "overwrite_cache", "preprocessing_num_workers", "plot_loss", "val_size",
         "quantization_bit", "max_samples")
    )  # fmt: skip
    commands = (
        r"\bllamafactory-cli train\b",
        r"\blmf train\b",
        r"\bsrc/train(?:_bash|_sft|_pt|_dpo|_rm)?\.py\b",
        r"\bsrc/llamafactory/(?:launcher|cli)\.py\b",
    )

    def convert(self, foreign: Foreign, folder: Path) -> Imported:
        """Say the same as a recipe."""
        stage = str(foreign.data.get("stage") or "sft")
        kind = str(foreign.data.get("finetuning_type") or "lora")
        draft = Draft(foreign, METHODS.get(stage, "grpo"), "lora" if kind == "lora" else None)
        draft.put("model.path", None)
        dtype = precision(draft, default="auto", pure="pure_bf16")
        _read_stage(draft, stage)
        _read_quantization(draft)
        put_tokens(draft, "", "add_tokens", "add_special_tokens", "new_special_tokens")
        read_rows(draft, folder, stage)
        _read_adapter(draft, kind)
        _read_training(draft)
        read_trainer(draft)
        table = {**native_rules(draft.method), **TABLE}
        draft.apply(table)
        if dtype == "auto" and draft.get("bf16") is None and draft.get("fp16") is None:
            draft.say("bf16, fp16", Fate.DEFAULT, "model.dtype", value="the checkpoint's own")
        _write_defaults(draft)
        settle(draft)
        return draft.finish(table, self.keys, "LLaMA-Factory refuses it")


def _read_stage(draft: Draft, stage: str) -> None:
    if stage in METHODS:
        fate = Fate.DEFAULT if draft.get("stage") is None else Fate.KEPT
        draft.say("stage", fate, f"method.{draft.method}", value=stage)
    else:
        draft.put("method.rewards", ["rougeL"])
        draft.say("stage", Fate.UNSUPPORTED, f"there is no {stage}; grpo learns from rewards too")
    loss, extra = str(draft.get("pref_loss", "sigmoid")), draft.get("pref_ftx")
    if draft.method != "dpo":
        for key in ("pref_loss", "pref_ftx"):
            if draft.get(key) is not None:
                draft.say(key, Fate.NO_EFFECT, "it belongs to the stage dpo")
        return
    if loss not in _LOSSES:
        draft.say("pref_loss", Fate.UNSUPPORTED, f"there is no {loss}; sigmoid, DPO's, is nearest")
        loss = "sigmoid"
    draft.put("method.loss_type", [_LOSSES[loss]])
    if draft.get("pref_loss") is not None:
        draft.say("pref_loss", Fate.KEPT, draft.spelled("method.loss_type"))
    if switch(extra):
        draft.put("method.loss_type", [_LOSSES[loss], "sft"])
        draft.take("pref_ftx", "method.loss_weights", lambda weight: [1.0, number(weight)])


def _read_quantization(draft: Draft) -> None:
    get = draft.get
    bits = numeric(get("quantization_bit"))
    how = str(get("quantization_method", "bitsandbytes")).lower()
    related = ("quantization_method", "quantization_type", "double_quantization")
    if not switch(bits):
        for key in ("quantization_bit", *related):
            if get(key) is not None:
                draft.say(key, Fate.IMPLIED, "nothing is quantized")
        return
    where = "model.quantize.bitsandbytes"
    if how in ("bitsandbytes", "bnb") and bits == 4:
        draft.put(where, {
            "load_in_4bit": True, "bnb_4bit_quant_type": str(get("quantization_type", "nf4")),
            "bnb_4bit_use_double_quant": switch(get("double_quantization", True)),
        })  # fmt: skip
    elif how in ("bitsandbytes", "bnb") and bits == 8:
        draft.put(where, {"load_in_8bit": True})
    elif how == "hqq":
        where = "model.quantize.hqq"
        draft.put(where, {"nbits": bits})
    elif how == "eetq":
        where = "model.quantize.eetq"
        draft.put(where, {})
    else:
        draft.say("quantization_bit", Fate.UNSUPPORTED, f"{bits} bits by {how}; 4 or 8 by"
                  " bitsandbytes come nearest")  # fmt: skip
    for key in ("quantization_bit", *related):
        if get(key) is not None:
            draft.say(key, Fate.KEPT, where)


def _read_adapter(draft: Draft, kind: str) -> None:
    get = draft.get
    if draft.adapter is None:
        _read_full(draft, kind)
        return
    fate = Fate.DEFAULT if get("finetuning_type") is None else Fate.KEPT
    draft.say("finetuning_type", fate, "adapter.lora", value="lora")
    for key in ("freeze_trainable_layers", "freeze_trainable_modules", "freeze_extra_modules"):
        draft.say(key, Fate.NO_EFFECT, "it belongs to finetuning_type freeze")
    start = get("adapter_name_or_path")
    if start and not switch(get("create_new_adapter")):
        _continue(draft, str(start))
        return
    if start:
        draft.say("adapter_name_or_path", Fate.UNSUPPORTED, "a second adapter over a first: merge"
                  " the first with `peftkit merge`, and name the result as model.path")  # fmt: skip
    names = listed(get("lora_target", "all"), separator=",")
    modules: Any = "all-linear" if names == ["all"] else names
    if get("lora_target") is None:
        draft.default("lora_target", "adapter.target_modules", modules)
    else:
        draft.keep("lora_target", "adapter.target_modules", modules)
    extra = get("additional_target")
    if listed(extra, separator=","):
        names = listed(extra, separator=",")
        draft.keep("additional_target", "adapter.modules_to_save", names)
    draft.say("additional_target", Fate.IMPLIED, "none are named")
    if switch(get("pissa_init")):
        draft.keep("pissa_init", "adapter.init_lora_weights", "pissa")


def _read_full(draft: Draft, kind: str) -> None:
    """Train the base itself, all of it or part of it."""
    draft.put("adapter", "full")
    if kind == "full":
        draft.say("finetuning_type", Fate.KEPT, "adapter: full")
    elif kind == "freeze":
        _read_frozen(draft)
    draft.say("finetuning_type", Fate.UNSUPPORTED, f"{kind}: a LoRA takes as little memory")
    for key in ("freeze_trainable_layers", "freeze_trainable_modules", "freeze_extra_modules"):
        draft.say(key, Fate.NO_EFFECT, "it belongs to finetuning_type freeze")
    for key in ("lora_target", "additional_target", "pissa_init"):
        draft.say(key, Fate.NO_EFFECT, "nothing is adapted: every weight is trained")


def _read_frozen(draft: Draft) -> None:
    """Train the last layers, or the first, and what else is named."""
    get = draft.get
    count = numeric(get("freeze_trainable_layers", 2)) or 2
    layers = f"layers.-{int(count)}:" if count > 0 else ""
    modules = [str(one) for one in listed(get("freeze_trainable_modules", "all"), separator=",")]
    extra = [str(one) for one in listed(get("freeze_extra_modules"), separator=",")]
    if not layers:
        draft.say("freeze_trainable_layers", Fate.UNSUPPORTED, "the first layers: write"
                  " adapter.full.train with their numbers")  # fmt: skip
    draft.put("adapter", {"full": {"train": [*([layers] if layers else []), *extra]}})
    draft.say("finetuning_type", Fate.KEPT, "adapter.full.train")
    draft.say("freeze_trainable_layers", Fate.KEPT, "adapter.full.train")
    draft.say("freeze_trainable_layers", Fate.DEFAULT, "adapter.full.train", value=2)
    whole_ = modules == ["all"]
    draft.say("freeze_trainable_modules", Fate.KEPT if whole_ else Fate.DIFFERS,
              "adapter.full.train" if whole_ else "whole layers are trained")  # fmt: skip
    draft.say("freeze_extra_modules", Fate.KEPT, "adapter.full.train")


def _continue(draft: Draft, start: str) -> None:
    """Go on with an adapter, whose own configuration says what it is."""
    draft.put("adapter", {"from": start.split(",", maxsplit=1)[0].strip()})
    if "," in start:
        draft.say("adapter_name_or_path", Fate.UNSUPPORTED, "only the first of several adapters;"
                  " `peftkit merge` combines them")  # fmt: skip
    draft.say("adapter_name_or_path", Fate.KEPT, "adapter.from")
    for key in ("lora_rank", "lora_alpha", "lora_dropout", "lora_target", "additional_target",
                "use_rslora", "use_dora", "pissa_init"):  # fmt: skip
        if draft.get(key) is not None:
            draft.say(key, Fate.IMPLIED, "the adapter that goes on says it, as there")
    draft.adapter = None


def _read_training(draft: Draft) -> None:
    get = draft.get
    is_on = not switch(get("disable_gradient_checkpointing"))
    if get("gradient_checkpointing") is None:
        fate = Fate.DEFAULT if is_on else Fate.KEPT
        draft.put("method.gradient_checkpointing", is_on)
        draft.say("disable_gradient_checkpointing", fate,
                  draft.spelled("method.gradient_checkpointing"), value=not is_on)  # fmt: skip
    if get("use_reentrant_gc") is not None:
        draft.keep("use_reentrant_gc", "method.gradient_checkpointing_kwargs",
                   {"use_reentrant": switch(get("use_reentrant_gc"))})  # fmt: skip
    for key in ("use_galore", "use_apollo"):
        if switch(get(key)):
            name = key.removeprefix("use_")
            options = {
                "rank": get(f"{name}_rank", 16),
                "update_proj_gap": get(f"{name}_update_interval", 200),
                "scale": get(f"{name}_scale", 2.0 if name == "galore" else 32.0),
            }
            draft.put("method.optim", f"{name}_adamw")
            targets = str(get(f"{name}_target", "all"))
            draft.put("method.optim_target_modules",
                      "all-linear" if targets == "all" else targets.split(","))  # fmt: skip
            draft.put("method.optim_args", ",".join(f"{k}={v}" for k, v in options.items()))
            draft.say(key, Fate.KEPT, draft.spelled("method.optim"))
            draft.say("optim", Fate.IMPLIED, f"{key} counts, as there")
            for other in draft.foreign.data:
                if other.startswith(f"{name}_"):
                    draft.say(other, Fate.KEPT, draft.spelled("method.optim_args"))
    if switch(get("use_swanlab")):
        draft.keep("use_swanlab", "method.report_to", "swanlab")


def _write_defaults(draft: Draft) -> None:
    """Write out what LLaMA-Factory means where it is silent and trl or peft mean something else."""
    draft.default("learning_rate", "method.learning_rate", 5e-5)
    if draft.get("max_steps") is None:
        draft.default("num_train_epochs", "method.num_train_epochs", 3.0)
    draft.default("per_device_train_batch_size", "method.per_device_train_batch_size", 8)
    draft.default("lr_scheduler_type", "method.lr_scheduler_type", "linear")
    if draft.adapter == "lora":
        draft.default("lora_rank", "adapter.r", 8)
        rank = draft.recipe["adapter"]["lora"]["r"]
        if isinstance(rank, int):
            draft.default("lora_alpha", "adapter.lora_alpha", 2 * rank, "LLaMA-Factory: twice r")
        draft.default("lora_dropout", "adapter.lora_dropout", 0.0)
    if draft.method == "dpo":
        draft.default("pref_beta", "method.beta", 0.1)
