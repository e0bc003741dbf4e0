"""Which packages the trackers of `report_to` need, and whether they are here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from peftkit.recipe.stated import Found, Stated

OFF = ("none",)
ALL = "all"
OPTION = "report_to"


@dataclass(frozen=True)
class Tracker:
    """Say what a tracker needs."""

    modules: tuple[tuple[str, ...], ...]
    """All of them are imported; of each, one of several."""
    install: str
    """What pip installs."""

    @property
    def is_here(self) -> bool:
        """Tell whether everything it needs can be imported; nothing is."""
        return all(any(map(_is_importable, ways)) for ways in self.modules)

    def import_all(self) -> None:
        """Import all of it, whatever that raises."""
        for ways in self.modules:
            import_module(next(filter(_is_importable, ways), ways[0]))


def _is_importable(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # its parent
        return False


def _of(*modules: str, install: str = "") -> Tracker:
    return Tracker(tuple((module,) for module in modules), install or modules[0])


TRACKERS: Mapping[str, Tracker] = {
    "azure_ml": _of("azureml.core", install="azureml-core"),
    "clearml": _of("clearml"),
    "codecarbon": _of("codecarbon"),
    "comet_ml": _of("comet_ml", install="comet-ml"),
    "dagshub": _of("dagshub", "mlflow", install="dagshub mlflow"),
    "dvclive": _of("dvclive"),
    "flyte": _of("flytekit"),
    "kubeflow": Tracker((), ""),
    "mlflow": _of("mlflow", install="'peftkit[mlflow]'"),
    "neptune": _of("neptune"),
    "swanlab": _of("swanlab"),
    "tensorboard": Tracker((("tensorboard", "tensorboardX"),), "'peftkit[tensorboard]'"),
    "trackio": _of("trackio", install="'peftkit[trackio]'"),
    "wandb": _of("wandb", install="'peftkit[wandb]'"),
}
"""What `report_to` takes -> what it needs, as transformers' own callbacks ask for it."""


def installed() -> list[str]:
    """Name the trackers whose packages are here; `report_to: all` means these."""
    return [name for name, tracker in TRACKERS.items() if tracker.modules and tracker.is_here]


def reported_to(options: Mapping[str, Any]) -> list[str]:
    """Name the trackers that a method's options turn on, `all` spelled out."""
    names = _named(options)
    return installed() if ALL in names else [name for name in names if name not in OFF]


def _named(options: Mapping[str, Any]) -> Sequence[str]:
    stated = options.get(OPTION) or OFF
    if isinstance(stated, str):
        return (stated,)
    names = stated if isinstance(stated, list | tuple) else ()  # its kind is the gate's to refuse
    return [name for name in names if isinstance(name, str)]


def missing_trackers(stated: Stated) -> Found:
    """Refuse a tracker whose package is not here: transformers would say so after the data."""
    names = _named(stated.options)
    if ALL in names and not installed():
        yield (
            stated.at(OPTION),
            "all means the trackers that are installed, and none is",
            "pip install 'peftkit[tensorboard]', or write report_to: none",
        )
    for name in names:
        tracker = TRACKERS.get(name)
        if tracker is not None and not tracker.is_here:
            yield (
                stated.at(OPTION),
                f"{name} is not installed",
                f"pip install {tracker.install}, or write report_to: none",
            )


def project_of_trackio(stated: Stated) -> Found:
    """Find transformers' `project` beside a tracker that does not read it."""
    names = reported_to(stated.options)
    if "project" in stated.options and names and "trackio" not in names:
        wandb = "set WANDB_PROJECT in the environment" if "wandb" in names else "delete it"
        yield stated.at("project"), f"is trackio's alone, and {names[0]} does not read it", wandb


RULES = (missing_trackers, project_of_trackio)
