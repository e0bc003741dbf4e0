"""A tracker's package is asked for where the recipe is read, not after the data."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import re
import sys
from importlib.metadata import metadata
from pathlib import Path

import pytest
from wrong.cases import GOOD, write_files

from peftkit.check import check_files
from peftkit.recipe.load import load_recipe
from peftkit.recipe.schema import Choice
from peftkit.recipe.stated import Stated
from peftkit.recipe.tables import TRACKERS as NAMES
from peftkit.recipe.trackers import TRACKERS, installed, project_of_trackio, reported_to


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Write a good recipe, on a machine without any tracker."""
    for tracker in TRACKERS.values():
        for module in (name for ways in tracker.modules for name in ways):
            monkeypatch.setitem(sys.modules, module.split(".")[0], None)
    file = write_files(tmp_path)
    file.write_text(GOOD)
    return file


def put(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Let a module be found, empty."""
    module = type(sys)(name)
    module.__spec__ = importlib.machinery.ModuleSpec(name, None)
    monkeypatch.setitem(sys.modules, name, module)


def test_every_tracker_of_the_gate_is_known() -> None:
    (folder,) = importlib.util.find_spec("transformers").submodule_search_locations
    source = Path(folder, "integrations", "integration_utils.py").read_text(encoding="utf-8")
    callbacks = source.partition("INTEGRATION_TO_CALLBACK = {")[2].partition("}")[0]
    assert set(TRACKERS) | {"all", "none"} == set(NAMES) | {"none"}
    assert set(TRACKERS) == set(re.findall(r'"(\w+)":', callbacks))


def test_the_extras_that_are_advised_exist() -> None:
    extras = metadata("peftkit").get_all("Provides-Extra")
    for tracker in TRACKERS.values():
        if tracker.install.startswith("'peftkit["):
            assert tracker.install[len("'peftkit[") : -2] in extras


@pytest.mark.parametrize(
    ("value", "problems"),
    [
        ("none", []),
        ("tensorboard", ["tensorboard is not installed; pip install 'peftkit[tensorboard]', or"]),
        ("[wandb, clearml]", ["wandb is not installed; pip install 'peftkit[wandb]'",
                              "clearml is not installed; pip install clearml, or write"]),
        ("all", ["all means the trackers that are installed, and none is; pip install"]),
    ],
)  # fmt: skip
def test_a_missing_package_is_said_with_how_to_get_it(recipe, value, problems) -> None:
    found = [str(one) for one in check_files([recipe], [f"method.sft.report_to={value}"])]
    assert len(found) == len(problems)
    assert all(one.startswith(start) for one, start in zip(found, problems, strict=True))


def test_what_is_installed_passes_and_all_means_it(recipe, monkeypatch) -> None:
    put(monkeypatch, "tensorboardX")
    put(monkeypatch, "wandb")
    assert check_files([recipe], ["method.sft.report_to=[tensorboard, wandb]"]) == []
    assert installed() == ["tensorboard", "wandb"]
    options = load_recipe(recipe, ["method.sft.report_to=all"]).method.options
    assert reported_to(options) == ["tensorboard", "wandb"]
    assert reported_to({"report_to": "none"}) == reported_to({}) == []


def test_transformers_project_is_trackio_s_alone() -> None:
    def found(*names: str) -> list[str]:
        options = {"project": "mine", "report_to": list(names)}
        stated = Stated(None, None, None, Choice("sft", options), None, False, None)
        return [key for key, *_ in project_of_trackio(stated)]

    assert found("wandb") == ["method.sft.project"]
    assert found("trackio", "wandb") == []
    assert found("none") == []
