"""LLaMA-Factory's `dataset` and `dataset_info.json`: where its rows come from, what they mean."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from peftkit.importers.rows import Rows, no_rows, put_rows, share, source_of
from peftkit.importers.templates import put_template
from peftkit.plugins.imported import Draft, listed, mapped, numeric, switch, whole
from peftkit.plugins.importer import Fate

_ROLES = {"user_tag": "user", "assistant_tag": "assistant", "system_tag": "system",
          "observation_tag": "tool", "function_tag": "assistant"}  # fmt: skip
_SYSTEM: Mapping[str, str] = {
    "lfm2": "You are a helpful AI assistant.",
    "zephyr": "You are Zephyr, a helpful assistant.",
}
"""Templates that write a system message of their own where a row has none, as ours do not."""
_STRIPS = "white space around what is said is stripped, as by the model's own"
_UNLIKE: Mapping[str, str] = {
    "alpaca": "a blank line after a system message, which lacks there",
    "cohere": "answers end in the tokenizer's end token there",
    "empty": "answers have no end there",
    "gemma": f"rows with a system message are refused; {_STRIPS}",
    "gemma2": f"rows with a system message are refused; {_STRIPS}",
    "gemma3": _STRIPS,
    "llama3": _STRIPS,
    "llava_next": "roles are said otherwise there",
    "qwen3_5_nothink": "empty thoughts before answers, which lack there",
    "qwen3_6": f"thoughts are opened by the prompt, and trained there; {_STRIPS}",
    "qwen3_vl": "no empty thoughts before answers, which are there",
    "vicuna": "spaces around what is said, which lack there",
    "zephyr": "a line break after every end token, which lacks there",
}
"""Templates of one name whose texts are not LLaMA-Factory's, and how."""
_BREAK = "the line break after an answer's end is trained there too"
_BREAKS = frozenset(
    ("alpaca", "chatml", "gemma", "gemma2", "gemma3", "lfm2", "phi", "qwen", "qwen2_vl", "qwen3",
     "qwen3_6", "yi")
)  # fmt: skip
_MEDIA = ("images", "videos", "audios")
_KNOWN = {"human", "gpt", "user", "assistant", "system", "observation", "function_call"}
"""Words for roles that the task `chat` knows by itself."""


def read_rows(draft: Draft, folder: Path, stage: str) -> None:
    """Read everything that is about rows."""
    infos, where = _infos(draft)
    train = _sets(draft, "dataset", infos, where, folder, stage)
    held = _sets(draft, "eval_dataset", infos, where, folder, stage)
    size = numeric(draft.get("val_size", 0))
    cut = share(size)
    if not train:
        train = [no_rows(draft, "dataset")]
    put_rows(draft, train, held=held, cut=cut)
    if draft.get("val_size") is not None:
        kept = bool(cut) and not held
        how = "data.splits.validation" if kept else "nothing is cut from the training rows"
        draft.say("val_size", Fate.KEPT if kept else Fate.IMPLIED, how)
    if draft.get("dataset_dir") is not None:
        draft.say("dataset_dir", Fate.KEPT, "data.source")
    _read_length(draft, stage)
    _read_dialogue(draft)
    mix = str(draft.get("mix_strategy", "concat"))
    if mix != "concat" and len(train) > 1:
        draft.say("mix_strategy", Fate.DIFFERS, "rows of all sources are spread evenly over an"
                  " epoch; `weight` says how often one's are seen")  # fmt: skip
        draft.say("interleave_probs", Fate.DIFFERS, "write `weight` beside each source")
    else:
        draft.say("mix_strategy", Fate.IMPLIED, "all rows of all sources")
    if switch(draft.get("streaming")):
        draft.say("streaming", Fate.NO_EFFECT, "all rows are read before training")


