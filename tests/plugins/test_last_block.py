"""Of a model's last block only what is looked at is computed, and that is what it always was."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import tiny_families
import torch
import transformers

from peftkit.plugins.last_block import last_block_at


def model_of(name: str) -> transformers.PreTrainedModel:
    architecture, settings = tiny_families.FAMILIES[name]
    torch.manual_seed(0)
    cls = getattr(transformers, architecture)
    return cls(cls.config_class(**settings)).eval()


@pytest.mark.parametrize("name", ["qwen3", "gemma", "gpt2"])
def test_what_is_looked_at_is_what_it_was(name: str) -> None:
    model, ids = model_of(name), torch.arange(5, 17).view(2, 6)
    at = torch.tensor([2, 5, 11])
    with torch.no_grad():
        whole = model(ids).logits.flatten(0, 1)
        with last_block_at(model, at, ids.shape):
            found = model(ids).logits.flatten(0, 1)
        torch.testing.assert_close(found[at], whole[at], rtol=1e-5, atol=1e-6)
        is_served = name != "gpt2"  # whose blocks have another name
        assert torch.equal(found[0], whole[0]) is not is_served
        assert torch.equal(model(ids).logits.flatten(0, 1), whole), "nothing is left behind"


class AddsToAnother(torch.nn.Module):
    """Add to a second argument, as some families' feed-forward layers do."""

    def forward(self, x: torch.Tensor, residual: torch.Tensor) -> torch.Tensor:
        """Return the sum."""
        return x + residual


def test_a_feed_forward_that_takes_more_is_left_alone() -> None:
    block = SimpleNamespace(mlp=AddsToAnother())
    config = SimpleNamespace(get_text_config=SimpleNamespace)
    native = SimpleNamespace(
        get_decoder=lambda: SimpleNamespace(layers=[block]), training=False, config=config
    )
    ones = torch.ones(2, 4, 3)
    with last_block_at(native, torch.tensor([3]), ones.shape[:2]):
        assert torch.equal(block.mlp(ones, ones), ones + ones)
