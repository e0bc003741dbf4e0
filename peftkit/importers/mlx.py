"""mlx-lm's YAML and command line: the table of its keys."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from peftkit.importers.native import read_trackers
from peftkit.importers.rows import Rows, no_rows, put_rows, source_of
from peftkit.importers.schemas import keys_of, version_of
from peftkit.importers.settled import settle
from peftkit.plugins.imported import (
    Draft,
    Rule,
    flattened,
    implied,
    is_off,
    kept,
    listed,
    mapped,
    no_effect,
    number,
    numeric,
    read_by_hand,
    switch,
    unsupported,
    whole,
)
from peftkit.plugins.importer import Fate, Foreign, Imported, Importer

_OPTIMIZERS = {"adam": "adamw_torch", "adamw": "adamw_torch", "sgd": "sgd",
               "adafactor": "adafactor"}  # fmt: skip
_LINEAR = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
"""The linear layers of Llama and its like, by name: layers by number need names."""
_LAYERS = ("num_layers", "lora_layers")

TABLE: Mapping[str, Rule] = {
    "model": read_by_hand,
    "train": implied("`peftkit run` trains"),
    "test": implied("`peftkit evaluate` scores"),
    "test_batches": no_effect("`evaluate.limit` says how many rows are scored"),
    "data": read_by_hand,
    "hf_dataset": read_by_hand,
    "fine_tune_type": read_by_hand,
    "num_layers": read_by_hand,
    "lora_layers": read_by_hand,
    **dict.fromkeys((f"lora_parameters.{name}" for name in ("rank", "alpha", "scale", "dropout",
                                                          "keys")), read_by_hand),
    "batch_size": kept("method.per_device_train_batch_size", whole),
    "iters": kept("method.max_steps", whole),
    "learning_rate": kept("method.learning_rate", number),
    "grad_accumulation_steps": kept("method.gradient_accumulation_steps", whole),
    "max_seq_length": kept("method.max_length", whole),
    "seed": kept("method.seed", whole),
    "optimizer": read_by_hand,
    "lr_schedule.name": read_by_hand,
    "lr_schedule.warmup": kept("method.warmup_steps", whole),
    "lr_schedule.warmup_init": no_effect("the rate grows from 0"),
    "lr_schedule.arguments": read_by_hand,
    "steps_per_report": kept("method.logging_steps", whole),
    "steps_per_eval": read_by_hand,
    "val_batches": no_effect("all rows that are held out are read"),
    "save_every": read_by_hand,
    "adapter_path": no_effect("`peftkit run --out DIR`; by default runs/NAME"),
    "resume_adapter_file": unsupported("mlx's own file; adapter.from takes one in PEFT's format"),
    "grad_checkpoint": read_by_hand,
    "mask_prompt": read_by_hand,
    "prompt_feature": read_by_hand,
    "completion_feature": read_by_hand,
    "chat_feature": read_by_hand,
    "text_feature": read_by_hand,
    "trust_remote_code": kept("model.trust_remote_code", switch),
    "clear_cache_threshold": no_effect("how memory is held, not what is computed"),
    "report_to": read_by_hand,
    "wandb": no_effect("`report_to: wandb`, and the environment's WANDB_PROJECT"),
    "project_name": no_effect("the environment's WANDB_PROJECT says it"),
}  # fmt: skip


class Mlx(Importer):
    """Read mlx-lm's YAML for LoRA, and its command line."""

    title = "mlx-lm"
    version = version_of("mlx")
    keys = keys_of("mlx")
    telling = frozenset(
        ("lora_parameters", "num_layers", "lora_layers", "iters", "steps_per_report", "val_batches",
         "steps_per_eval", "save_every", "adapter_path", "grad_checkpoint", "mask_prompt",
         "fine_tune_type", "resume_adapter_file")
    )  # fmt: skip
    commands = (r"\bmlx_lm(?:\.| )lora\b",)

    def convert(self, foreign: Foreign, folder: Path) -> Imported:
        """Say the same as a recipe."""
        names = {key: key.replace("-", "_") for key in foreign.data}
        data = {names[key]: value for key, value in foreign.data.items()}
        draft = Draft(flattened(Foreign(foreign.file, data, foreign.lines, foreign.command)))
        kind = str(draft.get("fine_tune_type", "lora"))
        draft.adapter = None if kind == "full" else "lora"
        _read_model(draft)
        _read_rows(draft, folder)
        _read_adapter(draft, kind)
        _read_training(draft)
        read_trackers(draft)
        draft.apply(TABLE)
        _write_defaults(draft)
        settle(draft)
        return draft.finish(TABLE, self.keys, "mlx-lm ignores it too")


