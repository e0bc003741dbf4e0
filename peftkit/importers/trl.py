"""trl's and the alignment handbook's YAML, and their commands: the table of keys."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from peftkit.importers.native import (
    ROWS_ENCODED,
    SPEED,
    native_rules,
    precision,
    read_trainer,
)
from peftkit.importers.quantized import WHERE, put_bits
from peftkit.importers.rows import TASKS, Rows, first_row, no_rows, put_rows, source_of
from peftkit.importers.settled import settle
from peftkit.importers.templates import put_template
from peftkit.plugins.imported import (
    Draft,
    Rule,
    implied,
    is_off,
    kept,
    listed,
    mapped,
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
from peftkit.recipe.signatures import signature_of

METHODS = ("dpo", "kto", "reward", "grpo", "sft")

TABLE: Mapping[str, Rule] = {
    "model_name_or_path": kept("model.path"),
    "model_revision": kept("model.revision", revision),
    "trust_remote_code": kept("model.trust_remote_code", switch),
    "attn_implementation": kept("model.attn_implementation"),
    "use_flash_attention_2": read_by_hand,
    "torch_dtype": read_by_hand,
    "dtype": read_by_hand,
    "model_init_kwargs": unsupported("write the keys under `model:`"),
    "model_code_revision": implied("code is that of the model's revision"),
    "tokenizer_name_or_path": unsupported("write model.tokenizer: {path: ...}"),
    "use_peft": read_by_hand,
    "lora_r": kept("adapter.r", whole),
    "lora_alpha": kept("adapter.lora_alpha", number),
    "lora_dropout": kept("adapter.lora_dropout", number),
    "lora_target_modules": read_by_hand,
    "lora_target_parameters": kept("adapter.target_parameters"),
    "lora_modules_to_save": kept("adapter.modules_to_save", listed),
    "lora_task_type": implied("the method says it"),
    "use_rslora": kept("adapter.use_rslora", switch),
    "use_dora": kept("adapter.use_dora", switch),
    "load_in_4bit": read_by_hand,
    "load_in_8bit": read_by_hand,
    "bnb_4bit_quant_type": read_by_hand,
    "use_bnb_nested_quant": read_by_hand,
    "bnb_4bit_quant_storage": no_effect("it is about FSDP"),
    "max_seq_length": kept("method.max_length", whole),
    "max_length": kept("method.max_length", numeric),
    "max_prompt_length": implied("prompts are as long as they are; trl has dropped it"),
    "max_completion_length": read_by_hand,
    "max_target_length": implied("answers are as long as they are"),
    "packing": kept("method.packing", switch),
    "beta": kept("method.beta", number),
    "loss_type": read_by_hand,
    "gradient_checkpointing_use_reentrant": read_by_hand,
    "assistant_only_loss": read_by_hand,
    "completion_only_loss": read_by_hand,
    **dict.fromkeys(
        ("dataset_name", "dataset_config", "dataset_train_split", "dataset_test_split",
         "dataset_mixer", "dataset_mixture", "dataset_splits", "dataset_configs", "datasets",
         "dataset_text_field", "chat_template", "dataset_id_or_path", "text_column"),
        read_by_hand,
    ),
    "dataset_streaming": no_effect("all rows are read before training"),
    "dataset_num_proc": ROWS_ENCODED,
    "preprocessing_num_workers": ROWS_ENCODED,
    "dataset_batch_size": ROWS_ENCODED,
    "dataset_kwargs": ROWS_ENCODED,
    "auto_insert_empty_system_msg": implied("the chat template writes what rows have"),
    "decontaminate": implied("the audit counts rows of a held-out split that stand in train"),
    "ignore_bias_buffers": no_effect("a launcher says it: `peftkit run --launch accelerate`"),
    "use_unsloth": SPEED,
    "config": no_effect("it is read with it"),
    "wandb_project": no_effect("the environment's WANDB_PROJECT says it"),
    "wandb_entity": no_effect("the environment's WANDB_ENTITY says it"),
}  # fmt: skip
_CONFIGS = ("trl:SFTConfig", "trl:DPOConfig", "trl:KTOConfig", "trl:RewardConfig")


class Trl(Importer):
    """Read trl's YAML, that of the alignment handbook, and their commands."""

    title = "trl"
    version = version("trl")
    keys = frozenset(TABLE)
    telling = frozenset(
        ("dataset_mixer", "dataset_mixture", "dataset_splits", "dataset_name", "use_peft",
         "lora_target_modules", "max_seq_length", "dataset_train_split", "torch_dtype",
         "model_name_or_path", "dataset_id_or_path", "max_prompt_length")
    )  # fmt: skip
    commands = (
        r"\btrl (?:sft|dpo|kto|reward|grpo)\b",
        r"\b(?:run_|scripts/)(?:sft|dpo|kto|orpo|reward)\w*\.py\b",
    )

    @classmethod
    def recognise(cls, foreign: Foreign) -> int:
        """Count its keys, of which LLaMA-Factory has some too."""
        if foreign.data.keys() & {"finetuning_type", "stage", "cutoff_len"}:
            return 0
        return super().recognise(foreign)

    def convert(self, foreign: Foreign, folder: Path) -> Imported:
        """Say the same as a recipe."""
        draft = Draft(foreign, _method_of(foreign), "lora")
        if not switch(draft.get("use_peft")) and draft.get("lora_r") is None:
            draft.adapter = None
        draft.put("model.path", None)
        _read_model(draft)
        _read_rows(draft, folder)
        _read_adapter(draft)
        read_trainer(draft)
        _read_options(draft)
        native = native_rules(draft.method)
        table = {**native, **TABLE}
        if draft.method != "sft":
            table.pop("packing")
        draft.apply(table)
        _write_defaults(draft)
        settle(draft)
        keys = {name for config in _CONFIGS for name in signature_of(config).options}
        return draft.finish(table, {*self.keys, *keys}, "trl refuses it")


