"""Say how many tokens a model that answers or is scored reads at once."""

from __future__ import annotations

_TOKENS = {"cpu": 1024, "cuda": 16_384}


def tokens_at_once(device: str) -> int | None:
    """Return the tokens that share a forward; None where nothing but the caller bounds them.

    On a CPU more of them no longer fit into its caches, with the work of a layer.

    Args:
        device: its kind, e.g. `cpu`.
    """
    return _TOKENS.get(device)
