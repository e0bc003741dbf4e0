"""Every recipe of the corpus is refused for its one mistake, at its line, with the way out."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from wrong.cases import CASES, GOOD, SYNTAX, Case, write_files

from peftkit.errors import RecipeError
from peftkit.recipe.load import load_recipe


def test_the_good_recipe_is_good(tmp_path: Path) -> None:
    file = write_files(tmp_path)
    file.write_text(GOOD)
    assert load_recipe(file).method.options["learning_rate"] == 2e-4


def test_the_corpus_is_large_and_its_names_differ() -> None:
    assert len(CASES) >= 150
    assert len({case.name for case in CASES}) == len(CASES)
    assert len({case.text for case in CASES}) == len(CASES)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_wrong_recipe_is_refused_at_its_line(case: Case, tmp_path: Path) -> None:
    file = write_files(tmp_path)
    file.write_text(case.text)
    with pytest.raises(RecipeError) as caught:
        load_recipe(file)
    problems = caught.value.problems
    assert [(p.line, p.key) for p in problems] == [(case.line, case.key)], str(caught.value)
    assert case.problem in problems[0].problem
    assert case.suggestion in (problems[0].suggestion or "")
    assert case.suggestion or not (problems[0].suggestion or "").startswith("did you mean")
    assert caught.value.exit_code == 2
    assert problems[0].file == str(file)


SCRIPT = """
import json, sys
from pathlib import Path

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name in ("torch", "transformers", "peft", "trl", "datasets"):
            raise AssertionError(f"{name} was imported")

sys.meta_path.insert(0, Refuse())
from peftkit.errors import RecipeError
from peftkit.recipe import signature_cache
from peftkit.recipe.load import load_recipe

if "cold" in sys.argv:
    signature_cache.TESTED = Path("absent.json")
refused = 0
for file in sorted(Path(sys.argv[1]).glob("*.yaml")):
    try:
        load_recipe(file)
    except RecipeError:
        refused += 1
print(json.dumps(refused))
"""


def _refuse_all(cases: list[Case], folder: Path, *flags: str) -> int:
    place = write_files(folder)
    for index, case in enumerate(cases):
        place.with_name(f"{index:03}.yaml").write_text(case.text)
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(folder), *flags],
        capture_output=True,
        text=True,
        env={"XDG_CACHE_HOME": str(folder / "cache"), "PATH": ""},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return int(json.loads(done.stdout))


def test_the_whole_corpus_is_refused_without_importing_the_stack(tmp_path: Path) -> None:
    assert _refuse_all(CASES, tmp_path) == len(CASES)


def test_what_needs_no_native_class_is_refused_so_on_a_cold_cache(tmp_path: Path) -> None:
    assert _refuse_all(SYNTAX, tmp_path, "cold") == len(SYNTAX)
