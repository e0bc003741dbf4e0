"""axolotl's `datasets`: where its rows come from and what its prompt strategies make of them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from peftkit.importers.rows import Rows, no_rows, put_rows, share, source_of
from peftkit.importers.templates import alpaca, put_template, put_tokens
from peftkit.plugins.imported import Draft, listed, mapped, numeric, switch, whole
from peftkit.plugins.importer import Fate

_PAIRS: Mapping[str, tuple[str, str, str | None]] = {
    "alpaca": ("instruction", "output", "input"),
    "gpteacher": ("instruction", "response", "input"),
    "jeopardy": ("question", "answer", "category"),
    "oasst": ("INSTRUCTION", "RESPONSE", None),
    "reflection": ("instruction", "output", "input"),
    "explainchoice": ("question", "solution", None),
    "summarizetldr": ("article", "summary", None),
    "alpaca_chat.load_qa": ("question", "answer", None),
    "alpaca_chat.load_camel_ai": ("message_1", "message_2", None),
    "context_qa": ("question", "answer", "context"),
    "context_qa.load_v2": ("question", "answer", "context"),
}
"""Prompt strategy -> its columns of question, answer and further input."""
_ALPACAS = ("alpaca", "gpteacher", "reflection")
"""Those whose prompt is Alpaca's own text."""
_CHATS = ("chat_template", "sharegpt", "llama2_chat", "messages", "pygmalion")
_ROLES = {"system": "system", "user": "user", "human": "user", "assistant": "assistant",
          "gpt": "assistant", "model": "assistant", "tool": "tool"}  # fmt: skip
"""Words for roles that axolotl knows by itself."""
_PREFERENCES: Mapping[str, tuple[str, str, str]] = {
    "intel": ("question", "chosen", "rejected"),
    "argilla": ("instruction", "chosen_response", "rejected_response"),
    "icr": ("input", "chosen", "rejected"),
    "prompt_pairs": ("prompt", "chosen", "rejected"),
    "ultra": ("prompt", "chosen", "rejected"),
    "default": ("messages", "chosen", "rejected"),
}


def read_rows(draft: Draft, folder: Path) -> None:
    """Read everything that is about rows."""
    sets = draft.get("datasets") or draft.get("pretraining_dataset") or []
    key = "datasets" if draft.get("datasets") else "pretraining_dataset"
    train = [rows for at, one in enumerate(listed(sets))
             for rows in _rows(draft, f"{key}.{at}", one, folder)]  # fmt: skip
    held_key = "test_datasets" if draft.get("test_datasets") else "eval_dataset"
    held = [rows for at, one in enumerate(listed(draft.get(held_key)))
            for rows in _rows(draft, f"{held_key}.{at}", one, folder)]  # fmt: skip
    if held_key == "eval_dataset" and held:
        draft.say("eval_dataset", Fate.DIFFERS, "axolotl ignores it: its key is test_datasets;"
                  " the recipe validates on it")  # fmt: skip
    cut = share(numeric(draft.get("val_set_size", 0)))
    if not train:
        train = [no_rows(draft, key)]
    put_rows(draft, train, held=held, cut=cut)
    for name in (key, held_key):
        if draft.get(name):
            draft.say(name, Fate.KEPT, "data.source")
    if draft.get("val_set_size") is not None:
        kept = cut and not held
        how = "data.splits.validation" if kept else "nothing is cut from the training rows"
        draft.say("val_set_size", Fate.KEPT if kept else Fate.IMPLIED, how)
    is_text = all("text" in one.task for one in train)
    _read_length(draft, is_text=is_text, streams=key == "pretraining_dataset" and bool(sets))
    names = [mapped(one).get("chat_template") or mapped(one).get("conversation")
             for one in listed(sets)]  # fmt: skip
    named = next((name for name in names if name), None)
    put_template(draft, "chat_template", draft.get("chat_template") or named,
                 jinja=draft.get("chat_template_jinja"))  # fmt: skip
    put_tokens(draft, "special_tokens", "tokens")
    if draft.get("default_system_message"):
        system = _braced(str(draft.get("default_system_message")), {})
        draft.keep("default_system_message", "data.dialogue.system", system)
    if switch(draft.get("train_on_inputs")):
        draft.keep("train_on_inputs", "data.dialogue.train", "everything")
    elif draft.get("train_on_inputs") is not None:
        draft.say("train_on_inputs", Fate.IMPLIED, "only answers are trained")


