"""Leave out, in a model's last block, what no position that is looked at needs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from inspect import signature
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


@contextmanager
def last_block_at(native: Any, at: torch.Tensor, shape: torch.Size) -> Iterator[None]:
    """Let the last block's feed-forward layers compute at some positions only.

    What they give is added to the position it was made of, and nothing after them mixes positions,
    so the others are not read. Elsewhere zeros are added. Checkpointing, which computes the block
    again when this is over, and experts, whose balance counts every position, are left alone.

    Args:
        at: positions of the flattened batch; too many of them and nothing is saved.
        shape: rows and columns of the batch.
    """
    feed_forward = _last_feed_forward(native)
    if feed_forward is None or 2 * len(at) > shape.numel():
        yield
        return

    def select(_module: Any, args: tuple[Any, ...]) -> tuple[Any, ...]:
        return (args[0].flatten(0, 1).index_select(0, at)[None],)

    def put_back(_module: Any, _args: Any, found: torch.Tensor) -> torch.Tensor:
        whole = found.new_zeros(shape.numel(), found.shape[-1])
        return whole.index_copy(0, at, found[0]).view(*shape, found.shape[-1])

    handles = [
        feed_forward.register_forward_pre_hook(select),
        feed_forward.register_forward_hook(put_back),
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _last_feed_forward(native: Any) -> torch.nn.Module | None:
    """Return the last block's feed-forward layers, where each position is computed by itself.

    Some families have them add to a second argument; those are left alone.
    """
    block = next(reversed(getattr(native.get_decoder(), "layers", None) or [None]), None)
    found: torch.nn.Module | None = getattr(block, "mlp", None)
    is_wrapped = hasattr(block, "_checkpoint_wrapped_module")  # torch's, which FSDP may put there
    is_plain = found is not None and len(signature(found.forward).parameters) == 1
    is_again = native.training and (is_wrapped or native.is_activation_checkpointing)
    return None if not is_plain or is_again or num_experts(native.config) else found


def num_experts(config: Any) -> int:
    """Return how many experts a model's layers choose from; families name them differently."""
    text = config.get_text_config()
    names = ("num_experts", "num_local_experts", "n_routed_experts")
    return max(int(getattr(text, name, None) or 0) for name in names)
