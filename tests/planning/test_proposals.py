"""Proposals as plain data, and settings as a command line takes them."""

from __future__ import annotations

import json

from plan_fixture import GIB, linear_plan

from peftkit.planning import devices
from peftkit.planning.proposals import Change, Fit, Proposal, Setup, overrides_of
from peftkit.planning.roofline import predict
from peftkit.recipe.overrides import apply_overrides

SETTINGS = {
    "model.quantize": {"bitsandbytes": {"load_in_4bit": True}},
    "method.sft.per_device_train_batch_size": 2,
    "method.sft.optim": "adamw_8bit",
    "method.sft.packing": False,
}


def setup_of(peak: int, settings: dict[str, object]) -> Setup:
    speed = predict(linear_plan(fixed=0, per_token=1), devices.find("t4"), dtype="float16")
    assert speed is not None
    return Setup(settings, peak, 2, 8, speed)


def test_overrides_mean_the_settings() -> None:
    applied = apply_overrides("x", {"model": {}, "method": {"sft": {}}}, overrides_of(SETTINGS))
    assert applied.problems == ()
    assert applied.data == {
        "model": {"quantize": {"bitsandbytes": {"load_in_4bit": True}}},
        "method": {
            "sft": {"per_device_train_batch_size": 2, "optim": "adamw_8bit", "packing": False}
        },
    }


def test_json() -> None:
    change = Change("optimizer", {"method.sft.optim": "adamw_8bit"}, 2 * GIB, 1.02)
    proposal = Proposal(setup_of(14 * GIB, SETTINGS), (change,), 2 * GIB, 9 * GIB)
    now = setup_of(18 * GIB, {})
    found = Fit(devices.of_size(16), now, (proposal,), {"model.dtype": 4}, 9 * GIB)
    assert not found.fits_now
    content = json.loads(json.dumps(found.to_json()))
    assert content["peak_bytes"] == 18 * GIB
    assert content["pinned"] == {"model.dtype": 4}
    (first,) = content["proposals"]
    assert first["settings"] == SETTINGS
    assert (first["micro_batch"], first["accumulation"]) == (2, 8)
    assert first["changes"] == [
        {
            "lever": "optimizer",
            "settings": {"method.sft.optim": "adamw_8bit"},
            "saved_bytes": 2 * GIB,
            "time_factor": 1.02,
        }
    ]
