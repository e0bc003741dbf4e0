"""A way is tried before it is gone, and one that is asked for and wrong is an error."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import real_step
from transformers import AutoConfig

from peftkit.errors import UsageError
from peftkit.methods.sft import SFT
from peftkit.plugins.losses import fused_loss
from peftkit.plugins.speed import Speed, Way


def config(values: dict = real_step.LLAMA):
    values = dict(values)
    return AutoConfig.for_model(values.pop("model_type"), **values)


def method(**speed) -> SFT:
    from trl import SFTConfig

    made = SFT(SFTConfig(use_cpu=True, bf16=False, activation_checkpointing=False))
    made.speed = Speed(**speed)
    return made


@pytest.fixture
def disagreeing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("peftkit.methods.proof.disagreement", lambda *_: "it computes others")


@pytest.mark.usefixtures("disagreeing")
def test_a_model_that_disagrees_goes_the_trainers_own_way() -> None:
    one, model = method(), SimpleNamespace(config=config())
    assert one.way(model.config) == Way(scores_trained=True, by_rows=True)
    taken = one.proved(model)
    assert taken == one.taken
    assert not taken.scores_trained and not taken.by_rows
    assert taken.why_not == ("padded rows and the trainer's own loss: it computes others",)
    assert one.loss_on(model.config) is fused_loss, "the probe goes the same way"


def test_rows_are_padded_again_before_the_loss_is_given_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def by_rows_only(way: Way, *_: object) -> str | None:
        return "it needs a mask" if way.by_rows else None

    monkeypatch.setattr("peftkit.methods.proof.disagreement", by_rows_only)
    one, model = method(), SimpleNamespace(config=config())
    assert one.proved(model) == Way(scores_trained=True, why_not=("padded rows: it needs a mask",))
    assert one.loss_on(model.config) is not fused_loss
    assert not one.way(model.config).by_rows


@pytest.mark.usefixtures("disagreeing")
@pytest.mark.parametrize("speed", [{"loss": "trained"}, {"unpad": "on"}])
def test_a_way_that_is_asked_for_is_not_given_up_silently(speed: dict[str, str]) -> None:
    with pytest.raises(UsageError, match="it computes others"):
        method(**speed).proved(SimpleNamespace(config=config()))


@pytest.mark.parametrize(
    ("speed", "values", "key"),
    [
        ({"unpad": "on"}, real_step.GEMMA2, "speed.unpad"),
        ({"loss": "trained"}, {"model_type": "prophetnet"}, "speed.loss"),
    ],
)
def test_what_a_family_does_not_let_is_refused_before_it_is_loaded(
    speed: dict[str, str], values: dict, key: str
) -> None:
    with pytest.raises(UsageError, match=key):
        method(**speed).way(config(values))


def test_native_is_trls_own() -> None:
    one = method(loss="native", unpad="off")
    assert one.way(config()) == Way()
    assert one.loss_on(config()) is fused_loss
