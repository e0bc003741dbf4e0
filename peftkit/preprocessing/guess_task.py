"""Guess what a file's columns mean: which task they fit, and why."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from shlex import quote
from statistics import median
from typing import Any

from peftkit.errors import UsageError
from peftkit.preprocessing.guess_questions import first, guess_questions
from peftkit.sources.columns import describe_kind
from peftkit.sources.messages import parsed

DOCUMENTS = ("document", "article", "dialogue", "text", "body", "content", "report", "docstring")
SUMMARIES = ("summary", "highlights", "abstract", "tldr", "headline", "summaries")
SOURCES = ("source", "src", "source_text", "original")
TARGETS = ("target", "tgt", "target_text", "translation")
PROMPTS = ("prompt", "instruction", "question", "query", "input", "problem")
COMPLETIONS = ("completion", "output", "response", "answer", "solution")
CONTEXTS = ("input", "context")
CHOSEN = ("chosen", "preferred", "accepted", "response_chosen", "chosen_response")
REJECTED = ("rejected", "dispreferred", "response_rejected", "rejected_response")
VERDICTS = ("label", "labels", "is_good", "good", "liked", "thumbs_up", "desirable")
TEXTS = ("text", "content", "document", "body", "code")
LABELS = ("label", "labels", "class", "category", "sentiment", "intent", "topic", "stars", "target")
LABELLED = (
    "text",
    "sentence",
    "review",
    "comment",
    "content",
    "document",
    "body",
    "tweet",
    "title",
)
LABELLED_PAIRS = (
    ("sentence1", "sentence2"),
    ("premise", "hypothesis"),
    ("question1", "question2"),
    ("text1", "text2"),
    ("question", "sentence"),
    ("first", "second"),
)
MAX_LABELS = 50
"""Distinct values of a column that is taken for a label."""
CONVERSATIONS = ("messages", "conversations", "conversation", "dialog", "chat")
LANGUAGES = {
    "ar": "Arabic",
    "cs": "Czech",
    "da": "Danish",
    "de": "German",
    "en": "English",
    "es": "Spanish",
    "fi": "Finnish",
    "fr": "French",
    "hi": "Hindi",
    "it": "Italian",
    "ja": "Japanese",
    "ko": "Korean",
    "nl": "Dutch",
    "pl": "Polish",
    "pt": "Portuguese",
    "ro": "Romanian",
    "ru": "Russian",
    "sv": "Swedish",
    "tr": "Turkish",
    "uk": "Ukrainian",
    "vi": "Vietnamese",
    "zh": "Chinese",
}
SPEAKERS = {
    "human": "user",
    "user": "user",
    "prompter": "user",
    "gpt": "assistant",
    "bot": "assistant",
    "chatgpt": "assistant",
    "model": "assistant",
    "assistant": "assistant",
    "system": "system",
}
OPTIONS = {
    "summarize": ("document", "summary"),
    "translate": ("source", "target"),
    "prompt_completion": ("prompt", "completion"),
    "chat": ("messages",),
    "text": ("text",),
    "classify": ("text", "label"),
    "question_answering": ("question", "context", "answers"),
    "preference": ("chosen", "rejected"),
    "feedback": ("prompt", "completion", "label"),
}
"""Task -> the options that name its columns."""
OPTIONAL = {
    "prompt_completion": ("context",),
    "classify": ("second",),
    "question_answering": ("answer_start",),
    "preference": ("prompt",),
}
"""Task -> the options that may name one more column."""
SHOWN_CHARS = 60


@dataclass(frozen=True)
class Guess:
    """Say which task a file fits, with the options that name its columns."""

    task: str
    options: dict[str, Any]
    reason: str
    """Why, in words of the file."""


def guess_task(rows: Sequence[Mapping[str, Any]], *, file: str) -> Guess:
    """Choose the one task that the columns' names and contents fit.

    Args:
        rows: the first rows of the file.

    Raises:
        UsageError: none fits, or several do; shows each column with an example, and the flags.
    """
    guesses = list(_guesses(rows))
    if len(guesses) == 1:
        return guesses[0]
    if not guesses:
        raise UsageError(
            f"{file}: these columns fit no task:\n{show_columns(rows)}", hint=_flags(file)
        )
    found = "\n".join(f"  {guess.task}: {guess.reason}" for guess in guesses)
    raise UsageError(
        f"{file}: these columns fit several tasks:\n{found}\n{show_columns(rows)}",
        hint=_flags(file, guesses[0]),
    )


def take_task(
    task: str, mapping: Mapping[str, str], rows: Sequence[Mapping[str, Any]], *, file: str
) -> Guess:
    """Take the task, and as many of its columns as are named; guess the others by name.

    Args:
        mapping: the task's option -> the column, e.g. `document` -> `body`.

    Raises:
        UsageError: no such task, option or column, or a column that cannot be guessed.
    """
    if task not in OPTIONS:
        raise UsageError(f"init knows no task {task!r}", hint=f"one of {', '.join(OPTIONS)}")
    columns = list(rows[0])
    known = (*OPTIONS[task], *OPTIONAL.get(task, ()))
    for option, column in mapping.items():
        if option not in known:
            raise UsageError(
                f"the task {task} has no column {option!r}", hint=f"--map {known[0]}=COLUMN"
            )
        if column.partition(".")[0] not in columns and column not in columns:
            raise UsageError(
                f"{file} has no column {column!r}:\n{show_columns(rows)}", hint=_flags(file)
            )
    guessed = next((guess for guess in _guesses(rows, task)), None)
    options = {**(guessed.options if guessed else {}), **mapping}
    missing = [option for option in OPTIONS[task] if option not in options]
    if missing:
        flags = " ".join(f"--map {option}=COLUMN" for option in missing)
        raise UsageError(
            f"{file}: which column is the {missing[0]}?\n{show_columns(rows)}",
            hint=f"peftkit init {quote(file)} --task {task} {flags}",
        )
    return Guess(task, options, "as the flags say")


def show_columns(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return a line for each column with its kind and an example."""
    width = max(map(len, rows[0]))
    return "\n".join(
        f"  {name:<{width}}  {describe_kind(value)}: {_example(value)}"
        for name, value in rows[0].items()
    )


