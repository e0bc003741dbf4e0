"""Decode encoded rows token by token, the trained ones marked: what a person checks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from peftkit.plugins.examples import Example, show_number
from peftkit.plugins.rows import IGNORED
from peftkit.preprocessing.audit import SplitAudit
from peftkit.preprocessing.breaches import Breach
from peftkit.preprocessing.pipeline import Prepared

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from peftkit.plugins import Method

MAX_TOKENS = 2048
"""Tokens of a row that a run directory keeps for its report; packed rows can be far longer."""


@dataclass(frozen=True)
class MaskedRow:
    """Hold one row as the trainer gets it."""

    tokens: tuple[str, ...]
    """Each token's text."""
    trained: tuple[bool, ...]
    """Whether the loss counts it. What an encoder reads stands before the target."""
    label: str = ""
    """What is to be predicted of all tokens, where a row has a label."""

    def to_json(self) -> dict[str, Any]:
        """Return the row as JSON data."""
        row: dict[str, Any] = {"tokens": list(self.tokens), "trained": list(self.trained)}
        return {**row, "label": self.label} if self.label else row


@dataclass(frozen=True)
class DataView:
    """Hold what `peftkit data` shows."""

    audit: dict[str, SplitAudit]
    breaches: tuple[Breach, ...]
    """Thresholds that a run would refuse; the exit code is 3 if there are any."""
    rows: dict[str, list[MaskedRow]]
    """Split -> its first rows."""
    fingerprint: str
    split_fingerprints: Mapping[str, str]
    source_revision: str | None
    notes: tuple[str, ...] = ()
    system: str = ""
    """The system message that conversations are trained under, where they share one."""

    def to_json(self) -> dict[str, Any]:
        """Return the view as JSON data, in the form of a run's data.json."""
        return {
            "fingerprint": self.fingerprint,
            "split_fingerprints": dict(self.split_fingerprints),
            "source_revision": self.source_revision,
            **({"system": self.system} if self.system else {}),
            **({"notes": list(self.notes)} if self.notes else {}),
            "splits": {name: asdict(audit) for name, audit in self.audit.items()},
            "breaches": [asdict(breach) for breach in self.breaches],
            "mask_samples": {
                name: [row.to_json() for row in rows] for name, rows in self.rows.items()
            },
        }


def make_view(
    prepared: Prepared, method: Method, tokenizer: PreTrainedTokenizerBase, *, num_rows: int
) -> DataView:
    """Take the first rows of every split out of prepared data."""
    return DataView(
        audit=prepared.audit,
        breaches=prepared.breaches,
        rows={
            split: [
                _mask_row(method.sequences(row), tokenizer, prepared)
                for row in rows.select(range(min(num_rows, len(rows))))
            ]
            for split, rows in prepared.encoded.items()
        },
        fingerprint=prepared.fingerprint,
        split_fingerprints=prepared.split_fingerprints,
        source_revision=prepared.source_revision,
        notes=prepared.notes,
        system=_shared_system(prepared.examples.get("train", ())),
    )


def _shared_system(examples: Sequence[Example]) -> str:
    """Return the system message that most conversations begin with; empty where there is none."""
    opened = [one.prompt[0] for one in examples if one.prompt]
    said = Counter(one["content"] for one in opened if one["role"] == "system")
    text, number = said.most_common(1)[0] if said else ("", 0)
    return str(text) if number > len(opened) / 2 else ""


def data_json(
    prepared: Prepared, method: Method, tokenizer: PreTrainedTokenizerBase
) -> dict[str, Any]:
    """Return the content of a run's data.json: fingerprint, audit and the masks of a few rows."""
    return make_view(prepared, method, tokenizer, num_rows=3).to_json()


def _mask_row(
    sequences: Sequence[tuple[Sequence[int], Any]],
    tokenizer: PreTrainedTokenizerBase,
    prepared: Prepared,
) -> MaskedRow:
    """Decode what a model reads of a row; several sequences stand one after the other."""
    parts = [_mask_sequence(ids, labels, tokenizer, prepared) for ids, labels in sequences]
    return MaskedRow(
        tuple(token for part in parts for token in part.tokens),
        tuple(is_trained for part in parts for is_trained in part.trained),
        parts[0].label,
    )


def _mask_sequence(
    ids: Sequence[int], labels: Any, tokenizer: PreTrainedTokenizerBase, prepared: Prepared
) -> MaskedRow:
    tokens = tuple(decode_tokens(ids[:MAX_TOKENS], tokenizer))
    if isinstance(labels, int | float):
        names = prepared.labels.names
        label = names[int(labels)] if names else show_number(labels)
        return MaskedRow(tokens, (False,) * len(tokens), label)
    if not prepared.has_targets:
        return MaskedRow(tokens, tuple(label != IGNORED for label in labels[:MAX_TOKENS]))
    target = tuple(decode_tokens(labels[:MAX_TOKENS], tokenizer))
    return MaskedRow(tokens + target, (False,) * len(tokens) + (True,) * len(target))


def decode_tokens(ids: Sequence[int], tokenizer: PreTrainedTokenizerBase) -> Iterator[str]:
    """Give each token's own text; a character that spans tokens stands in its last one.

    The texts join to the decoded row, so no byte is shown twice or lost.
    """
    pending: list[int] = []
    for at, token_id in enumerate(ids):
        pending.append(token_id)
        text = tokenizer.decode(pending, skip_special_tokens=False)
        is_partial = text.endswith("\ufffd") and len(pending) < 4 and at + 1 < len(ids)
        yield "" if is_partial else text
        if not is_partial:
            pending = []
