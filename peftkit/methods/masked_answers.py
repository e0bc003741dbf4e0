"""Fill in the masked words of a text with an encoder, the likeliest first."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from peftkit.errors import DataError
from peftkit.plugins import Answerer, Asking, Question, Reply

if TYPE_CHECKING:
    from torch import Tensor

    Word = dict[str, Any]

NUM_WORDS = 5
"""Words that are named for each masked one."""


class MaskedWordsAnswerer(Answerer):
    """Name the likeliest words for each mask token of a text."""

    columns = ("filled", "words")
    no_conversation = "an encoder fills in the masked words of one text"

    def __init__(self, asking: Asking) -> None:
        """Load the encoder.

        Raises:
            UsageError: there are options to generate.
        """
        asking.refuse_options("an encoder")
        super().__init__(asking)

    def reply(self, question: Question, write: Callable[[str], None], *, seed: int = 0) -> Reply:
        """Fill in one text, and write what else each masked word may be."""
        del seed
        (found,) = self.reply_many([question])
        lines = [found["filled"]]
        lines += [
            "  ".join(f"{one['word']} {one['share']:.3f}" for one in w) for w in found["words"]
        ]
        write("\n".join(lines))
        return Reply(found["filled"], values=found)

    def reply_many(self, questions: Sequence[Question]) -> Iterator[Mapping[str, Any]]:
        """Fill in several texts, in their order."""
        import torch

        self.model.eval()
        device = self.model.get_input_embeddings().weight.device
        for question in questions:
            batch = self._encode(question.text)
            with torch.no_grad():
                outputs = self.model(**{key: value.to(device) for key, value in batch.items()})
            logits = outputs[0][0]
            masked = batch["input_ids"][0] == self.tokenizer.mask_token_id
            yield self._fill(batch["input_ids"][0], masked, logits[masked.to(device)])

    def _encode(self, text: str) -> Mapping[str, Tensor]:
        """Encode a text.

        Raises:
            DataError: nothing is masked in it, or it is too long.
        """
        mask, longest = self.tokenizer.mask_token, self.model.config.max_position_embeddings
        batch: Mapping[str, Tensor] = self.tokenizer(text, return_tensors="pt", verbose=False)
        num_tokens = batch["input_ids"].shape[1]
        if not (batch["input_ids"] == self.tokenizer.mask_token_id).any():
            raise DataError(f"the text has no {mask}, which stands for a word to fill in")
        if num_tokens > longest:
            raise DataError(f"the text has {num_tokens} tokens, and the model reads {longest}")
        return batch

    def _fill(self, ids: Tensor, masked: Tensor, logits: Tensor) -> dict[str, Any]:
        best = logits.float().softmax(-1).topk(NUM_WORDS)
        words: list[list[Word]] = [
            [
                {"word": self.tokenizer.decode([token]).strip(), "share": share}
                for token, share in zip(tokens, shares, strict=True)
            ]
            for tokens, shares in zip(best.indices.tolist(), best.values.tolist(), strict=True)
        ]
        filled = ids.clone()
        filled[masked] = best.indices[:, 0].to(ids.device)
        return {"filled": self.tokenizer.decode(filled, skip_special_tokens=True), "words": words}