def _method_of(foreign: Foreign) -> str:
    words = f"{foreign.command} {foreign.file.stem}"
    named = next((method for method in METHODS if method in words), None)
    compares = foreign.data.keys() & {"beta", "loss_type", "max_prompt_length"}
    return named or ("dpo" if compares else "sft")


def _read_model(draft: Draft) -> None:
    get = draft.get
    key = "dtype" if get("dtype") is not None else "torch_dtype"
    stated = get(key)
    if stated in ("auto", "bfloat16", "float16", "float32"):
        draft.keep(key, "model.dtype", stated)
        for name in ("bf16", "fp16"):
            if switch(get(name)) and stated == "float32":
                draft.keep(name, f"method.{name}", True)
            draft.say(name, Fate.IMPLIED, f"the weights are {stated}, and so is what is computed")
    else:
        precision(draft, default="auto")
    draft.say(key, Fate.IMPLIED, "the checkpoint's own")
    if switch(get("use_flash_attention_2")):
        draft.keep("use_flash_attention_2", "model.attn_implementation", "flash_attention_2")
    draft.say("use_flash_attention_2", Fate.IMPLIED, "transformers chooses")
    bits = 4 if switch(get("load_in_4bit")) else 8 if switch(get("load_in_8bit")) else 0
    kind, twice = str(get("bnb_4bit_quant_type", "nf4")), switch(get("use_bnb_nested_quant"))
    is_quantized = draft.adapter is not None and put_bits(draft, bits, kind=kind, twice=twice)
    for name in ("load_in_4bit", "load_in_8bit", "bnb_4bit_quant_type", "use_bnb_nested_quant"):
        how = WHERE if is_quantized else "nothing is quantized"
        off = not is_quantized or is_off(get(name))
        draft.say(name, Fate.IMPLIED if off else Fate.KEPT, "off here too" if off else how)


def _read_rows(draft: Draft, folder: Path) -> None:
    get = draft.get
    splits = [str(one) for one in listed(get("dataset_splits"), separator=",")]
    trained = next((one for one in splits if "train" in one), None)
    tested = next((one for one in splits if "train" not in one), None)
    trained = trained or _split(draft, "dataset_train_split") or "train"
    tested = tested or _split(draft, "dataset_test_split")
    task = _task(draft)
    train = _sets(draft, folder, task, trained)
    strategy = get("eval_strategy", get("evaluation_strategy"))
    evaluates = not is_off(strategy) or switch(get("do_eval"))
    held = [Rows(one.source, one.task, tested) for one in train if evaluates and tested]
    put_rows(draft, train or [no_rows(draft, "dataset_name")], held=held)
    _say_rows(draft)
    _read_dialogue(draft, is_chat="chat" in task)


def _split(draft: Draft, key: str) -> str | None:
    """Return a split's name; a number, which peftkit would read as so many rows, is none."""
    named = draft.get(key)
    if named is None or (isinstance(named, str) and named[:1].isalpha()):
        return named
    draft.say(key, Fate.UNSUPPORTED, "expected the name of a split, e.g. `train`")
    return None


def _task(draft: Draft) -> dict[str, Any]:
    """Say what rows mean, which trl sees by their columns; messages, where they are not here."""
    get = draft.get
    if draft.method != "sft":
        return {TASKS[draft.method]: {}}
    field = get("dataset_text_field") or get("text_column")
    row = first_row(draft, str(get("dataset_name") or get("dataset_id_or_path") or ""))
    if {"prompt", "completion"} <= row.keys():
        if isinstance(row["prompt"], str):  # which no chat template is put around
            draft.put("model.chat_template", "plain")
        return {"prompt_completion": {}}
    if field or isinstance(row.get("text"), str):
        return {"text": {"text": str(field or "text")}}
    return {"chat": {}}