def _read_length(draft: Draft, *, is_text: bool, streams: bool) -> None:
    """Say what becomes of long rows: running text is read in pieces there, else dropped."""
    length = draft.read("sequence_len", whole)
    if length is not None:
        draft.put("method.max_length", length)
    packs = (switch(draft.get("sample_packing")) or streams) and draft.method == "sft"
    strategy = str(draft.get("excess_length_strategy", "drop"))
    if is_text and not packs:
        how = (
            f"{draft.spelled('method.max_length')}: longer rows are cut; there they are read in"
            " pieces, here too with packing: true and packing_strategy: bfd_split"
        )
        draft.say("sequence_len", Fate.DIFFERS, how)
    elif strategy == "drop" and draft.method == "sft" and not is_text:
        draft.put("data.rows.too_long", "drop")
        draft.say("excess_length_strategy", Fate.KEPT, "data.rows.too_long")
        draft.say("excess_length_strategy", Fate.DEFAULT, "data.rows.too_long", value="drop")
    if draft.has("method.max_length"):
        draft.say("sequence_len", Fate.KEPT, draft.spelled("method.max_length"))
    draft.default("sequence_len", "method.max_length", 512)
    draft.say("excess_length_strategy", Fate.IMPLIED, "rows that are too long are cut")
    if packs:
        draft.put("method.packing", True)
        draft.say("sample_packing", Fate.KEPT, draft.spelled("method.packing"))
        if is_text:
            draft.put("method.packing_strategy", "wrapped" if streams else "bfd_split")
    elif draft.get("sample_packing") is not None:
        draft.say("sample_packing", Fate.IMPLIED, "off here too")


def _rows(draft: Draft, key: str, one: Any, folder: Path) -> list[Rows]:
    if isinstance(one, str):
        one = {"path": one}
    if isinstance(one, Mapping) and not one.get("path") and one.get("data_files"):
        one = {**one, "path": one.get("ds_type") or "json"}
    if not isinstance(one, Mapping) or not one.get("path"):
        draft.say(key, Fate.IGNORED, "names no path: axolotl cannot read it either", value=one)
        return []
    compares = draft.method in ("dpo", "kto")
    task = _preference(draft, one) if compares else _task(draft, key, one)
    source = source_of(
        draft, str(one["path"]), folder, name=one.get("name"), data_files=one.get("data_files"),
        kind=one.get("ds_type"), revision=one.get("revision"),
    )  # fmt: skip
    if one.get("shards"):
        draft.say(f"{key}.shards", Fate.UNSUPPORTED, "a part of the rows: write a slice of the"
                  " split, `train[:10%]`", value=one["shards"])  # fmt: skip
    return [Rows(source, task, str(one.get("split") or "train"))]


def _task(draft: Draft, key: str, one: Mapping[str, Any]) -> dict[str, Any]:
    kind = one.get("type") or "alpaca"
    if isinstance(kind, Mapping):
        return _user_defined(draft, key, kind)
    name, _, style = str(kind).partition(":")
    base = name.partition(".")[0]
    if base in _CHATS:
        return {"chat": _chat(draft, key, one, base)}
    if base in ("completion", "pretrain"):
        return {"text": {"text": one.get("field") or one.get("text_column") or "text"}}
    columns = _PAIRS.get(name, _PAIRS.get(base))
    if columns is None:
        draft.say(f"{key}.type", Fate.UNSUPPORTED, f"{kind} is not read; the columns of alpaca"
                  " are taken", value=kind)  # fmt: skip
        columns = _PAIRS["alpaca"]
    prompt, completion, context = columns
    if (style or "instruct") == "instruct" and base in _ALPACAS and _is_plain(draft):
        draft.say(f"{key}.type", Fate.KEPT, "data.task.prompt_completion.prompt", value=kind)
        return alpaca(prompt, completion, context)
    options = {"prompt": prompt, "completion": completion}
    if context:
        options["context"] = context
    draft.say(f"{key}.type", Fate.DIFFERS, "data.task.prompt_completion; the chat template writes"
              f" the prompt, not {name}'s {style or 'instruct'} text", value=kind)  # fmt: skip
    return {"prompt_completion": options}


def _is_plain(draft: Draft) -> bool:
    """Write prompts as they are, without a chat template, where the config names none."""
    if draft.get("chat_template"):
        return False
    draft.put("model.chat_template", "plain")
    return True


