"""What trainers switch in a model's configuration to train it, and what is put back afterwards."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from peftkit.plugins.native import native_model

SWITCHED = ("output_router_logits", "router_aux_loss_coef", "use_cache")
"""trl asks models with experts for their routers' logits, which generation in some families cannot
compute a loss of; transformers switches the cache off under activation checkpointing. Attention by
rows is switched on by methods that train without padding."""


def switches_of(model: Any) -> Callable[[], None]:
    """Return what puts a model's configuration back, for scoring and for who loads it again."""
    before = [
        (config, key, getattr(config, key))
        for config in (model.config, model.config.get_text_config())
        for key in SWITCHED
        if hasattr(config, key)
    ]

    native = native_model(model)
    attention = native.config._attn_implementation

    def put_back() -> None:
        if native.config._attn_implementation != attention:
            native.set_attn_implementation(attention)
        for config, key, value in before:
            setattr(config, key, value)

    return put_back
