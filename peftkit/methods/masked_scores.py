"""Score an encoder by what it was pretrained for: masked words, and next sentences."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from peftkit.methods.masked_head import MaskedBatches, scored_masked_only
from peftkit.methods.pretraining_trainer import parts_of
from peftkit.plugins import IGNORED, Contestant, Evaluator, Scoring

if TYPE_CHECKING:
    from datasets import Dataset
    from peft import PeftModel
    from torch import Tensor
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    Arrange = Callable[[Dataset, PreTrainedTokenizerBase], Dataset]


class MaskedWordsEvaluator(Evaluator):
    """Let one model after the other fill in the same words, and judge the same pairs."""

    headline = "mlm_accuracy"

    def __init__(self, scoring: Scoring, arrange: Arrange, collate: MaskedBatches) -> None:
        """Cut, pair and mask the rows.

        Raises:
            DataError: they are too few to make a pair.
        """
        from datasets import Dataset

        super().__init__(scoring)
        flat = Dataset.from_list([row for rows in scoring.rows for row in rows])
        self._rows = arrange(flat, scoring.tokenizer).to_list()
        self._collate = collate
        self.notes = tuple(_baselines(self._rows))

    def take(self, model: PreTrainedModel | PeftModel, name: str) -> Contestant:
        """Return the losses in nats, and the shares that are right."""
        import torch

        say, size = self.scoring.say(f"{name} fills in"), self.scoring.batch_size
        order = sorted(range(len(self._rows)), key=lambda at: -len(self._rows[at]["input_ids"]))
        device = model.get_input_embeddings().weight.device
        sums: Counter[str] = Counter()
        with scored_masked_only(model), torch.no_grad():
            for start in range(0, len(order), size):
                batch = self._collate([self._rows[at] for at in order[start : start + size]])
                batch = {key: value.to(device) for key, value in batch.items()}
                sums.update(_sums(parts_of(model(**batch), batch)))
                if say:
                    say(min(start + size, len(order)), len(order))
        return Contestant(metrics=dict(_means(sums)))


def _sums(parts: Mapping[str, tuple[Tensor, Tensor]]) -> dict[str, float]:
    import torch

    found: dict[str, float] = {}
    for name, (logits, labels) in parts.items():
        nats = torch.nn.functional.cross_entropy(logits.float(), labels, reduction="none")
        found[f"{name}_loss"] = float(nats.double().sum())
        found[f"{name}_accuracy"] = float((logits.argmax(-1) == labels).sum())
        found[f"{name}_num"] = len(labels)
    return found


def _means(sums: Mapping[str, float]) -> Iterator[tuple[str, float]]:
    for name in ("mlm", "nsp"):
        if num := sums.get(f"{name}_num"):
            yield f"{name}_accuracy", sums[f"{name}_accuracy"] / num
            yield f"{name}_loss", sums[f"{name}_loss"] / num


def _baselines(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Say what can be reached without reading: from the frequencies of these very answers."""
    import math

    words = Counter(label for row in rows for label in row["labels"] if label != IGNORED)
    total = sum(words.values())
    nats = -sum(count * math.log(count / total) for count in words.values()) / total
    yield (
        f"Masked words, {total:,} of them, by their frequency alone: accuracy"
        f" {max(words.values()) / total:.3f}, loss {nats:.3f}."
    )
    if "next_sentence_label" in rows[0]:
        random = sum(row["next_sentence_label"] for row in rows) / len(rows)
        yield f"Next sentences: {random:.3f} of {len(rows):,} pairs are random."
