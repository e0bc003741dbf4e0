"""Rows of new tokens: which of an embedding and of a head an adapter trains."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from peftkit.adapters.names import is_named
from peftkit.plugins.native import embeddings_of

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel

ROWS = "trainable_token_indices"


def train_rows(config: Any, model: PreTrainedModel, ids: Sequence[int]) -> None:
    """Let an adapter train the rows of these tokens, in a tied head with the embedding's.

    Nothing changes where the recipe says what of an embedding is trained.
    """
    if not ids:
        return
    modules = embeddings_of(model)
    saved, targets = getattr(config, "modules_to_save", None), config.target_modules
    named = [*(saved or ()), *(targets if isinstance(targets, list | set | tuple) else ())]
    is_stated = any(is_named(entry, name) for entry in named for name in modules)
    if not is_stated and getattr(config, ROWS, ()) is None:
        setattr(config, ROWS, {name.rpartition(".")[2]: list(ids) for name in modules})


def open_head(attached: PeftModel) -> None:
    """Let trl read a head of which single rows are trained.

    Its loss reads weight and bias of the head; PEFT's wrapper gives the weight, the trained rows in
    it, and not even that there is no bias.
    """
    attached.get_output_embeddings().register_parameter("bias", None)
