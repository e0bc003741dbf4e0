"""Tokens that a base was not trained with: their ids, and their rows of embedding and head.

A new row begins as the mean of those that were trained (Hewitt, "Initializing New Word Embeddings
for Pretrained Language Models", 2021), which leaves what the model says of all others nearly as
it was. Rows that a checkpoint holds in reserve behind its vocabulary are new ones too.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from peftkit.errors import UsageError
from peftkit.plugins.native import embeddings_of

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

    from peftkit.recipe.build import Built
    from peftkit.recipe.schema import ModelSection


@dataclass(frozen=True)
class NewTokens:
    """Say which tokens of a tokenizer its base has not read."""

    ids: tuple[int, ...] = ()
    num_known: int = 0
    """Tokens of the base's own tokenizer."""

    def num_rows(self, vocab_size: int) -> int:
        """Return the rows that an embedding of so many must have."""
        return max(vocab_size, 1 + max(self.ids, default=-1))


def extend(tokenizer: PreTrainedTokenizerBase, model: ModelSection, template: str) -> None:
    """Add the tokens that a recipe names, and say which ones are special.

    Args:
        template: what names the tokens that the recipe's chat template writes, which are special:
            they are structure and no text; that of the tokenizer's own when empty.

    Raises:
        UsageError: one to add is there already.
    """
    from tokenizers import AddedToken

    template = template or str(tokenizer.chat_template or "")
    known = tokenizer.get_vocab()
    there = [token for token in model.add_tokens if token in known]
    if there:
        raise UsageError(
            f"model.add_tokens: {', '.join(map(repr, there))}: the tokenizer of"
            f" {tokenizer.name_or_path} has it already, as {known[there[0]]}",
            hint="delete it there; model.special_tokens gives a token that is there a role",
        )
    tokenizer.add_tokens(
        [
            AddedToken(token, special=token in template, normalized=False)
            for token in model.add_tokens
        ]
    )
    if model.special_tokens:
        tokenizer.add_special_tokens(dict(model.special_tokens))


def new_tokens(
    tokenizer: PreTrainedTokenizerBase, own: PreTrainedTokenizerBase | None
) -> NewTokens:
    """Compare a tokenizer with the base's own.

    Args:
        own: None where the base has none: all that the tokenizer has is then believed known.
    """
    known = tokenizer.get_vocab() if own is None else own.get_vocab()
    all_ids = tokenizer.get_vocab().items()
    ids = sorted(index for token, index in all_ids if known.get(token) != index)
    return NewTokens(tuple(ids), 1 + max(known.values(), default=-1))


def grow_embeddings(base: PreTrainedModel, new: NewTokens) -> None:
    """Give a base the rows of its new tokens, each the mean of the trained ones.

    Raises:
        UsageError: the embedding is quantized.
    """
    if not new.ids:
        return
    _check_plain(base)
    num_rows = base.get_input_embeddings().weight.shape[0]
    if new.num_rows(num_rows) > num_rows:
        base.resize_token_embeddings(new.num_rows(num_rows), mean_resizing=False)
    set_to_mean(base, new)


def set_to_mean(base: PreTrainedModel, new: NewTokens) -> None:
    """Set new rows of embedding and head, and of its bias, to the mean of the trained ones."""
    import torch

    inside = [index for index in new.ids if index < new.num_known]
    with torch.no_grad():
        for module in embeddings_of(base).values():
            for parameter in (module.weight, getattr(module, "bias", None)):
                if parameter is not None:
                    total = parameter[: new.num_known].sum(0, dtype=torch.float32)
                    total -= parameter[inside].sum(0, dtype=torch.float32)
                    mean = total / (new.num_known - len(inside))
                    parameter[list(new.ids)] = mean.to(parameter.dtype)


def with_new_tokens(built: Built, new: NewTokens) -> Built:
    """Let the adapter of a recipe train the rows of new tokens."""
    if built.adapter is None or not new.ids:
        return built
    return replace(built, adapter=built.adapter.with_tokens(new.ids))


def grow_config(config: PretrainedConfig, new: NewTokens) -> None:
    """Give a configuration the rows of new tokens."""
    text: Any = config.get_text_config()
    text.vocab_size = new.num_rows(text.vocab_size)


def _check_plain(base: PreTrainedModel) -> None:
    for name, module in embeddings_of(base).items():
        if not module.weight.dtype.is_floating_point:
            raise UsageError(
                f"model.add_tokens: {name} is quantized, so that it takes no new rows",
                hint="a quantization that leaves embedding and head as they are",
            )
