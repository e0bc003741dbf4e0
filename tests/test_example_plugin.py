"""The example packages, installed into fresh environments, are found, checked and conform."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from installed_example import Installed

DISTRIBUTIONS, PREFERENCES = "peftkit-distributions", "peftkit-preferences"
PLUGINS = {
    DISTRIBUTIONS: [("sources", "distributions"), ("tasks", "one_liner")],
    PREFERENCES: [("tasks", "triple"), ("methods", "tpo")],
}
RECIPES = {DISTRIBUTIONS: "one-liners.yaml", PREFERENCES: "preferences.yaml"}


@pytest.fixture(params=sorted(PLUGINS))
def name(request: pytest.FixtureRequest) -> str:
    """Return each example's name."""
    return request.param


@pytest.fixture
def recipe(install_example, name: str) -> Path:
    """Return the example's own recipe."""
    return install_example(name).package / "recipes" / RECIPES[name]


def test_it_is_not_installed_here(name: str) -> None:
    from peftkit.plugins import plugin_names

    assert not [found for group, found in PLUGINS[name] if found in plugin_names(group)]


def test_it_is_found_and_its_recipe_passes_the_gate(
    install_example, name: str, recipe: Path, tmp_path: Path
) -> None:
    listed, checked, unseen = install_example(name).peftkit(
        ["plugins", "--json"], ["check", recipe], ["--no-plugins", "check", recipe], cwd=tmp_path
    )
    assert listed.code == 0, listed.err
    plugins = json.loads(listed.out)
    plugins = plugins if isinstance(plugins, list) else plugins["plugins"]
    ours = [plugin for plugin in plugins if plugin["distribution"] == name]
    assert [(p["group"], p["name"], p["version"], p["problem"]) for p in ours] == [
        (group, plugin, "1.0.0", None) for group, plugin in PLUGINS[name]
    ]
    assert checked.code == 0, checked.out + checked.err
    assert unseen.code == 2
    group, plugin = PLUGINS[name][0]
    assert f"there is no {group.removesuffix('s')} {plugin!r}" in unseen.out + unseen.err


@pytest.mark.slow
@pytest.mark.parametrize("example_name", [DISTRIBUTIONS, PREFERENCES])
def test_its_own_tests_pass(install_example, example_name: str) -> None:
    example = install_example(example_name)
    done = example.run("-m", "pytest", "-p", "no:cacheprovider", cwd=example.package)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_gate_reads_its_config(install_example, tmp_path: Path) -> None:
    example: Installed = install_example(DISTRIBUTIONS)
    text = (example.package / "recipes" / RECIPES[DISTRIBUTIONS]).read_text()
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text(text.replace("test_share: 0.2", "test_shar: 0.2"))
    refused, explained = example.peftkit(
        ["check", "--json", wrong], ["explain", "data.source.distributions.min_words"], cwd=tmp_path
    )
    assert refused.code == 2, refused.err
    assert json.loads(refused.out) == [
        {
            "file": str(wrong),
            "line": 8,
            "key": "data.source.distributions.test_shar",
            "problem": "distributions has no such key",
            "suggestion": "did you mean test_share?",
        }
    ]
    assert explained.code == 0, explained.err
    assert "Shortest description" in explained.out
    assert "peftkit-distributions 1.0.0" in explained.out


@pytest.mark.slow
def test_a_run_uses_its_source_and_its_task(
    install_example, tiny_model: Path, tmp_path: Path
) -> None:
    example: Installed = install_example(DISTRIBUTIONS)
    recipe = tmp_path / "one-liners.yaml"
    text = (example.package / "recipes" / "one-liners.yaml").read_text()
    text = text.replace("embedded:docstring-lm", str(tiny_model))
    text = text.replace("num_train_epochs: 3", "max_steps: 2, save_strategy: 'no'")
    text = text.replace("max_length: 384", "max_length: 256")
    text = text.replace(
        "task: {one_liner: {}}", "task: {one_liner: {}}\n  audit: {max_truncated: 1, max_masked: 1}"
    )
    recipe.write_text(text.replace("limit: 20", "limit: 4"))
    (done,) = example.peftkit(["run", recipe], cwd=tmp_path)
    assert done.code == 0, done.out + done.err
    scores = json.loads((tmp_path / "runs" / "one-liners" / "scores.json").read_text())
    assert set(scores["tuned"]) >= {"word_f1", "perplexity"}
    assert 1 <= scores["num_rows"] <= 4
