"""What a model reads with: its tokenizer, and the processor around it where it sees pictures."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from peftkit.models.load import resolve
from peftkit.models.load_errors import load_explained
from peftkit.models.tokenizer import load_tokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase, ProcessorMixin

    from peftkit.plugins import Method
    from peftkit.recipe.schema import ModelSection


def load_reader(model: ModelSection, base_dir: Path, method: Method) -> PreTrainedTokenizerBase:
    """Load a base's tokenizer, and give the method its processor where its kind reads with one.

    Args:
        base_dir: folder of the recipe, which `model.chat_template` is relative to.

    Raises:
        ArtefactError: one of the two is missing or broken.
        ResourceError: a package that the processor needs is missing.
        UsageError: the chat template cannot be read.
    """
    tokenizer = load_tokenizer(model, base_dir)
    if method.kind.reads_with == "processor":
        method.processor = _load_processor(model, tokenizer)
    return tokenizer


def _load_processor(model: ModelSection, tokenizer: PreTrainedTokenizerBase) -> ProcessorMixin:
    """Load a processor around a tokenizer that is loaded already: both have one template."""
    from transformers import AutoProcessor, ProcessorMixin

    from peftkit.errors import UsageError

    found = resolve(model)
    with load_explained(found.path_or_id, is_local=found.is_local):
        processor = AutoProcessor.from_pretrained(
            **found.location(), trust_remote_code=model.trust_remote_code
        )
    if not isinstance(processor, ProcessorMixin):
        raise UsageError(
            f"model.path: {found.path_or_id} has no processor, so it reads text alone",
            hint="use the method sft, or a model of image-text-to-text",
        )
    if model.chat_template is None and processor.chat_template:
        tokenizer.chat_template = processor.chat_template
    processor.chat_template = tokenizer.chat_template
    processor.tokenizer = tokenizer
    return processor
