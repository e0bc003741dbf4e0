"""How conversations become text, as a recipe's `data.dialogue` says it: one noun for every part."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Trained = Literal["answers", "last_answer", "everything"]
Role = Literal["system", "user", "assistant", "tool"]
ControlTokens = Literal["escape", "refuse", "keep"]


@dataclass(frozen=True)
class Rendering:
    """Say what of a conversation is trained, and what its chat template is told."""

    train: Trained | list[Role] = "answers"
    """`answers` trains every turn of the assistant, `last_answer` the last, `everything` all, a
    list of roles the turns of those, each with its end: `[user, assistant]`."""
    control_tokens: ControlTokens = "escape"
    """What is made of control tokens that stand in what is said, such as `<|im_end|>`: `escape`
    encodes them as text, `refuse` leaves the row out, `keep` takes them for structure."""
    date: str | None = None
    """The day that a template writes as today, e.g. 2026-11-30; the run's first day when absent."""
    system: str | None = None
    """System message before every conversation that has none of its own: a text, with columns in
    braces. `generate` asks under it too, or under that of `--system`."""
    chat_template_kwargs: Mapping[str, Any] = field(default_factory=dict)
    """Variables that the chat template reads, e.g. `{enable_thinking: false}`."""


PLAIN = Rendering()
"""Where a recipe says nothing."""