def _example(value: Any) -> str:
    text = " ".join(str(value).split())
    return text if len(text) <= SHOWN_CHARS else text[: SHOWN_CHARS - 3] + "..."


def _flags(file: str, guess: Guess | None = None) -> str:
    if guess is None:
        return (
            f"say it: peftkit init {quote(file)} --task summarize --map document=COLUMN"
            f" --map summary=COLUMN (tasks: {', '.join(OPTIONS)})"
        )
    return f"say which: peftkit init {quote(file)} --task {guess.task}"


def _guesses(rows: Sequence[Mapping[str, Any]], task: str | None = None) -> Iterator[Guess]:
    """Give every task that fits; labels, and then plain text, only where nothing else does.

    Answers that say where they stand in their context are meant to be found there.
    """
    questions = guess_questions(rows, _text_columns(rows), is_asked=task == "question_answering")
    if questions is not None and task in {None, "question_answering"}:
        yield Guess("question_answering", *questions)
        return
    found = [guess for guess in _pairs(rows) if task in {None, guess.task}]
    if not found and task in {None, "classify"}:
        found = list(_classify(rows, is_asked=task == "classify"))
    if not found and task in {None, "text"}:
        found = list(_text(rows))
    yield from found


def _pairs(rows: Sequence[Mapping[str, Any]]) -> Iterator[Guess]:
    compared = [*_preference(rows), *_feedback(rows)]
    if compared:  # their answers are no plain ones
        yield from compared
        return
    yield from _chat(rows)
    texts = _text_columns(rows)
    document, summary = first(texts, DOCUMENTS), first(texts, SUMMARIES)
    if document and summary:
        yield Guess(
            "summarize",
            {"document": document, "summary": summary},
            f"columns {document!r} and {summary!r}",
        )
    yield from _translate(rows, texts)
    prompt, completion = first(texts, PROMPTS), first(texts, COMPLETIONS)
    if prompt and completion:
        options = {"prompt": prompt, "completion": completion}
        context = first([name for name in texts if name != prompt], CONTEXTS)
        if context:
            options["context"] = context
        yield Guess("prompt_completion", options, f"columns {prompt!r} and {completion!r}")


def _preference(rows: Sequence[Mapping[str, Any]]) -> Iterator[Guess]:
    said = [name for name in rows[0] if _is_said(rows, name)]
    chosen, rejected = first(said, CHOSEN), first(said, REJECTED)
    if chosen and rejected:
        prompt = first(said, PROMPTS)
        options = {"prompt": prompt, "chosen": chosen, "rejected": rejected}
        shared = "" if prompt else ", which begin with their prompt"
        yield Guess("preference", options, f"columns {chosen!r} and {rejected!r}{shared}")


def _feedback(rows: Sequence[Mapping[str, Any]]) -> Iterator[Guess]:
    said = [name for name in rows[0] if _is_said(rows, name)]
    prompt, completion = first(said, PROMPTS), first(said, COMPLETIONS)
    label = first([n for n in rows[0] if all(isinstance(r[n], bool) for r in rows)], VERDICTS)
    if prompt and completion and label:
        options = {"prompt": prompt, "completion": completion, "label": label}
        yield Guess(
            "feedback", options, f"column {label!r} calls each {completion!r} true or false"
        )


def _is_said(rows: Sequence[Mapping[str, Any]], name: str) -> bool:
    """Tell whether a column holds text, or lists of messages."""
    held = [row[name] for row in rows if row[name]]
    return bool(held) and all(
        isinstance(value, str) or (isinstance(value, list) and isinstance(value[0], Mapping))
        for value in held
    )


