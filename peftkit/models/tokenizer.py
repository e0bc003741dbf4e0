"""From a recipe's `model` section to its tokenizer: template, padding and ids that the base has."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from peftkit.embedded.named_templates import NamedTemplate, named_templates
from peftkit.errors import ArtefactError, PeftkitError, UsageError
from peftkit.models.load import ResolvedModel, load_config, resolve
from peftkit.models.load_errors import load_explained
from peftkit.models.new_tokens import NewTokens, extend, new_tokens
from peftkit.plugins import Decision
from peftkit.system.quiet import quiet_stack
from peftkit.system.templates import RefusedByTemplateError, render_template

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedTokenizerBase

    from peftkit.recipe.schema import ModelSection

_LOG = logging.getLogger("peftkit")
PAD_TOKENS = ("<|finetune_right_pad_id|>", "<|pad|>", "<pad>", "[PAD]", "<|PAD_TOKEN|>")
"""Tokens that vocabularies reserve for padding, whether or not the tokenizer names them so."""
_PROBE = ({"role": "user", "content": "QuQ"}, {"role": "assistant", "content": "QaQ"})


@dataclass(frozen=True)
class ReadTokenizer:
    """Hold a tokenizer with what of it its base has not read."""

    tokenizer: PreTrainedTokenizerBase
    new: NewTokens


def load_tokenizer(model: ModelSection, base_dir: Path) -> PreTrainedTokenizerBase:
    """Load the base model's tokenizer, with the recipe's chat template and a safe padding token.

    Args:
        base_dir: folder of the recipe, which `model.chat_template` is relative to.

    Raises:
        ArtefactError: the tokenizer is missing, custom code, or larger than the embedding.
        UsageError: the chat template cannot be read, or writes tokens that the tokenizer has not.
    """
    tokenizer = read_tokenizer(model, base_dir).tokenizer
    if model.chat_template is not None:
        set_template(tokenizer, model.chat_template, base_dir)
    decision = choose_pad_token(tokenizer)
    if decision is not None:
        tokenizer.pad_token = decision.value
        _LOG.warning("padding token %r: %s", decision.value, decision.reason)
    return tokenizer


def read_tokenizer(model: ModelSection, base_dir: Path | None = None) -> ReadTokenizer:
    """Load a tokenizer as it is, with the tokens that the recipe adds.

    Raises:
        ArtefactError: the tokenizer is missing, custom code, or larger than the embedding.
        UsageError: a token to add is there already.
    """
    quiet_stack()
    found = resolve(model)
    config = load_config(model, found)
    if not model.changes_tokens:
        tokenizer = _from(model, found)
        _check_vocabulary(tokenizer, config, found)
        return ReadTokenizer(tokenizer, NewTokens())
    elsewhere = model.other_tokenizer
    if elsewhere is None:
        own = _from(model, found)
        _check_vocabulary(own, config, found)
        tokenizer = _from(model, found)
    else:
        section = dataclasses.replace(model, **elsewhere)
        tokenizer = _from(section, resolve(section, needs_model=False))
        own = _own(model, found)
    extend(tokenizer, model, _template_text(model, base_dir))
    return ReadTokenizer(tokenizer, new_tokens(tokenizer, own))


def expected_tokens(model: ModelSection, config: PretrainedConfig) -> NewTokens:
    """Return a recipe's new tokens, before anything of its base need be here.

    Of a base that is not, every token to add is taken for one that needs a row of its own.
    """
    if not model.changes_tokens:
        return NewTokens()
    try:
        if resolve(model).is_local:
            return read_tokenizer(model).new
    except PeftkitError:  # a model that is only planned for
        pass
    num = int(config.get_text_config().vocab_size)
    return NewTokens(tuple(range(num, num + len(model.add_tokens))), num)


def _from(model: ModelSection, found: ResolvedModel) -> PreTrainedTokenizerBase:
    from transformers import AutoTokenizer

    with load_explained(found.path_or_id, is_local=found.is_local):
        return AutoTokenizer.from_pretrained(
            **found.location(), trust_remote_code=model.trust_remote_code
        )


def _own(model: ModelSection, found: ResolvedModel) -> PreTrainedTokenizerBase | None:
    try:
        return _from(model, found)
    except ArtefactError:
        return None


def _template_text(model: ModelSection, base_dir: Path | None) -> str:
    """Return what names the tokens that a recipe's chat template writes."""
    if model.chat_template is None:
        return ""
    named = named_templates().get(model.chat_template)
    if named is not None:
        return named.source + " ".join(named.tokens or ())
    return _read_template((base_dir or Path()) / model.chat_template)


