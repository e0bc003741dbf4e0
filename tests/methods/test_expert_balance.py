"""trl's loss that balances experts: kept where it can be computed, left out and said where not."""

from __future__ import annotations

import logging
from types import SimpleNamespace

import pytest
from small_models import small_model

from peftkit.errors import UsageError
from peftkit.methods.expert_balance import settle_balance


@pytest.mark.parametrize(
    ("family", "said"),
    [
        ("mixtral", None),
        ("llama", None),
        ("granitemoe", "needs num_experts, which GraniteMoeConfig does not have"),
        ("doge", "needs routers, and this DogeForCausalLM has none"),
    ],
)
def test_is_left_out_where_trl_would_fail(family: str, said: str | None, caplog) -> None:
    args = SimpleNamespace(router_aux_loss_coef=None)
    with caplog.at_level(logging.WARNING, "peftkit"):
        settle_balance(args, small_model(family))
    assert args.router_aux_loss_coef == (None if said is None else 0.0)
    assert (said or "") in caplog.text
    assert bool(caplog.text) is (said is not None)


def test_one_that_is_asked_for_is_refused() -> None:
    with pytest.raises(UsageError, match="num_experts") as caught:
        settle_balance(SimpleNamespace(router_aux_loss_coef=0.1), small_model("granitemoe"))
    assert caught.value.hint == "method.sft.router_aux_loss_coef=0"
