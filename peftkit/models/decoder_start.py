"""How a decoder behind an encoder begins: what it reads when it is taught, and so when it answers.

Every family shifts a target's tokens by one of its own rules. Whatever that is, the first token
that training feeds is the one that an answer must start from, and a token that opens every target
(the code of a language, BART's `<s>`) is the one that must come next.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from peftkit.plugins.native import native_model

if TYPE_CHECKING:
    from peft import PeftModel
    from torch import Tensor
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


class Shifting:
    """Give a collator what it asks a model for, whose class may lack it."""

    def __init__(self, model: PreTrainedModel | PeftModel) -> None:
        self._model = model

    def prepare_decoder_input_ids_from_labels(self, labels: Tensor) -> Tensor:
        """Return what the decoder reads."""
        return decoder_inputs(self._model, labels)


def decoder_inputs(model: PreTrainedModel | PeftModel, labels: Tensor) -> Tensor:
    """Return what a decoder reads where it is taught to write labels, as its own forward has it.

    Some families (NLLB, Blenderbot) shift inside their forward by a function of their module, and
    lack the method that others have for it.
    """
    native = native_model(model)
    labels = labels.clone()  # FSMT's shift overwrites them
    if hasattr(native, "prepare_decoder_input_ids_from_labels"):
        shifted: Tensor = native.prepare_decoder_input_ids_from_labels(labels=labels)
        return shifted
    module: Any = sys.modules[type(native).__module__]
    config = native.config
    return module.shift_tokens_right(  # type: ignore[no-any-return]
        labels, config.pad_token_id, config.decoder_start_token_id
    )


def settle_start(model: PreTrainedModel | PeftModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Write into a model's generation config how its answers begin, for `generate` anywhere."""
    config = native_model(model).generation_config
    for key, token in start_of_answers(model, tokenizer).items():
        setattr(config, key, token)


def start_of_answers(
    model: PreTrainedModel | PeftModel, tokenizer: PreTrainedTokenizerBase
) -> dict[str, int]:
    """Return what `generate` must know: `decoder_start_token_id`, and `forced_bos_token_id`.

    Nothing for a model without an encoder, or where a chat template writes the targets.
    """
    import torch

    native = native_model(model)
    if not native.config.is_encoder_decoder or tokenizer.chat_template:
        return {}
    one, other = (tokenizer(text_target=text)["input_ids"] for text in ("a", "0"))
    labels = torch.tensor([one], device=native.device)
    found = {"decoder_start_token_id": int(decoder_inputs(model, labels)[0, 0])}
    special = {*tokenizer.all_special_ids, *tokenizer.get_added_vocab().values()}
    if one[0] == other[0] and one[0] in special and len(one) > 1:
        found["forced_bos_token_id"] = one[0]
    return found