def _infos(draft: Draft) -> tuple[Mapping[str, Any] | None, str]:
    """Find dataset_info.json, and the folder that its file names start from."""
    stated = str(draft.get("dataset_dir", "data"))
    for place in (stated, ".", "data"):
        found = draft.foreign.place_of(str(Path(place) / "dataset_info.json"))
        if found is None:
            continue
        try:
            infos = json.loads(found.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        if isinstance(infos, Mapping):
            return infos, place
    return None, stated


def _sets(  # noqa: PLR0913, PLR0917 - what a data set's name needs to become rows
    draft: Draft, key: str, infos: Mapping[str, Any] | None, where: str, folder: Path, stage: str
) -> list[Rows]:
    names = [str(name) for name in listed(draft.get(key), separator=",")]
    if not names:
        return []
    draft.say(key, Fate.KEPT, "data.source")
    limit = draft.read("max_samples", whole)
    draft.say("max_samples", Fate.KEPT, "data.splits.train")
    rows = []
    for name in names:
        info = infos.get(name) if infos is not None else None
        if not isinstance(info, Mapping):
            why = "dataset_info.json does not name it" if infos else "there is no dataset_info.json"
            draft.say(f"{key}.{name}", Fate.DIFFERS, f"{why}: taken as Alpaca's rows in"
                      f" {Path(where) / name}.json", value=name)  # fmt: skip
            info = {"file_name": f"{name}.json"}
        rows.append(_rows(draft, f"{key}.{name}", info, where, folder, stage, limit))
    return rows


def _rows(  # noqa: PLR0913, PLR0917
    draft: Draft, key: str, info: Mapping[str, Any], where: str, folder: Path, stage: str,
    limit: Any,
) -> Rows:  # fmt: skip
    columns = mapped(info.get("columns"))
    media = [name for name in _MEDIA if columns.get(name)]
    if media:
        draft.say(f"{key}.columns", Fate.UNSUPPORTED, f"{', '.join(media)}: models here read text",
                  value=media)  # fmt: skip
    name = info.get("hf_hub_url") or info.get("ms_hub_url") or info.get("script_url")
    if info.get("file_name"):
        source = source_of(draft, str(Path(where) / str(info["file_name"])), folder, kind="json")
    else:
        source = source_of(draft, str(name or "ROWS.json"), folder, name=info.get("subset"))
        if info.get("ms_hub_url") and not info.get("hf_hub_url"):
            draft.say(f"{key}.ms_hub_url", Fate.DIFFERS, "the Hub of Hugging Face is asked, not"
                      " ModelScope's", value=name)  # fmt: skip
    split = str(info.get("split") or "train")
    if limit is not None:
        split = f"{split}[:{limit}]"
    if numeric(info.get("num_samples")):
        draft.say(f"{key}.num_samples", Fate.DIFFERS, "the first rows, not a sample",
                  value=info["num_samples"])  # fmt: skip
        split = f"{split.partition('[')[0]}[:{whole(info['num_samples'])}]"
    return Rows(source, _task(draft, key, info, stage), split)


def _task(draft: Draft, key: str, info: Mapping[str, Any], stage: str) -> dict[str, Any]:
    columns = mapped(info.get("columns"))
    if stage == "pt":
        return {"text": {"text": columns.get("prompt") or "text"}}
    is_chat = info.get("formatting") in ("sharegpt", "openai")
    if columns.get("kto_tag") or stage == "kto":
        options = {
            "prompt": columns.get("prompt") or "instruction",
            "completion": columns.get("response") or columns.get("messages") or "output",
            "label": columns.get("kto_tag") or "label",
        }
        return {"feedback": options}
    if info.get("ranking") or stage in ("dpo", "rm"):
        prompt = columns.get("messages", "conversations") if is_chat else columns.get("prompt")
        return {"preference": {"prompt": prompt or "instruction",
                               "chosen": columns.get("chosen") or "chosen",
                               "rejected": columns.get("rejected") or "rejected"}}  # fmt: skip
    if is_chat:
        return {"chat": _chat(info, columns)}
    if columns.get("history"):
        draft.say(f"{key}.columns.history", Fate.UNSUPPORTED, "rows of messages have it",
                  value=columns["history"])  # fmt: skip
    if columns.get("system"):
        draft.put("data.dialogue.system", f"{{{columns['system']}}}")
        draft.say(f"{key}.columns.system", Fate.KEPT, "data.dialogue.system",
                  value=columns["system"])  # fmt: skip
    return _alpaca(columns)


def _alpaca(columns: Mapping[str, Any]) -> dict[str, Any]:
    """Say Alpaca's columns; where some are named, the others are not there."""
    prompt, context = columns.get("prompt") or "instruction", columns.get("query")
    context = context if columns else "input"
    completion = columns.get("response") or "output"
    # LLaMA-Factory puts a line break between the two, and nothing where there is no input
    text = f"{{{prompt}}}{{#{context}}}\n{{{context}}}{{/{context}}}" if context else prompt
    return {"prompt_completion": {"prompt": text, "completion": completion}}


def _chat(info: Mapping[str, Any], columns: Mapping[str, Any]) -> dict[str, Any]:
    tags = mapped(info.get("tags"))
    openai = info.get("formatting") == "openai"
    options: dict[str, Any] = {}
    messages = columns.get("messages") or ("messages" if openai else "conversations")
    if messages != "messages":
        options["messages"] = messages
    role = tags.get("role_tag") or ("role" if openai else "from")
    content = tags.get("content_tag") or ("content" if openai else "value")
    options.update({k: v for k, v in (("role", role), ("content", content)) if k != v})
    roles = {str(tags[tag]): ours for tag, ours in _ROLES.items()
             if tags.get(tag) and tags[tag] not in _KNOWN and tags[tag] != ours}  # fmt: skip
    if roles:
        options["roles"] = roles
    if columns.get("tools") and columns["tools"] != "tools":
        options["tools"] = columns["tools"]
    return options


def _read_length(draft: Draft, stage: str) -> None:
    if draft.method == "grpo":
        draft.say("cutoff_len", Fate.IMPLIED, "prompts are as long as they are")
        return
    draft.take("cutoff_len", "method.max_length", whole)
    draft.default("cutoff_len", "method.max_length", 2048)
    neat, packing = switch(draft.get("neat_packing")), draft.get("packing")
    packs = neat or (switch(packing) if packing is not None else stage == "pt")
    if draft.method != "sft" or not packs:
        for key in ("packing", "neat_packing"):
            if draft.get(key) is not None:
                draft.say(key, Fate.IMPLIED, "off here too")
        return
    draft.put("method.packing", True)
    if stage == "pt":
        draft.put("method.packing_strategy", "wrapped")
    spelled = draft.spelled("method.packing")
    if packing is None and not neat:
        draft.say("packing", Fate.DEFAULT, spelled, value=True)
    elif neat or stage == "pt":
        draft.say("packing", Fate.KEPT, spelled)
        if draft.get("neat_packing") is not None:
            draft.say("neat_packing", Fate.KEPT, spelled)
    else:
        draft.say("packing", Fate.DIFFERS, f"{spelled}: rows of a block do not see each other,"
                  " as with neat_packing")  # fmt: skip


def _read_template(draft: Draft) -> None:
    """Say which template writes conversations, and where its text is not LLaMA-Factory's."""
    name = str(draft.get("template"))
    unlike = [_UNLIKE[name]] if name in _UNLIKE else []
    if name in _BREAKS:
        unlike.append(_BREAK)
    if unlike:
        draft.say("template", Fate.DIFFERS, f"model.chat_template: {'; '.join(unlike)}")
    if name in _SYSTEM:
        draft.default("default_system", "data.dialogue.system", _SYSTEM[name])
    put_template(draft, "template", draft.get("template"))


def _read_dialogue(draft: Draft) -> None:
    _read_template(draft)
    trained = {"train_on_prompt": "everything", "mask_history": "last_answer"}
    for key, word in trained.items():
        if switch(draft.get(key)):
            draft.keep(key, "data.dialogue.train", word)
        elif draft.get(key) is not None:
            draft.say(key, Fate.IMPLIED, "off here too")
    if draft.get("default_system"):
        if not draft.has("data.dialogue.system"):
            system = str(draft.get("default_system")).replace("{", "{{").replace("}", "}}")
            draft.keep("default_system", "data.dialogue.system", system)
        draft.say("default_system", Fate.IMPLIED, "rows have their own")
    if draft.get("enable_thinking") is not None:
        draft.keep("enable_thinking", "data.dialogue.chat_template_kwargs",
                   {"enable_thinking": switch(draft.get("enable_thinking"))})  # fmt: skip
