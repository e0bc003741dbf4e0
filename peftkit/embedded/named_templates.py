"""Chat templates that a recipe gives by name: ours, and those that trl ships for training."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib.metadata import distribution
from pathlib import Path

from peftkit.embedded import chat_templates_folder

_TRAINING = "_training.jinja"
"""How the names of trl's files end that mark what an assistant says."""
_TOKEN = re.compile(r"<\|[^|<>\s]+\|>|<\uff5c[^\uff5c<>]+\uff5c>|<(?:start|end)_of_\w+>")


@dataclass(frozen=True)
class NamedTemplate:
    """Hold a chat template of a family, and what its tokenizer must have."""

    name: str
    file: Path
    tokens: tuple[str, ...] | None = None
    """Tokens that it writes; None where they are found in what it writes."""
    opens_as_text: bool = False
    """Whether it is a format of plain text, before which the tokenizer's own BOS stands, if any."""

    @property
    def doc(self) -> str:
        """Say whose it is."""
        return _ORIGINS.get(self.name, "trl's, for training")

    @property
    def source(self) -> str:
        """Read the template."""
        return self.file.read_text(encoding="utf-8")

    def written(self, shown: str) -> tuple[str, ...]:
        """Return the tokens it writes, given a conversation that it rendered."""
        found = _TOKEN.findall(shown) if self.tokens is None else self.tokens
        return tuple(dict.fromkeys(found))


_ORIGINS = {
    "chatml": "<|im_start|>, the role, the text, <|im_end|>: Qwen's, SmolLM's and many others'",
    "llama3": "Llama 3's, headers in tokens of their own",
    "mistral": "Mistral's [INST], the system message before the first question",
    "gemma": "Gemma's and Gemma 2's, which has no system message",
    "phi": "Phi 3's, a token for each role",
    "zephyr": "Zephyr's, roles as text and the end token after each message",
    "vicuna": "Vicuna's USER: and ASSISTANT: in one line",
    "alpaca": "Alpaca's ### Instruction: and ### Response:",
    "plain": "the texts themselves, the end token after each answer",
}
_OWN = {
    "chatml": ("<|im_start|>", "<|im_end|>"),
    "llama3": ("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
    "mistral": (),
    "gemma": ("<start_of_turn>", "<end_of_turn>"),
    "phi": ("<|system|>", "<|user|>", "<|assistant|>", "<|end|>"),
    "zephyr": (),
    "vicuna": (),
    "alpaca": (),
    "plain": (),
}
"""Ours, and the tokens of each beside a beginning and an end."""
OWN_TEMPLATES = tuple(_OWN)
_OF_TEXT = ("vicuna", "alpaca", "plain")


@cache
def named_templates() -> dict[str, NamedTemplate]:
    """List them by name; ours first, which win over trl's of the same name."""
    folder = chat_templates_folder()
    own = {
        name: NamedTemplate(name, folder / f"{name}.jinja", tokens, name in _OF_TEXT)
        for name, tokens in _OWN.items()
    }
    return {**{one.name: one for one in _of_trl()}, **own}


def template_names() -> list[str]:
    """Name them: ours, then trl's."""
    return [*OWN_TEMPLATES, *sorted(set(named_templates()) - set(OWN_TEMPLATES))]


def _of_trl() -> Iterator[NamedTemplate]:
    folder = Path(str(distribution("trl").locate_file("trl/chat_templates")))  # imports nothing
    for file in folder.glob(f"*{_TRAINING}"):
        yield NamedTemplate(file.name.removesuffix(_TRAINING), file)
