"""What fit shows, and the recipe it writes: comments kept, passed by the gate."""

from __future__ import annotations

from pathlib import Path

import pytest
from plan_fixture import GIB, linear_plan

from peftkit.errors import RecipeError, UsageError
from peftkit.fit import render_fit, write_proposal
from peftkit.planning import devices
from peftkit.planning.proposals import Change, Fit, Proposal, Setup
from peftkit.planning.roofline import predict
from peftkit.recipe.load import load_recipe

CHANGES = {
    "method.sft.per_device_train_batch_size": 1,
    "method.sft.gradient_accumulation_steps": 2,
}


def setup_of(peak: int, settings: dict[str, object]) -> Setup:
    speed = predict(linear_plan(fixed=0, per_token=1), devices.find("4090"), dtype="bfloat16")
    assert speed is not None
    return Setup(settings, peak, 1, 2, speed)


def found_of(settings: dict[str, object]) -> Fit:
    device = devices.of_size(16)
    change = Change("micro-batch", settings, 3 * GIB, 1.1)
    proposal = Proposal(setup_of(15 * GIB, settings), (change,), GIB, 17 * GIB)
    return Fit(device, setup_of(18 * GIB, {}), (proposal,), {"model.dtype": 4}, 20 * GIB, 8)


def text_of(renderable: object) -> str:
    from rich.console import Console

    console = Console(width=160)
    with console.capture() as capture:
        console.print(renderable)
    return capture.get()


def test_what_is_shown() -> None:
    text = text_of(render_fit(found_of(CHANGES)))
    assert "as it is: 18.00 GiB, does not fit 16 GiB (16.00 GiB)" in text
    assert "method.sft.per_device_train_batch_size=1" in text
    assert "scoring afterwards: 20.00 GiB, does not fit" in text
    assert "still takes 17.00 GiB" in text and "evaluate.batch_size" in text
    assert "3.00 GiB" in text and "+10 %" in text
    assert "model.dtype (line 4)" in text and "--free KEY" in text
    assert "predicted, from the published rates of NVIDIA GeForce RTX 4090" in text
    assert "without what 8 processes exchange" in text


def test_the_written_recipe_keeps_its_comments_and_passes_the_gate(tiny_recipe: Path) -> None:
    commented = "# keep me\n" + tiny_recipe.read_text(encoding="utf-8")
    tiny_recipe.write_text(commented, encoding="utf-8")
    recipe = load_recipe(tiny_recipe, ["method.sft.max_length=64"])
    out = tiny_recipe.with_name("fitted.yaml")
    write_proposal(recipe, found_of(CHANGES).proposals[0], out)
    assert out.read_text(encoding="utf-8").startswith("# keep me\n")
    options = load_recipe(out).method.options
    assert options["per_device_train_batch_size"] == 1
    assert options["gradient_accumulation_steps"] == 2
    assert options["max_length"] == 64, "the override is written too"


def test_it_may_replace_its_own_recipe_but_no_other_file(tiny_recipe: Path) -> None:
    proposal = found_of(CHANGES).proposals[0]
    other = tiny_recipe.with_name("other.yaml")
    other.write_text("mine", encoding="utf-8")
    with pytest.raises(UsageError, match="exists already"):
        write_proposal(load_recipe(tiny_recipe), proposal, other)
    assert other.read_text(encoding="utf-8") == "mine"
    write_proposal(load_recipe(tiny_recipe), proposal, tiny_recipe)
    assert load_recipe(tiny_recipe).method.options["per_device_train_batch_size"] == 1


def test_what_the_gate_refuses_is_not_left_behind(tiny_recipe: Path) -> None:
    wrong = found_of({"method.sft.per_device_train_batch_size": 0}).proposals[0]
    out, before = tiny_recipe.with_name("fitted.yaml"), tiny_recipe.read_text(encoding="utf-8")
    for file in (out, tiny_recipe):
        with pytest.raises(RecipeError):
            write_proposal(load_recipe(tiny_recipe), wrong, file)
    assert not out.exists()
    assert tiny_recipe.read_text(encoding="utf-8") == before
