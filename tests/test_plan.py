"""`peftkit plan` prints, draws and refuses; the JSON is what its description says."""

from __future__ import annotations

import dataclasses
import io
import json
from pathlib import Path

import pytest
import real_step
from command_line import run_command
from rich.console import Console

from peftkit.errors import UsageError
from peftkit.plan import PlannedRecipe, plan_recipe, plot_plan, render_plan
from peftkit.planning.devices import find
from peftkit.planning.roofline import predict
from peftkit.recipe.load import load_recipe


@pytest.fixture(scope="module")
def planned(tmp_path_factory):
    folder = tmp_path_factory.mktemp("plan")
    import tiny

    data = tiny.write_jsonl(folder / "rows.jsonl", tiny.rows(16))
    file = folder / "tiny.yaml"
    model = tiny.tiny_llama(folder / "model", num_hidden_layers=1)
    file.write_text(tiny.recipe_text(model, data, sft="use_cpu: false"))
    return plan_recipe(load_recipe(file), gpus="1,2"), file


def test_a_plan_is_shown_with_its_devices(planned) -> None:
    made, _ = planned
    text = "\n".join(_shown(made))
    assert "the longest of 16 rows" in text
    assert "activations" in text
    assert "1 GiB" in text
    assert [verdict.name for verdict in made.verdicts] == ["1 GiB", "2 GiB"]


def _shown(made: PlannedRecipe, width: int = 100) -> list[str]:
    console = Console(width=width, record=True, file=io.StringIO())
    console.print(render_plan(made))
    return [line.rstrip() for line in console.export_text().splitlines()]


def test_time_and_cost_are_predicted_where_rates_are_known(planned) -> None:
    recipe = load_recipe(planned[1], ["method.sft.max_steps=-1", "method.sft.num_train_epochs=3"])
    made = plan_recipe(recipe, gpus="24,h100,4090", price_per_hour=9e5)
    sized, *named = made.forecasts
    assert sized is None
    expected = [predict(made.plan, find(name), dtype="float32") for name in ("h100", "4090")]
    assert [forecast.speed for forecast in named] == expected
    assert [forecast.num_steps for forecast in named] == [24, 24]  # 16 rows by two, three times

    text = _shown(made)
    head = next(line for line in text if line.startswith("predicted"))
    assert head.split() == ["predicted", "s/step", "tokens/s", "24", "steps", "at", "900000/hour"]
    seconds = expected[0].seconds_per_step
    assert f"{seconds:.3g}" in text[text.index(head) + 2]
    assert text[text.index(head) + 2].endswith(f"{seconds * 24 * 250:,.2f}")
    assert text[text.index(head) + 1].split() == ["24", "GiB", "-", "-", "-", "-"]
    assert max(len(line) for line in text) <= 100

    speeds = made.to_json()["speeds"]
    assert [speed["basis"] for speed in speeds] == ["predicted"] * 2
    assert speeds[0]["run_seconds"] == pytest.approx(24 * seconds)
    assert speeds[0]["cost"] == pytest.approx(24 * seconds * 250)


def test_without_rows_or_rates_no_time_is_made_up(planned) -> None:
    recipe = load_recipe(planned[1], ["method.sft.max_steps=-1"])
    made = plan_recipe(recipe, gpus="h100", length=32, price_per_hour=1.0)
    text = "\n".join(_shown(made))
    assert "s/step" in text and "steps" not in text.replace("s/step", "") and "/hour" not in text
    assert "the number of rows is not known" in text
    assert made.to_json()["speeds"][0]["cost"] is None
    assert "time is predicted for named cards" in "\n".join(_shown(planned[0]))
    assert planned[0].to_json()["speeds"] == []