def _sets(draft: Draft, folder: Path, task: Mapping[str, Any], split: str) -> list[Rows]:
    """Read a data set, or a mixture of several with a share each."""
    get = draft.get
    sets = listed(mapped(get("dataset_mixture")).get("datasets")) or listed(get("datasets"))
    train = [
        Rows(source_of(draft, str(name), folder), task, split, _weight(weight))
        for name, weight in mapped(get("dataset_mixer")).items()
    ]
    for one in sets:
        entry = mapped(one)
        name = str(entry.get("id") or entry.get("path") or one)
        source = source_of(draft, name, folder, name=entry.get("config") or entry.get("name"))
        own = str(entry.get("split") or split)
        train.append(Rows(source, task, own, _weight(entry.get("weight"))))
    single = get("dataset_name") or get("dataset_id_or_path")
    if single:
        named = get("dataset_config")
        source = source_of(draft, str(single), folder, name=str(named) if named else None)
        train.append(Rows(source, task, split))
    return [one for one in train if one.weight > 0]


def _weight(value: Any) -> float:
    found = numeric(value)
    return 1.0 if found is None else float(found)


def _say_rows(draft: Draft) -> None:
    for key in ("dataset_name", "dataset_config", "dataset_mixer", "dataset_mixture", "datasets",
                "dataset_id_or_path", "dataset_configs"):  # fmt: skip
        draft.say(key, Fate.KEPT, "data.source")
    for key in ("dataset_train_split", "dataset_test_split", "dataset_splits"):
        draft.say(key, Fate.KEPT, "data.splits")
    for key in ("dataset_text_field", "text_column"):
        draft.say(key, Fate.KEPT, "data.task.text.text")


def _read_dialogue(draft: Draft, *, is_chat: bool) -> None:
    get = draft.get
    only = switch(get("assistant_only_loss")) or switch(get("completion_only_loss"))
    if is_chat and not only:
        draft.default("assistant_only_loss", "data.dialogue.train", "everything")
    for key in ("assistant_only_loss", "completion_only_loss"):
        draft.say(key, Fate.IMPLIED if only else Fate.KEPT, "data.dialogue.train")
    template = get("chat_template")
    is_jinja = isinstance(template, str) and "{" in template
    if is_jinja:
        draft.say("chat_template", Fate.UNSUPPORTED, "write it into a file beside the recipe:"
                  " model.chat_template: FILE.jinja")  # fmt: skip
    put_template(draft, "chat_template", template)


def _read_adapter(draft: Draft) -> None:
    if draft.adapter is None:
        draft.put("adapter", "full")
        draft.say("use_peft", Fate.KEPT, "adapter: full")
        draft.say("use_peft", Fate.DEFAULT, "adapter: full", value="false")
        draft.say("lora_target_modules", Fate.NO_EFFECT, "nothing is adapted")
        return
    draft.recipe["adapter"] = {"lora": {}}
    draft.say("use_peft", Fate.KEPT, "adapter.lora")
    names = listed(draft.get("lora_target_modules"), separator=",")
    if names:
        target = "all-linear" if names in (["all-linear"], ["all"]) else names
        draft.keep("lora_target_modules", "adapter.target_modules", target)
    draft.say("lora_target_modules", Fate.IMPLIED, "peft chooses the modules of the family")


def _read_options(draft: Draft) -> None:
    losses = listed(draft.get("loss_type"), separator=",")
    if draft.method in ("dpo", "kto") and losses:
        draft.keep("loss_type", "method.loss_type", losses if draft.method == "dpo" else losses[0])
    elif losses:
        draft.keep("loss_type", "method.loss_type", losses[0])
    draft.say("loss_type", Fate.IMPLIED, "the method's own")
    reentrant = draft.get("gradient_checkpointing_use_reentrant")
    if reentrant is not None:
        draft.keep("gradient_checkpointing_use_reentrant", "method.gradient_checkpointing_kwargs",
                   {"use_reentrant": switch(reentrant)})  # fmt: skip
    if draft.method == "grpo":
        draft.put("method.rewards", ["rougeL"])
        draft.take("max_completion_length", "method.max_completion_length", whole)
    draft.say("max_completion_length", Fate.IMPLIED, "answers are as long as they are")


def _write_defaults(draft: Draft) -> None:
    """Write out what trl's commands mean where peft means something else."""
    if draft.adapter == "lora":
        draft.default("lora_r", "adapter.r", 16)
        draft.default("lora_alpha", "adapter.lora_alpha", 32)
        draft.default("lora_dropout", "adapter.lora_dropout", 0.05)
