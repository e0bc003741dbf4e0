"""No option that is offered ends in a bug: its value is refused before training, or it works."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import tiny
from every_option import properties, remedies, values_of
from forked_runs import run_words

SFT, GENERATION, LORA = "trl.SFTConfig", "transformers.GenerationConfig", "peft.LoraConfig"
KEYS = {
    SFT: "method.sft",
    GENERATION: "evaluate.generation",
    LORA: "adapter.lora",
}
ALL = [(name, option) for name in KEYS for option in properties(name)]
SOME = {"label_smoothing_factor", "num_beams", "lora_bias", "optim_args"}
OWN_TIME = {"max_time"}


@pytest.fixture
def recipe(tmp_path: Path, tiny_model: Path) -> Path:
    rows = tiny.write_jsonl(tmp_path / "rows.jsonl", tiny.rows(8))
    file = tmp_path / "tiny.yaml"
    file.write_text(tiny.recipe_text(tiny_model, rows), encoding="utf-8")
    return file


def wrong(recipe: Path, name: str, option: str) -> list[str]:
    """Try each value of an option; return those that end in a bug, or are refused too late."""
    found = []
    for at, value in enumerate(values_of(properties(name)[option])):
        out = recipe.with_name(f"run-{at}")
        override = f"{KEYS[name]}.{option}={json.dumps(value)}"
        words = ["run", str(recipe), override, "--out", str(out)]
        if option != "max_steps":
            words.append("method.sft.max_steps=2")
        if name != GENERATION:
            words.append("evaluate=false")
        elif option != "max_new_tokens":
            words.append("evaluate.generation.max_new_tokens=4")
        code, said = run_words(words, recipe.with_name("said"))
        has_trained = (out / "metrics.jsonl").is_file() and "loss" in (
            out / "metrics.jsonl"
        ).read_text("utf-8")
        if code not in {0, 2, 3, 5, 6} or (code == 2 and has_trained):
            found.append(f"{override}: exit {code}, trained {has_trained}: {said[-600:]}")
    return found


@pytest.mark.parametrize(("name", "option"), [one for one in ALL if one[1] in SOME])
def test_some_options_work_or_are_refused_before_training(
    recipe: Path, name: str, option: str
) -> None:
    assert wrong(recipe, name, option) == []


@pytest.mark.slow
@pytest.mark.parametrize(("name", "option"), ALL)
def test_every_option_works_or_is_refused_before_training(
    recipe: Path, name: str, option: str
) -> None:
    import peft  # noqa: F401 - once, for all forks
    import transformers  # noqa: F401
    import trl  # noqa: F401

    assert wrong(recipe, name, option) == []


STEPS = 5
"""How many remedies one may lead to before the recipe passes."""
AT_LEAST = 25
"""Of the refused values a remedy can be typed for; others need a package, or one's own value."""


@pytest.mark.slow
def test_what_check_says_to_write_is_a_way_out(recipe: Path) -> None:
    followed, stuck = 0, []
    for name, option in ALL:
        for value in values_of(properties(name)[option]):
            words = ["check", "--build", str(recipe), f"{KEYS[name]}.{option}={json.dumps(value)}"]
            code, said = run_words(words, recipe.with_name("said"))
            followed += bool(code and remedies(said))
            for _ in range(STEPS):
                if not code or not (more := remedies(said)):
                    break
                words += more
                code, said = run_words(words, recipe.with_name("said"))
            if code and remedies(said):
                stuck.append(f"{' '.join(words[3:])}: {said}")
    assert stuck == []
    assert followed >= AT_LEAST


def test_remedies_are_read_as_overrides() -> None:
    said = """r.yaml: 3 problems
  override  method.sft.a  needs b; write b: epoch
  12        method.sft.c  needs a split; write data.splits: {train: train, validation: 5%} and d: x
  13        method.sft.e  measures loss, not a; write loss
  14        method.sft.f  the schedule cannot be made; write method.sft.g: {min_lr: ...}
"""
    assert remedies(said) == [
        "method.sft.b=epoch",
        "data.splits={train: train, validation: 5%}",
        "method.sft.d=x",
        "method.sft.e=loss",
    ]
