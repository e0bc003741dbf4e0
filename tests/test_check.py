"""`check` reports the problems of many files at once, without the stack and quickly."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from wrong.cases import GOOD, write_files

from peftkit.check import check_files, expand
from peftkit.errors import UsageError
from peftkit.plugins import Machine

CPU = Machine("cpu", supports_bfloat16=False, total_bytes=1 << 33, free_bytes=1 << 32, name="CPU")


def test_a_folder_stands_for_its_recipes(tmp_path: Path) -> None:
    file = write_files(tmp_path)
    file.write_text(GOOD)
    wrong = tmp_path / "deep" / "wrong.yaml"
    wrong.parent.mkdir()
    wrong.write_text(GOOD.replace("name: good", "nam: good"))
    assert expand([tmp_path]) == [wrong, file]
    problems = check_files([tmp_path, tmp_path / "absent.yaml"])
    assert {p.file for p in problems} == {str(wrong), str(tmp_path / "absent.yaml")}
    assert {"file": str(wrong), "line": 1, "key": "nam"}.items() <= problems[0].to_json().items()


def test_a_folder_without_recipes_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"holds no \.yaml file"):
        check_files([tmp_path])


def test_building_finds_what_upstream_refuses(tmp_path: Path) -> None:
    file = write_files(tmp_path)
    file.write_text(GOOD.replace("max_steps: 10", "debug: nonsense"))
    assert check_files([file]) == []
    (problem,) = check_files([file], machine=CPU)
    assert (problem.line, problem.key) == (17, "method.sft")
    assert "nonsense" in problem.problem


def test_checking_every_shipped_recipe_imports_no_stack() -> None:
    from peftkit.recipes import shipped_recipes

    files = [str(recipe.file) for recipe in shipped_recipes() if recipe.name != "pretrain"]
    code = (
        "import sys; from pathlib import Path; from peftkit.check import check_files\n"
        f"check_files([Path(f) for f in {files!r}])\n"
        "print([m for m in ('torch', 'transformers', 'peft', 'trl') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
