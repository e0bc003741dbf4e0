"""Make a model with random weights from a recipe's `model.config`."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

from peftkit.errors import UsageError
from peftkit.recipe.strict import suggest
from peftkit.system.quiet import quiet_stack

if TYPE_CHECKING:
    from collections.abc import Mapping

    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

    from peftkit.plugins import ModelKind
    from peftkit.recipe.schema import ModelSection


def init_model(
    model: ModelSection,
    *,
    kind: ModelKind,
    seed: int,
    tokenizer: PreTrainedTokenizerBase,
    config_options: Mapping[str, Any] | None = None,
) -> PreTrainedModel:
    """Build a new model with random weights from `model.config`, sized to a tokenizer.

    Args:
        config_options: what else its configuration must say, e.g. a classifier's `id2label`.
        seed: of the weights; the global random state of torch is set to it.

    Raises:
        UsageError: a configuration key is unknown or impossible.
    """
    quiet_stack()
    import torch
    import transformers

    if model.config is None:
        raise UsageError("model.config is missing", hint="name a model_type and its sizes")
    transformers.utils.logging.disable_progress_bar()  # of every checkpoint that is written
    config = new_config({**kind.head_options, **model.config, **(config_options or {})}, tokenizer)
    if config.is_encoder_decoder and "decoder_start_token_id" not in model.config:
        # T5's class has no default, and BART's is an id of BART's own vocabulary
        config.decoder_start_token_id = tokenizer.pad_token_id
    torch.manual_seed(seed)
    keywords: dict[str, Any] = {}
    if model.attn_implementation is not None:
        keywords["attn_implementation"] = model.attn_implementation
    if model.dtype != "auto":
        keywords["dtype"] = getattr(torch, model.dtype)
    built: PreTrainedModel = getattr(transformers, kind.auto_class).from_config(config, **keywords)
    return built


def new_config(
    keys: Mapping[str, Any], tokenizer: PreTrainedTokenizerBase | None = None
) -> PretrainedConfig:
    """Make a configuration of these keys, refusing the ones its class does not have.

    Args:
        tokenizer: whose size and special tokens it gets where the keys do not say them.
    """
    from transformers import AutoConfig
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    model_type = keys.get("model_type")
    if model_type not in CONFIG_MAPPING:
        raise UsageError(
            f"model.config.model_type: this transformers has no {model_type!r}",
            hint=suggest(str(model_type), list(CONFIG_MAPPING)) or "e.g. llama, qwen3, bert",
        )
    known = set(inspect.signature(CONFIG_MAPPING[model_type]).parameters)
    for key in keys:
        if key != "model_type" and key not in known:
            raise UsageError(
                f"model.config.{key}: {CONFIG_MAPPING[model_type].__name__} has no such key",
                hint=suggest(key, sorted(known)),
            )
    options = {key: value for key, value in keys.items() if key != "model_type"}
    if tokenizer is not None:
        of_tokenizer = {
            "vocab_size": len(tokenizer),
            "bos_token_id": tokenizer.bos_token_id,
            "eos_token_id": tokenizer.eos_token_id,
            "pad_token_id": tokenizer.pad_token_id,
        }
        options = {**{key: of_tokenizer[key] for key in of_tokenizer if key in known}, **options}
    try:
        config = AutoConfig.for_model(model_type, **options)
    except (TypeError, ValueError) as error:
        raise UsageError(f"model.config: {error}") from error
    _check_parts(config, keys)
    return config


def _check_parts(config: PretrainedConfig, keys: Mapping[str, Any]) -> None:
    """Refuse keys that the configurations within do not have: `text_config`, `vision_config`."""
    for name in config.sub_configs:
        stated, part = keys.get(name), getattr(config, name, None)
        known = set(inspect.signature(type(part)).parameters)
        for key in stated if isinstance(stated, dict) and part is not None else ():
            if key not in known and key != "model_type":
                raise UsageError(
                    f"model.config.{name}.{key}: {type(part).__name__} has no such key",
                    hint=suggest(key, sorted(known)),
                )