def test_what_does_not_fit_has_no_time(planned) -> None:
    small = plan_recipe(load_recipe(planned[1]), gpus="3060")
    plan, name = small.plan, small.verdicts[0].name
    tight = dataclasses.replace(
        small, verdicts=(plan.verdict(name, plan.peak_bytes - (3 << 30)),), forecasts=(None,)
    )
    row = next(line for line in _shown(tight) if line.startswith(name))
    assert row.split()[-5:-1] == ["no", "-3.00", "GiB", "0"]


def test_several_processes_are_told_apart_and_get_no_time(planned) -> None:
    made = plan_recipe(load_recipe(planned[1]), gpus="h100", length=32, num_processes=4)
    text = "\n".join(_shown(made))
    assert "predicted for each of 4 processes under DDP" in text
    assert "collectives" in text
    assert "time is not predicted for several processes" in text
    assert made.forecasts == (None,)
    content = made.to_json()
    assert (content["num_processes"], content["strategy"], content["speeds"]) == (4, "DDP", [])
    # a ring's share of the gradients, which are float32 as PEFT makes them
    sent = 2 * 3 / 4 * 4 * made.plan.num_trained
    assert content["communicated_bytes"] == made.communicated_bytes == round(sent)
    with pytest.raises(UsageError, match="one process on this machine"):
        plan_recipe(load_recipe(planned[1]), here=True, num_processes=4)


def test_what_upstream_will_drop_is_a_hint(planned) -> None:
    recipe = load_recipe(planned[1], ["method.sft.truncation_mode=keep_end"])
    made = plan_recipe(recipe, gpus="8", length=32)
    assert "hint: method.sft.truncation_mode: " in " ".join("\n".join(_shown(made)).split())
    assert len(made.to_json()["hints"]) == 1


@pytest.mark.parametrize("price", [float("nan"), float("inf"), -1.0])
def test_a_price_is_a_number(planned, price: float) -> None:
    with pytest.raises(UsageError, match="that is no price"):
        plan_recipe(load_recipe(planned[1]), price_per_hour=price)


@pytest.mark.parametrize("ending", ["png", "svg"])
def test_a_picture_is_drawn(planned, ending: str, tmp_path: Path) -> None:
    file = tmp_path / f"plan.{ending}"
    plot_plan(planned[0].plan, file)
    start = file.read_bytes()[:5]
    assert start in (b"\x89PNG\r", b"<?xml")


def test_a_picture_needs_a_known_ending(planned, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"the ending '.txt' names no picture"):
        plot_plan(planned[0].plan, tmp_path / "plan.txt")


def test_here_and_gpus_exclude_each_other(planned) -> None:
    with pytest.raises(UsageError, match="exclude each other"):
        plan_recipe(load_recipe(planned[1]), gpus="8", here=True)


def test_the_command_prints_json(planned, capfd: pytest.CaptureFixture[str]) -> None:
    done = run_command(capfd, "plan", planned[1], "--gpus", "24", "--json")
    assert (done.code, done.err) == (0, "")
    content = json.loads(done.out)
    assert content["length"] == planned[0].plan.length
    assert content["devices"][0]["total_bytes"] == 24 << 30
    assert content["peak_bytes"] == sum(term["num_bytes"] for term in content["terms"])
    assert content["unknown"] == []


def test_an_unknown_device_asks_for_its_memory(planned) -> None:
    with pytest.raises(UsageError, match="no device called 'rtx-9999'") as caught:
        plan_recipe(load_recipe(planned[1]), gpus="rtx-9999")
    assert "GiB" in str(caught.value)


def test_this_machine_is_planned_for_itself(planned) -> None:
    recipe = load_recipe(planned[1], ["method.sft.use_cpu=true"])
    made = plan_recipe(recipe, here=True, length=32)
    assert made.plan.device == "cpu"
    assert made.plan.length == 32
    assert made.verdicts[0].fits
    [forecast] = made.forecasts
    assert forecast is not None and forecast.speed.seconds_per_step > 0
    assert "rates measured here just now" in "\n".join(_shown(made))
    assert real_step.CPU.device == "cpu"
