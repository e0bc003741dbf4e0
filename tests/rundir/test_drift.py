"""A run that goes on under another stack says so, and keeps what it began under."""

from __future__ import annotations

import io
import re
import shutil
from pathlib import Path

import pytest
from rich.console import Console
from training_fixture import cut_back, planned_only_within_a_budget

from peftkit.errors import UsageError
from peftkit.recipe.load import load_recipe
from peftkit.run import run
from peftkit.rundir.drift import drift, recorded_drift, with_earlier
from peftkit.rundir.paths import RunDir, write_json
from peftkit.rundir.status import read_status

NOW = {"python": "3.11.7", "device": "cpu", "packages": {"torch": "2.13", "peft": "0.21"}}


def test_what_differs_is_named_and_kept() -> None:
    assert list(drift(NOW, NOW)) == list(drift({}, NOW)) == []
    earlier = {**NOW, "device": "H200", "packages": {"torch": "2.12", "liger": "1"}}
    assert list(drift(earlier, NOW)) == [
        "device: H200 -> cpu", "liger: 1 -> absent", "peft: absent -> 0.21", "torch: 2.12 -> 2.13",
    ]  # fmt: skip
    assert with_earlier(NOW, NOW, has_drifted=False) == NOW
    kept = with_earlier(NOW, earlier, has_drifted=True)
    assert kept["earlier"] == [earlier]
    assert with_earlier(NOW, kept, has_drifted=False)["earlier"] == [earlier]


@pytest.fixture
def stopped(tiny_run: Path, tmp_path: Path) -> RunDir:
    """Return a copy of a run whose training is over, without what it left."""
    run_dir = RunDir(tmp_path / "run")
    shutil.copytree(tiny_run, run_dir.path)
    cut_back(run_dir, step=99)
    return run_dir


def go_on(run_dir: RunDir, *overrides: str, allow_drift: bool = False) -> str:
    """Run a copy's own recipe again, changed or not, and return what was said."""
    recipe = load_recipe(run_dir.resolved, overrides)
    console = Console(record=True, width=200, file=io.StringIO())
    with planned_only_within_a_budget(recipe):
        run(recipe, out=run_dir.path, console=console, allow_drift=allow_drift)
    return console.export_text()


def test_a_run_goes_on_under_another_stack_only_if_that_is_allowed(stopped: RunDir) -> None:
    stack = stopped.read_json(stopped.versions)
    write_json(stopped.versions, {**stack, "packages": {**stack["packages"], "torch": "1.0"}})
    change = f"torch: 1.0 -> {stack['packages']['torch']}"
    before = stopped.versions.read_bytes()
    with pytest.raises(UsageError, match=re.escape(change)) as caught:
        go_on(stopped)
    assert "--allow-drift" in str(caught.value.hint)
    assert stopped.versions.read_bytes() == before
    assert f"  changed  {change}\n" in go_on(stopped, allow_drift=True)
    (earlier,) = stopped.read_json(stopped.versions)["earlier"]
    assert earlier["packages"]["torch"] == "1.0"
    (line,) = recorded_drift(stopped)
    assert line.endswith(change)
    assert f"`{change}`" in (stopped.trained / "README.md").read_text()
    assert change.replace(">", "&gt;") in stopped.report.read_text().replace("<wbr>", "")
    assert "already finished" in go_on(stopped)


def test_a_run_whose_recipe_may_change_stays_the_run_that_it_began_as(stopped: RunDir) -> None:
    first = read_status(stopped)["identity"]
    (resolved,) = stopped.read_resolved()["method"].values()
    assert resolved["max_steps"] == 4
    longer = "method.sft.max_steps=6"
    with pytest.raises(UsageError, match=r"method\.sft\.max_steps: \d+ -> \d+") as caught:
        go_on(stopped, longer)
    assert "--allow-drift" in str(caught.value.hint)
    assert "resuming at step" in go_on(stopped, longer, allow_drift=True)
    assert stopped.read_json(stopped.measured)["num_steps"] == 6
    assert read_status(stopped)["identity"] == first
    assert "already finished" in go_on(stopped, longer)
    with pytest.raises(UsageError, match="is another run"):
        go_on(stopped, longer.replace("6", "8"), allow_drift=True)  # its training is over


@pytest.mark.parametrize("override", ["adapter.lora.r=2", "method.sft.learning_rate=0.5"])
def test_what_a_checkpoint_holds_does_not_drift(stopped: RunDir, override: str) -> None:
    with pytest.raises(UsageError, match="is another run") as caught:
        go_on(stopped, override, allow_drift=True)
    assert f"--allow-drift cannot change {override.partition('=')[0]}" in str(caught.value.hint)
