"""Fixtures for every test: no network, no foreign cache, tiny models built once."""

from __future__ import annotations

import gc
import os
import signal
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path

import hypothesis
import pytest

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))
sys.path.insert(0, str(HERE / "refuse_network"))

import sitecustomize  # noqa: E402 - installs the audit hook in this process
import tiny  # noqa: E402
from installed_example import Installed, install  # noqa: E402

if "refuse_network" not in str(getattr(sitecustomize, "__file__", "")):
    import runpy

    runpy.run_path(str(HERE / "refuse_network" / "sitecustomize.py"))

# Subprocesses that the tests start refuse the network too.
os.environ["PYTHONPATH"] = os.pathsep.join(
    [str(HERE / "refuse_network"), *filter(None, [os.environ.get("PYTHONPATH")])]
)
# One thread a process: results do not depend on the machine's cores, and two workers fit on two.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# Half of hypothesis's own number of examples, and no deadline, which a busy machine would break.
hypothesis.settings.register_profile("suite", max_examples=50, deadline=None)
hypothesis.settings.load_profile("suite")

# A shell starts background jobs with SIGINT ignored, and what is ignored stays so in a run too.
signal.signal(signal.SIGINT, signal.default_int_handler)

NUM_FROZEN_MODULES = pytest.StashKey[int]()


def pytest_runtest_teardown(item: pytest.Item) -> None:
    """Keep what a test imported out of the garbage collector's sight.

    Full collections are asked for by libraries at every turn and walk all modules of the stack:
    0.3 s each, a third of the suite's time together.
    """
    stash = item.session.stash
    if len(sys.modules) > stash.get(NUM_FROZEN_MODULES, 0) + 200:
        stash[NUM_FROZEN_MODULES] = len(sys.modules)
        gc.collect()
        gc.freeze()


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a tiny Llama with its tokenizer."""
    return tiny.tiny_llama(tmp_path_factory.mktemp("tiny-llama"))


@pytest.fixture
def tiny_data(tmp_path: Path) -> Path:
    """Return a JSONL file of 16 document/summary rows."""
    return tiny.write_jsonl(tmp_path / "rows.jsonl", tiny.rows(16))


@pytest.fixture
def tiny_recipe(tmp_path: Path, tiny_model: Path, tiny_data: Path) -> Path:
    """Return a complete recipe for the tiny model."""
    file = tmp_path / "tiny.yaml"
    file.write_text(tiny.recipe_text(tiny_model, tiny_data), encoding="utf-8")
    return file


@pytest.fixture(scope="session")
def install_example(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Installed]:
    """Return what installs an example package into an environment of its own, once a session."""

    @cache
    def installed(name: str) -> Installed:
        return install(name, tmp_path_factory.mktemp("fresh"))

    return installed


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    """Return a finished run of the tiny model, with scores; tests that change it copy it first."""
    import training_fixture

    folder = tmp_path_factory.mktemp("tiny-run")
    rows = tiny.write_jsonl(folder / "rows.jsonl", tiny.rows(12))
    recipe = folder / "tiny.yaml"
    recipe.write_text(tiny.recipe_text(tiny_model, rows), encoding="utf-8")
    overrides = ("method.sft.learning_rate=0.05", "evaluate.generation.max_new_tokens=12")
    return training_fixture.train(recipe, folder / "run", *overrides).path
