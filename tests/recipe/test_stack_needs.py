"""What the stack would say once weights are read is said by the recipe's key before."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from peftkit.errors import RecipeError
from peftkit.plugins import Machine
from peftkit.recipe.build import build
from peftkit.recipe.load import load_recipe
from peftkit.recipe.stack_needs import find_needs
from peftkit.system.machine import describe_machine

SFT = "method.sft"
CASES = [
    ("use_liger_kernel=true", "use_liger_kernel", "the package liger_kernel, which is missing"),
    ("lr_scheduler_type=cosine_with_min_lr", "lr_scheduler_type", "min_lr or min_lr_rate"),
    ("lr_scheduler_type=warmup_stable_decay", "lr_scheduler_type", "num_decay_steps"),
    ('lr_scheduler_kwargs={"nope": 1}', "lr_scheduler_kwargs", "keyword argument 'nope'"),
    ("metric_for_best_model=accuracy", "metric_for_best_model", "measures loss, not accuracy"),
]


@pytest.fixture
def machine() -> Machine:
    return describe_machine()


@pytest.mark.parametrize(("override", "key", "said"), CASES)
def test_an_option_that_cannot_be_met(
    tiny_recipe: Path, machine: Machine, override: str, key: str, said: str
) -> None:
    with pytest.raises(RecipeError) as caught:
        build(load_recipe(tiny_recipe, [f"{SFT}.{override}"]), machine)
    (problem,) = caught.value.problems
    assert problem.key == f"{SFT}.{key}"
    assert said in problem.problem
    assert problem.suggestion


BROKEN = {
    "wandb": ("wandb", "raise ImportError('no module named pip')"),
    "mlflow": ("mlflow", "raise AttributeError('module has no attribute float_')"),
    "trackio": ("trackio", "1 / 0"),
    "tensorboard": ("tensorboard", "raise TypeError('Descriptors cannot be created directly')"),
    "swanlab": ("swanlab", "raise OSError('libx.so: cannot open')"),
    "clearml": ("clearml", "raise RuntimeError('no configuration')"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_tracker_that_is_installed_and_broken(
    tiny_recipe: Path, machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    package, code = BROKEN[name]
    (tmp_path / package).mkdir()
    (tmp_path / package / "__init__.py").write_text(code)
    metadata = tmp_path / f"{package}-9.9.dist-info" / "METADATA"
    metadata.parent.mkdir()
    metadata.write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 9.9\n")
    for module in [one for one in sys.modules if one.split(".")[0] == package]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.syspath_prepend(tmp_path)
    recipe = load_recipe(tiny_recipe, [f"{SFT}.report_to={name}"])
    with pytest.raises(RecipeError) as caught:
        build(recipe, machine)
    (problem,) = caught.value.problems
    assert problem.key == f"{SFT}.report_to"
    assert name in problem.problem
    assert "pip install --force-reinstall" in str(problem.suggestion)
    assert build(recipe, machine, trains=False), "a run that has trained needs no tracker"


@pytest.mark.parametrize(
    ("place", "said"),
    [("cuda", "and this run is on cpu"), ("mars", "is no device"), ("auto", None)],
)
def test_a_device_that_is_not_there(tiny_recipe: Path, place: str, said: str | None) -> None:
    found = list(find_needs(load_recipe(tiny_recipe, [f"model.device_map={place}"]), None, "cpu"))
    assert [key for key, _, _ in found] == ([] if said is None else ["model.device_map"])
    assert said is None or said in found[0][1]


@pytest.mark.parametrize(
    "options",
    [
        ("lr_scheduler_type=cosine_with_min_lr", 'lr_scheduler_kwargs={"min_lr": 1e-5}'),
        ("lr_scheduler_type=polynomial", 'lr_scheduler_kwargs={"power": 2.0}'),
        ("metric_for_best_model=eval_loss",),
    ],
)
def test_what_the_stack_takes_passes(
    tiny_recipe: Path, machine: Machine, options: tuple[str, ...]
) -> None:
    built = build(load_recipe(tiny_recipe, [f"{SFT}.{one}" for one in options]), machine)
    assert built.hints == ()