def _classify(rows: Sequence[Mapping[str, Any]], *, is_asked: bool) -> Iterator[Guess]:
    """Take a column for labels by its name and its few values; by its name alone where asked."""
    label = first(list(rows[0]), LABELS)
    if label is None or not (is_asked or _has_few_values(rows, label)):
        return
    texts = [name for name in _text_columns(rows) if name != label]
    why = f"column {label!r} has {len(_values(rows, label))} values in {len(rows)} rows"
    for one, other in LABELLED_PAIRS:
        left, right = first(texts, (one,)), first(texts, (other,))
        if left and right:
            yield Guess("classify", {"text": left, "second": right, "label": label}, why)
            return
    text = first(texts, LABELLED) or (texts[0] if len(texts) == 1 else None)
    if text:
        yield Guess("classify", {"text": text, "label": label}, why)


def _values(rows: Sequence[Mapping[str, Any]], column: str) -> set[str | int]:
    """Collect what can be a label; empty text is none."""
    return {row[column] for row in rows if isinstance(row[column], str | int) and row[column] != ""}


def _has_few_values(rows: Sequence[Mapping[str, Any]], column: str) -> bool:
    return 2 <= len(_values(rows, column)) <= min(MAX_LABELS, len(rows) // 2)


def _text(rows: Sequence[Mapping[str, Any]]) -> Iterator[Guess]:
    texts = _text_columns(rows)
    name = first(texts, TEXTS) or (texts[0] if len(texts) == 1 else None)
    label = first(list(rows[0]), LABELS)
    if name is None:
        return
    if label is None or label == name:
        yield Guess("text", {"text": name}, f"column {name!r} and no answer beside it")
        return
    num_values = len(_values(rows, label))
    yield Guess(
        "text",
        {"text": name},
        f"column {name!r}; {label!r} holds no labels, with {num_values} different"
        f" {'value' if num_values == 1 else 'values'} in {len(rows)} rows",
    )


def _chat(rows: Sequence[Mapping[str, Any]]) -> Iterator[Guess]:
    for name in _ranked(list(rows[0]), CONVERSATIONS):
        rows = [{**row, name: parsed(row[name])} for row in rows]
        messages = next((row[name] for row in rows if row[name]), None)
        if not isinstance(messages, list) or not isinstance(messages[0], Mapping):
            continue
        keys = set(messages[0])
        for role, content in (("role", "content"), ("from", "value")):
            if {role, content} <= keys:
                options: dict[str, Any] = {"messages": name}
                if role != "role":
                    options |= {"role": role, "content": content}
                if roles := _roles(rows, name, role):
                    options["roles"] = roles
                yield Guess("chat", options, f"column {name!r} of messages with {role}/{content}")
                return


def _roles(rows: Sequence[Mapping[str, Any]], name: str, role: str) -> dict[str, str]:
    words = dict.fromkeys(
        message.get(role)
        for row in rows
        for message in row[name] or ()
        if isinstance(message, Mapping)
    )
    known = {str(word): SPEAKERS[str(word)] for word in words if str(word) in SPEAKERS}
    return {word: speaker for word, speaker in known.items() if word != speaker}


def _translate(rows: Sequence[Mapping[str, Any]], texts: Sequence[str]) -> Iterator[Guess]:
    source, target = first(texts, SOURCES), first(texts, TARGETS)
    if source and target:
        share = _share_of_length(rows, source, target)
        if share < 1 / 3:
            yield Guess(
                "summarize",
                {"document": source, "summary": target},
                f"columns {source!r} and {target!r}, the latter {share:.0%} as long",
            )
        else:
            yield Guess(
                "translate",
                {"source": source, "target": target},
                f"columns {source!r} and {target!r} of similar length",
            )
        return
    prefix, codes = "", [name for name in texts if name.lower() in LANGUAGES]
    if isinstance(rows[0].get("translation"), Mapping):
        prefix = "translation."
        codes = [name for name in rows[0]["translation"] if name.lower() in LANGUAGES]
    if len(codes) == 2:
        source, target = codes
        yield Guess(
            "translate",
            {
                "source": prefix + source,
                "target": prefix + target,
                "source_language": LANGUAGES[source.lower()],
                "target_language": LANGUAGES[target.lower()],
            },
            f"two languages, {source!r} and {target!r}",
        )


def _text_columns(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Name the columns that hold text wherever they hold anything."""
    return [
        name
        for name in rows[0]
        if all(isinstance(row[name], str | None) for row in rows) and any(row[name] for row in rows)
    ]


def _ranked(columns: Sequence[str], names: Sequence[str]) -> list[str]:
    return sorted(columns, key=lambda name: name.lower() not in names)


def _share_of_length(rows: Sequence[Mapping[str, Any]], source: str, target: str) -> float:
    pairs = [(row[source] or "", row[target] or "") for row in rows]
    return median(len(answer) / max(len(text), 1) for text, answer in pairs)