def _read_model(draft: Draft) -> None:
    name = str(draft.get("model", "Qwen/Qwen3-0.6b"))
    draft.put("model.path", name)
    draft.put("model.dtype", "auto")
    if name.startswith("mlx-community/") or name.endswith(("-4bit", "-8bit", "-mlx")):
        draft.say(
            "model",
            Fate.DIFFERS,
            "model.path: these weights are mlx's; name the model that"
            " they were made of, and quantize: {bitsandbytes: {load_in_4bit: true}}",
        )
    draft.say("model", Fate.KEPT, "model.path")


def _read_rows(draft: Draft, folder: Path) -> None:
    get = draft.get
    data = get("data") or mapped(draft.foreign.data.get("hf_dataset")).get("path")
    task = _task(draft)
    if data is None:
        put_rows(draft, [no_rows(draft, "data")])
        return
    source = source_of(draft, str(data), folder, kind="json")
    put_rows(draft, [Rows(source, task)])
    place = draft.foreign.place_of(str(data))
    is_hub = "hub" in source
    files = {path.stem for path in place.glob("*.jsonl")} if place and place.is_dir() else set()
    if "valid" in files or (not place and not is_hub):
        draft.put("data.splits", {"train": "train", "validation": "validation"})
    draft.say("data", Fate.KEPT, "data.source")
    for key in ("prompt_feature", "completion_feature", "text_feature", "chat_feature"):
        draft.say(key, Fate.KEPT, "data.task")
    only = switch(get("mask_prompt"))
    if only:
        draft.say("mask_prompt", Fate.IMPLIED, "answers alone are trained")
    elif "text" not in task:
        draft.put("data.dialogue.train", "everything")
        draft.say("mask_prompt", Fate.KEPT, "data.dialogue.train")
        draft.say("mask_prompt", Fate.DEFAULT, "data.dialogue.train", value="false")


def _task(draft: Draft) -> dict[str, Any]:
    """Say what rows mean: messages, unless columns are named."""
    names = {
        name: draft.get(f"{name}_feature") for name in ("prompt", "completion", "text", "chat")
    }
    said = {name: str(value) for name, value in names.items() if switch(value)}
    if "prompt" in said or "completion" in said:
        return {"prompt_completion": {"prompt": "prompt", "completion": "completion"} | {
            name: said[name] for name in ("prompt", "completion") if name in said}}  # fmt: skip
    if "text" in said:
        return {"text": {"text": said["text"]}}
    return {"chat": {"messages": said["chat"]} if "chat" in said else {}}


def _read_adapter(draft: Draft, kind: str) -> None:
    get = draft.get
    where = "lora_parameters"
    key = next((name for name in _LAYERS if get(name) is not None), "num_layers")
    layers = numeric(get(key, 16))
    if draft.adapter is None:
        draft.put("adapter", "full")
        draft.say("fine_tune_type", Fate.KEPT, "adapter: full")
    else:
        draft.recipe["adapter"] = {"lora": {}}
        if kind == "dora":
            draft.keep("fine_tune_type", "adapter.use_dora", True)
        draft.say("fine_tune_type", Fate.KEPT, "adapter.lora")
    if layers is not None and layers < 0:
        draft.say(key, Fate.IMPLIED, "all layers, as there")
    elif draft.adapter is None:
        draft.say(key, Fate.DIFFERS, "all layers; adapter.full.train takes `layers.-4:`")
    else:
        number_ = int(layers or 16)
        draft.put("adapter.layers_to_transform", list(range(-number_, 0)), f"the last {number_}")
        draft.say(key, Fate.KEPT, "adapter.lora.layers_to_transform")
        draft.say(key, Fate.DEFAULT, "adapter.lora.layers_to_transform", value=16)
    rank = numeric(get(f"{where}.rank", 8)) or 8
    alpha, scale = numeric(get(f"{where}.alpha")), numeric(get(f"{where}.scale"))
    for name in ("rank", "alpha", "scale", "dropout", "keys"):
        if draft.adapter is None:
            draft.say(f"{where}.{name}", Fate.NO_EFFECT, "nothing is adapted")
    if draft.adapter is None:
        return
    names = [str(one).rpartition(".")[2] for one in listed(get(f"{where}.keys"))]
    every: Any = "all-linear" if layers is not None and layers < 0 else list(_LINEAR)
    draft.put("adapter.target_modules", list(dict.fromkeys(names)) or every)
    draft.say(f"{where}.keys", Fate.KEPT, "adapter.lora.target_modules")
    draft.put("adapter.r", rank)
    draft.say(f"{where}.rank", Fate.KEPT, "adapter.lora.r")
    draft.say(f"{where}.rank", Fate.DEFAULT, "adapter.lora.r", value=rank)
    times = 20.0 if scale is None else scale
    is_older = alpha is not None and scale is None
    size = alpha if is_older else whole(times * rank)
    draft.put("adapter.lora_alpha", size, "" if is_older else "mlx-lm: scale times rank")
    for name in ("scale", "alpha"):
        used = (name == "alpha") == is_older
        draft.say(f"{where}.{name}", Fate.KEPT if used else Fate.IMPLIED, "adapter.lora.lora_alpha")
    draft.say(f"{where}.scale", Fate.DEFAULT, "adapter.lora.lora_alpha", value=20.0)
    draft.take(f"{where}.dropout", "adapter.lora_dropout", number)