def _chat(draft: Draft, key: str, one: Mapping[str, Any], base: str) -> dict[str, Any]:
    is_sharegpt = base in ("sharegpt", "llama2_chat", "pygmalion")
    properties = mapped(one.get("message_property_mappings"))
    options: dict[str, Any] = {}
    messages = one.get("field_messages") or ("conversations" if is_sharegpt else "messages")
    if messages != "messages":
        options["messages"] = messages
    role = one.get("message_field_role") or one.get("field_human") or properties.get("role")
    content = (
        one.get("message_field_content") or one.get("field_model") or properties.get("content")
    )
    if is_sharegpt:
        role, content = role or "from", content or "value"
    if role and role != "role":
        options["role"] = role
    if content and content != "content":
        options["content"] = content
    roles = {
        word: ours
        for ours, words in mapped(one.get("roles")).items()
        for word in listed(words)
        if word != ours
    }
    if roles:
        options["roles"] = roles
    if one.get("field_tools"):
        options["tools"] = one["field_tools"]
    _read_roles(draft, f"{key}.roles_to_train", one, roles)
    if one.get("train_on_eos") in ("all", "none", "last"):
        draft.say(f"{key}.train_on_eos", Fate.UNSUPPORTED, "the token that ends an answer is"
                  " always trained", value=one["train_on_eos"])  # fmt: skip
    if one.get("message_field_training"):
        column = one["message_field_training"]
        draft.say(f"{key}.message_field_training", Fate.UNSUPPORTED, "write `weight: 0` into"
                  " messages that are not trained", value=column)  # fmt: skip
    return options


def _read_roles(draft: Draft, key: str, one: Mapping[str, Any], roles: Mapping[str, str]) -> None:
    """Say whose turns are trained."""
    stated = one.get("roles_to_train")
    known = {**_ROLES, **roles}
    trained = list(dict.fromkeys(known.get(str(word), str(word)) for word in listed(stated)))
    if not trained or trained == ["assistant"]:
        return
    if set(trained) <= set(_ROLES.values()):
        draft.put("data.dialogue.train", trained)
        draft.say(key, Fate.KEPT, "data.dialogue.train", value=stated)
    else:
        draft.say(key, Fate.UNSUPPORTED, "a role is one of system, user, assistant and tool",
                  value=stated)  # fmt: skip


def _user_defined(draft: Draft, key: str, kind: Mapping[str, Any]) -> dict[str, Any]:
    """Read prompts of the user's own: `format` with `{instruction}` and `{input}` in it."""
    instruction = str(kind.get("field_instruction") or "instruction")
    context = str(kind.get("field_input") or "input")
    text = str(kind.get("format") or "{instruction}")
    short = str(kind.get("no_input_format") or "")
    names = {"instruction": instruction, "input": context}
    if kind.get("system_prompt"):
        system = _braced(str(kind["system_prompt"]), {})
        text = str(kind.get("system_format") or "{system}").replace("{system}", "\0") + text
        text = _braced(text, names).replace("\0", system)
    elif kind.get("field_system"):
        column = str(kind["field_system"])
        text = f"{{#{column}}}{{{column}}}{{/{column}}}" + _braced(text, names)
        draft.say(f"{key}.type.field_system", Fate.KEPT, "data.task.prompt_completion.prompt",
                  value=column)  # fmt: skip
    else:
        text = _braced(text, names)
    if not _is_plain(draft):
        draft.say(f"{key}.type.format", Fate.DIFFERS, "data.task.prompt_completion.prompt, inside"
                  " what the chat template writes", value=kind.get("format") or "")  # fmt: skip
    if short and "{input}" in str(kind.get("format")):
        how = f"one text for all rows: {{#{context}}} ... {{/{context}}} vanishes without input"
        draft.say(f"{key}.type.no_input_format", Fate.DIFFERS, how, value=short)
    output = str(kind.get("field_output") or "output")
    return {"prompt_completion": {"prompt": text, "completion": output}}


def _braced(text: str, names: Mapping[str, str]) -> str:
    """Write a format's places as columns in braces; other braces are braces."""
    text = text.replace("{", "{{").replace("}", "}}")
    for name, column in names.items():
        text = text.replace(f"{{{{{name}}}}}", f"{{{column}}}")
    return text


def _preference(draft: Draft, one: Mapping[str, Any]) -> dict[str, Any]:
    kind = one.get("type")
    if isinstance(kind, Mapping):
        names = {
            "prompt": kind.get("field_prompt") or "prompt",
            "chosen": kind.get("field_chosen") or "chosen",
            "rejected": kind.get("field_rejected") or "rejected",
        }
    else:
        style = str(kind or "").rpartition(".")[2]
        prompt, chosen, rejected = _PREFERENCES.get(style, ("prompt", "chosen", "rejected"))
        names = {
            "prompt": one.get("field_messages") or prompt,
            "chosen": one.get("field_chosen") or chosen,
            "rejected": one.get("field_rejected") or rejected,
        }
        family = str(kind or "").partition(".")[0]
        if family in ("chatml", "llama3", "zephyr"):
            put_template(draft, "chat_template", family)
    if draft.method == "kto":
        return {"feedback": {"prompt": names["prompt"]}}
    return {"preference": names}
