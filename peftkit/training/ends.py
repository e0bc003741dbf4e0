"""Write into what is saved where its answers end, for `generate` anywhere."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

from peftkit.plugins.native import native_model
from peftkit.preprocessing.dialogue import Dialogue
from peftkit.scoring.generation import stop_token_ids

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def settle_ends(model: PreTrainedModel | PeftModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Write into a model's generation config all that ends an answer of it."""
    stops = stop_token_ids(model, tokenizer)
    config = native_model(model).generation_config
    if stops:
        config.eos_token_id = list(stops) if len(stops) > 1 else stops[0]
    if config.pad_token_id is None:
        config.pad_token_id = tokenizer.pad_token_id


def with_taught_end(tokenizer: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
    """Return a tokenizer whose end token is the one that conversations were taught to end in.

    Programs that know one end token read it there. A template that writes the end token by its
    name would then write another one: its tokenizer stays as it is.
    """
    dialogue = Dialogue(tokenizer)
    ends = dialogue.end_ids
    if not ends or tokenizer.eos_token_id in ends or "eos_token" in dialogue.template.source:
        return tokenizer
    shipped = copy.deepcopy(tokenizer)
    shipped.eos_token = tokenizer.convert_ids_to_tokens(ends[0])
    return shipped
