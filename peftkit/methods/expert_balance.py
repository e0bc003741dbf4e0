"""Whether trl's loss that balances experts can be computed on a model; where not, it is left out.

trl's SFTTrainer asks every model whose configuration knows `output_router_logits` for its routers'
logits, and computes Mixtral's loss of them: from keys that some families call by other names, and
of routers that a dense variant of a family does not have.
"""

from __future__ import annotations

import logging
from typing import Any

from peftkit.errors import UsageError

_LOG = logging.getLogger("peftkit")
_KEYS = ("num_experts", "num_experts_per_tok")


def settle_balance(args: Any, model: Any) -> None:
    """Switch the balancing loss off where trl would fail at it, and say so.

    Args:
        args: trl's config; its `router_aux_loss_coef` is set to 0 where it is not stated.

    Raises:
        UsageError: the recipe states a coefficient that cannot be heeded.
    """
    text = model.config.get_text_config()
    stated = args.router_aux_loss_coef
    coefficient = getattr(text, "router_aux_loss_coef", 0.0) if stated is None else stated
    if not hasattr(text, "output_router_logits") or not coefficient:
        return
    why = _why_not(model, text)
    if why is None:
        return
    if stated is not None:
        raise UsageError(
            f"method.sft.router_aux_loss_coef: {stated} asks for trl's loss that balances experts,"
            f" which {why}",
            hint="method.sft.router_aux_loss_coef=0",
        )
    args.router_aux_loss_coef = 0.0
    _LOG.warning("trained without trl's loss that balances experts, which %s", why)


def _why_not(model: Any, text: Any) -> str | None:
    missing = [key for key in _KEYS if getattr(text, key, None) is None]
    if missing:
        return f"needs {' and '.join(missing)}, which {type(text).__name__} does not have"
    base = model.get_base_model() if hasattr(model, "peft_config") else model
    recorders = [
        recorder
        for module in base.modules()
        for recorder in _listed(getattr(type(module), "_can_record_outputs", None))
    ]
    routers = tuple(getattr(recorder, "target_class", recorder) for recorder in recorders)
    if routers and not any(isinstance(module, routers) for module in base.modules()):
        return f"needs routers, and this {type(base).__name__} has none"
    return None


def _listed(recorded: Any) -> list[Any]:
    """Return who records a family's `router_logits`: a class, a recorder of one, or several."""
    found = (recorded or {}).get("router_logits")
    return found if isinstance(found, list) else [found] if found is not None else []
