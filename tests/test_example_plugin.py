"""The example package, installed into a fresh environment, is found, checked and conforms."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).resolve().parent.parent / "examples" / "peftkit-distributions"
CLI = "import sys; from peftkit.cli import main; sys.argv[0] = 'peftkit'; main()"


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Install a copy of the example beside this environment's packages; return (python, copy)."""
    folder = tmp_path_factory.mktemp("fresh")
    copy = shutil.copytree(EXAMPLE, folder / "package", ignore=shutil.ignore_patterns("*.egg-info"))
    venv.create(folder / "env", with_pip=False, symlinks=True)
    python = folder / "env" / "bin" / "python"
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    site = folder / "env" / "lib" / version / "site-packages"
    # The fresh environment borrows this one's packages, editable installs included.
    lines = [f"import site; site.addsitedir({sysconfig.get_path('purelib')!r})"]
    (site / "borrowed.pth").write_text("\n".join(lines) + "\n")
    install = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet"]
    offline = ["--no-deps", "--no-build-isolation", "--no-index", str(copy)]
    done = subprocess.run([*install, *offline], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return python, copy


def _run(python: Path, *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(python), *arguments], capture_output=True, text=True, check=False, cwd=cwd
    )


def test_it_is_not_installed_here() -> None:
    from peftkit.plugins import plugin_names

    assert "distributions" not in plugin_names("sources")


def test_plugins_lists_it_with_its_package(example: tuple[Path, Path], tmp_path: Path) -> None:
    python, _ = example
    done = _run(python, "-c", CLI, "plugins", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    listed = json.loads(done.stdout)
    listed = listed if isinstance(listed, list) else listed["plugins"]
    ours = [p for p in listed if p["distribution"] == "peftkit-distributions"]
    assert [(p["group"], p["name"], p["version"], p["problem"]) for p in ours] == [
        ("sources", "distributions", "1.0.0", None),
        ("tasks", "one_liner", "1.0.0", None),
    ]


def test_its_recipe_passes_the_gate(example: tuple[Path, Path], tmp_path: Path) -> None:
    python, copy = example
    recipe = copy / "recipes" / "one-liners.yaml"
    done = _run(python, "-c", CLI, "check", str(recipe), cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_gate_reads_its_config(example: tuple[Path, Path], tmp_path: Path) -> None:
    python, copy = example
    text = (copy / "recipes" / "one-liners.yaml").read_text()
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text(text.replace("test_share: 0.2", "test_shar: 0.2"))
    done = _run(python, "-c", CLI, "check", "--json", str(wrong), cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert json.loads(done.stdout) == [
        {
            "file": str(wrong),
            "line": 8,
            "key": "data.source.distributions.test_shar",
            "problem": "distributions has no such key",
            "suggestion": "did you mean test_share?",
        }
    ]


def test_without_plugins_it_is_out_of_sight(example: tuple[Path, Path], tmp_path: Path) -> None:
    python, copy = example
    recipe = copy / "recipes" / "one-liners.yaml"
    done = _run(python, "-c", CLI, "--no-plugins", "check", str(recipe), cwd=tmp_path)
    assert done.returncode == 2
    assert "there is no source 'distributions'" in done.stdout + done.stderr


def test_explain_reads_its_docstrings(example: tuple[Path, Path], tmp_path: Path) -> None:
    python, _ = example
    done = _run(python, "-c", CLI, "explain", "data.source.distributions.min_words", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "Shortest description" in done.stdout
    assert "peftkit-distributions 1.0.0" in done.stdout


def test_a_run_uses_its_source_and_its_task(
    example: tuple[Path, Path], tiny_model: Path, tmp_path: Path
) -> None:
    python, copy = example
    recipe = tmp_path / "one-liners.yaml"
    text = (copy / "recipes" / "one-liners.yaml").read_text()
    text = text.replace("embedded:docstring-lm", str(tiny_model))
    text = text.replace("num_train_epochs: 3", "max_steps: 2, save_strategy: 'no'")
    text = text.replace("max_length: 384", "max_length: 256")
    text = text.replace(
        "task: {one_liner: {}}", "task: {one_liner: {}}\n  audit: {max_truncated: 1, max_masked: 1}"
    )
    recipe.write_text(text.replace("limit: 20", "limit: 4"))
    done = _run(python, "-c", CLI, "run", str(recipe), cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    scores = json.loads((tmp_path / "runs" / "one-liners" / "scores.json").read_text())
    assert set(scores["tuned"]) >= {"word_f1", "perplexity"}
    assert 1 <= scores["num_rows"] <= 4


def test_its_own_tests_pass(example: tuple[Path, Path]) -> None:
    python, copy = example
    done = _run(python, "-m", "pytest", "-p", "no:cacheprovider", cwd=copy)
    assert done.returncode == 0, done.stdout + done.stderr