def _read_training(draft: Draft) -> None:
    get = draft.get
    name = str(get("optimizer", "adam")).lower()
    if name in _OPTIMIZERS:
        draft.put("method.optim", _OPTIMIZERS[name])
        draft.put("method.weight_decay", 0.01 if name == "adamw" else 0.0)
        draft.say("optimizer", Fate.KEPT, draft.spelled("method.optim"))
    draft.say("optimizer", Fate.UNSUPPORTED, f"{name}; adamw_torch comes nearest")
    schedule, arguments = get("lr_schedule.name"), listed(get("lr_schedule.arguments"))
    kinds = {"cosine_decay": "cosine", "linear_schedule": "linear", "exponential_decay": None}
    if schedule in kinds and kinds[str(schedule)]:
        draft.keep("lr_schedule.name", "method.lr_scheduler_type", kinds[str(schedule)])
        least, rate = (
            numeric(arguments[2] if len(arguments) > 2 else 0),
            numeric(get("learning_rate")),
        )
        if schedule == "cosine_decay" and least and rate:
            draft.put("method.lr_scheduler_type", "cosine_with_min_lr")
            draft.put("method.lr_scheduler_kwargs", {"min_lr": float(least)})
        draft.say("lr_schedule.arguments", Fate.KEPT, draft.spelled("method.lr_scheduler_type"))
    else:
        is_warm = get("lr_schedule.warmup") and schedule is None
        draft.put("method.lr_scheduler_type", "constant_with_warmup" if is_warm else "constant")
    draft.say("lr_schedule.name", Fate.UNSUPPORTED, f"{schedule}; cosine comes nearest")
    draft.say("lr_schedule.arguments", Fate.UNSUPPORTED, "they belong to it")
    draft.say("lr_schedule", Fate.IMPLIED, "the rate is constant, as there")
    draft.say(
        "lr_schedule", Fate.DEFAULT, draft.spelled("method.lr_scheduler_type"), value="constant"
    )
    draft.put("method.gradient_checkpointing", switch(get("grad_checkpoint")))
    draft.say("grad_checkpoint", Fate.KEPT, draft.spelled("method.gradient_checkpointing"))
    for noun, key, often in (("eval", "steps_per_eval", 200), ("save", "save_every", 100)):
        steps = numeric(get(key, often))
        if steps and not is_off(steps):
            draft.put(f"method.{noun}_strategy", "steps")
            draft.put(f"method.{noun}_steps", steps)
            draft.say(key, Fate.KEPT, draft.spelled(f"method.{noun}_steps"))


def _write_defaults(draft: Draft) -> None:
    """Write out what mlx-lm means where it is silent."""
    for key, to, value in (
        ("iters", "method.max_steps", 1000),
        ("learning_rate", "method.learning_rate", 1e-5),
        ("batch_size", "method.per_device_train_batch_size", 4),
        ("max_seq_length", "method.max_length", 2048),
        ("seed", "method.seed", 0),
    ):
        draft.default(key, to, value)
