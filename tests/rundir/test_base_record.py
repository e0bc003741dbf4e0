"""Other weights under a base's name are refused wherever they would be taken for it."""

from __future__ import annotations

import json
import shutil

import pytest
import tiny

from peftkit.errors import UsageError
from peftkit.evaluate import evaluate_run
from peftkit.export import export
from peftkit.generate import open_answerer
from peftkit.merge import merge
from peftkit.recipe.load import load_recipe
from peftkit.run import run
from peftkit.rundir.base_record import check_base, record_base
from peftkit.system.weights_digest import BaseIdentity

ONE, OTHER = BaseIdentity(("a" * 64,)), BaseIdentity(("b" * 64,))


def test_what_was_allowed_is_recorded_and_holds_for_the_rest_of_a_run(tmp_path):
    assert check_base(tmp_path, ONE, use="merge") == ""
    record_base(tmp_path, "org/base", ONE)
    record_base(tmp_path, "org/base", OTHER)
    assert check_base(tmp_path, ONE, use="merge") == ""
    with pytest.raises(UsageError, match="other weights of org/base: sha256 aaaaaaaaaaaa, now"):
        check_base(tmp_path, OTHER, use="merge")
    assert "allowed" in check_base(tmp_path, OTHER, use="merge", allow_other=True)
    with pytest.raises(UsageError):
        check_base(tmp_path, OTHER, use="evaluate")
    check_base(tmp_path, OTHER, use="resume", allow_other=True)
    assert check_base(tmp_path, OTHER, use="evaluate") == ""
    uses = [other["use"] for other in json.loads((tmp_path / "base.json").read_text())["others"]]
    assert uses == ["merge", "resume"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run whose base's weights were replaced by others of the same shapes."""
    folder = tmp_path_factory.mktemp("other")
    tiny.tiny_llama(folder / "base")
    data = tiny.write_jsonl(folder / "rows.jsonl", tiny.rows(8))
    (folder / "r.yaml").write_text(tiny.recipe_text(folder / "base", data))
    run_dir = run(load_recipe(folder / "r.yaml"), out=folder / "run")
    shutil.copytree(run_dir.path, folder / "stopped")
    shutil.rmtree(folder / "stopped" / "adapter")
    status = json.loads((folder / "stopped" / "status.json").read_text())
    (folder / "stopped" / "status.json").write_text(json.dumps({**status, "state": "stopped"}))
    tiny.tiny_llama(folder / "base", seed=1)
    return folder


def test_every_verb_refuses_other_weights_of_the_same_shapes(trained, tmp_path):
    run_dir = trained / "run"
    verbs = {
        "evaluate": lambda **allow: evaluate_run(run_dir, limit=2, **allow),
        "generate": lambda **allow: open_answerer(run_dir, **allow),
        "merge": lambda **allow: merge(run_dir, out=tmp_path / "merged", **allow),
        "export": lambda **allow: export(run_dir, "adapter", out=tmp_path / "out", **allow),
    }
    for verb, use in verbs.items():
        with pytest.raises(UsageError, match="was trained on other weights of") as caught:
            use()
        assert "--allow-other-base" in str(caught.value.hint), verb
    scores, _ = verbs["evaluate"](allow_other_base=True)
    assert any("was trained on other weights of" in note for note in scores.notes)
    merged = verbs["merge"](allow_other_base=True)
    assert any("allowed by --allow-other-base" in note for note in merged.notes)
    assert (
        json.loads((run_dir / "adapter" / "base.json").read_text())["others"][0]["use"] == "merge"
    )


def test_a_stopped_run_does_not_go_on_with_other_weights(trained):
    recipe = load_recipe(trained / "r.yaml")
    with pytest.raises(UsageError, match="was trained on other weights of"):
        run(recipe, out=trained / "stopped")
    run_dir = run(recipe, out=trained / "stopped", allow_drift=True)
    assert run_dir.adapter.is_dir()
    assert evaluate_run(run_dir.path, limit=2)[0].num_rows == 2