def set_template(tokenizer: PreTrainedTokenizerBase, stated: str, base_dir: Path) -> None:
    """Give a tokenizer the chat template that a recipe names, or that of its file.

    Raises:
        UsageError: the file cannot be read, or the template writes tokens that are missing.
    """
    named = named_templates().get(stated)
    if named is None:
        tokenizer.chat_template = _read_template(base_dir / stated)
        return
    opening = "{{- bos_token -}}" if named.opens_as_text and _adds_bos(tokenizer) else ""
    tokenizer.chat_template = opening + named.source
    _check_tokens(tokenizer, named)


def _adds_bos(tokenizer: PreTrainedTokenizerBase) -> bool:
    ids = tokenizer("a")["input_ids"]
    return bool(ids) and ids[0] == tokenizer.bos_token_id


def _check_tokens(tokenizer: PreTrainedTokenizerBase, named: NamedTemplate) -> None:
    """Refuse a template that writes tokens which the tokenizer would spell out as text."""
    needs_end = "eos_token" in named.source and tokenizer.eos_token is None
    lacking = ["eos_token"] if needs_end else []
    vocabulary = tokenizer.get_vocab()
    shown = "" if lacking else _rendered(tokenizer)
    missing = [token for token in named.written(shown) if token not in vocabulary]
    if not (missing or lacking):
        return
    text = f"model.chat_template: {named.name} writes {', '.join([*missing, *lacking])}, which"
    raise UsageError(
        f"{text} the tokenizer of {tokenizer.name_or_path} does not have",
        hint=_adding(missing, lacking),
    )


def _adding(missing: Sequence[str], lacking: Sequence[str]) -> str:
    """Write the lines that give a tokenizer what a template writes."""
    lines = []
    if missing:
        lines.append(f"model.add_tokens: [{', '.join(repr(token) for token in missing)}]")
    lines += [f"model.special_tokens: {{{role}: TOKEN}}" for role in lacking]
    return f"add to the recipe: {' and '.join(lines)}"


def _rendered(tokenizer: PreTrainedTokenizerBase) -> str:
    """Render a conversation of plain words; some templates take texts as parts only."""
    parts = [{**one, "content": [{"type": "text", "text": one["content"]}]} for one in _PROBE]
    for messages in (list(_PROBE), parts):
        try:
            return str(render_template(tokenizer, messages, tokenize=False))
        except RefusedByTemplateError:
            continue
    return ""


def choose_pad_token(tokenizer: PreTrainedTokenizerBase) -> Decision | None:
    """Choose a padding token where a tokenizer names none; None where it does.

    A token reserved for padding comes first, then the unknown token. The end token is the
    last resort and harmless here: labels come from positions, never from the padding token's id.

    Raises:
        ArtefactError: there is no token to pad with.
    """
    if tokenizer.pad_token is not None:
        return None
    vocabulary = tokenizer.get_vocab()
    key = "model.tokenizer.pad_token"
    for token in PAD_TOKENS:
        if token in vocabulary and token != tokenizer.eos_token:
            return Decision(key, token, "the tokenizer names none; this one is reserved for it")
    if tokenizer.unk_token is not None and tokenizer.unk_token != tokenizer.eos_token:
        return Decision(
            key, tokenizer.unk_token, "the tokenizer names none; unknown is never trained"
        )
    if tokenizer.eos_token is None:
        raise ArtefactError(
            f"{tokenizer.name_or_path}: the tokenizer has no padding, unknown or end token",
            hint="add one to its tokenizer_config.json",
        )
    reason = "the tokenizer names none; labels are masked by position, so the end stays trained"
    return Decision(key, tokenizer.eos_token, reason)


def _check_vocabulary(
    tokenizer: PreTrainedTokenizerBase, config: PretrainedConfig, found: ResolvedModel
) -> None:
    """Refuse a tokenizer whose ids the embedding does not have."""
    num_rows = getattr(config.get_text_config(), "vocab_size", None)
    largest = max(tokenizer.get_vocab().values(), default=0)
    if isinstance(num_rows, int) and largest >= num_rows:
        raise ArtefactError(
            f"{found.path_or_id}: the tokenizer's largest id is {largest},"
            f" but the embedding has {num_rows} rows",
            hint="use the tokenizer that this model was trained with",
        )


def _read_template(file: Path) -> str:
    """Read a chat template; transformers renders it in its own sandbox."""
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(
            f"model.chat_template: {file} cannot be read: {error}",
            hint="name a Jinja file relative to the recipe, or a template by its name",
        ) from None
