"""Bad input, as a stranger meets it on the command line.

Whatever is wrong: the documented exit code, what is wrong with its file and line, a way out that
works when it is followed, no traceback, and nothing lost.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny
from command_line import Outcome, run_command
from training_fixture import files_of_at_most, sha256

from peftkit.rundir.paths import RunDir, locked

Command = Callable[..., Outcome]


@pytest.fixture
def peftkit(
    capfd: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Command:
    """Return the command line, in an empty folder; without plans, which are not what is wrong."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("peftkit.memory.planner.plan_run", lambda *_, **__: (None, "left out"))
    return lambda *arguments: run_command(capfd, *arguments)


class Recipes:
    """Write the tiny recipe with something changed, and know the line of each key."""

    def __init__(self, folder: Path, model: Path) -> None:
        self.folder, self.model = folder, model

    def write(
        self,
        *changes: tuple[str, str],
        rows: list[dict[str, Any]] | str | None = None,
        model: Path | str | None = None,
        sft: str = "save_strategy: 'no'",
    ) -> str:
        """Write `r.yaml` and `rows.jsonl`; return the recipe's name."""
        file = self.folder / "rows.jsonl"
        if isinstance(rows, str):
            file.write_text(rows, encoding="utf-8")
        else:
            tiny.write_jsonl(file, tiny.rows(16) if rows is None else rows)
        text = tiny.recipe_text(Path(model or self.model), Path("rows.jsonl"), sft=sft)
        text = text.replace("max_steps: 4", "max_steps: 2").replace("evaluate:", "#evaluate:")
        for old, new in changes:
            assert text.count(old) == 1, f"{old!r} must stand once in\n{text}"
            text = text.replace(old, new)
        (self.folder / "r.yaml").write_text(text, encoding="utf-8")
        return "r.yaml"

    def line(self, start: str) -> int:
        """Return the number of the line that begins so."""
        lines = (self.folder / "r.yaml").read_text(encoding="utf-8").splitlines()
        (found,) = [at for at, line in enumerate(lines, 1) if line.strip().startswith(start)]
        return found


@pytest.fixture
def recipes(tmp_path: Path, tiny_model: Path) -> Recipes:
    return Recipes(tmp_path, tiny_model)


def test_no_recipe(peftkit: Command) -> None:
    done = peftkit("run", "absent.yaml")
    assert done.code == 2
    assert done.refusal == (
        "absent.yaml: 1 problem\n"
        "  -    there is no such file; peftkit recipes lists those that ship"
    )


def test_a_recipe_of_a_name_like_one_here(peftkit: Command, recipes: Recipes) -> None:
    recipes.write()
    assert "did you mean r.yaml?" in peftkit("run", "r.yml").refusal


@pytest.mark.parametrize("text", ["", "\n\n", "# later\n"])
def test_an_empty_recipe(peftkit: Command, tmp_path: Path, text: str) -> None:
    (tmp_path / "empty.yaml").write_text(text)
    done = peftkit("run", "empty.yaml")
    assert done.code == 2
    assert "empty.yaml: 1 problem\n  -    the file is empty; " in done.refusal
    # the way out, followed
    assert peftkit("recipes", "summarize-lora").code == 0
    assert peftkit("check", "summarize-lora.yaml").code == 0


def test_a_missing_column(peftkit: Command, recipes: Recipes) -> None:
    recipe = recipes.write(("summary: summary", "summary: sumary"))
    done = peftkit("run", recipe)
    assert done.code == 3
    assert done.refusal == (
        f"r.yaml:{recipes.line('task:')} data.task.summarize: split 'train' has no column 'sumary';"
        " it has document, summary\n  try: did you mean summary?"
    )


def test_an_empty_dataset(peftkit: Command, recipes: Recipes) -> None:
    done = peftkit("run", recipes.write(rows=[]))
    assert done.code == 3
    assert done.refusal == "rows.jsonl: no rows\n  try: check that it is the file you mean"


@pytest.mark.parametrize(
    ("value", "reason"),
    [(None, "summary is null"), ("", "summary is empty"), ("  \n", "summary is only whitespace")],
)
def test_null_and_empty_rows(
    peftkit: Command, recipes: Recipes, value: str | None, reason: str
) -> None:
    rows = tiny.rows(20)
    rows[3]["summary"] = rows[7]["summary"] = value
    done = peftkit("run", recipes.write(rows=rows))
    assert done.code == 3
    assert done.refusal == (
        f"r.yaml:{recipes.line('data:')} data: the audit finds 1 threshold broken\n"
        f"  train: 2 of 20 rows cannot be used (10.0%, at most 5.0%): 2 {reason}; the first is"
        " row 3\n    try: mend or remove those rows, or raise data.audit.max_dropped"
    )
    # the way out, followed
    assert peftkit("data", "r.yaml", "data.audit.max_dropped=0.1").code == 0


def test_malformed_jsonl(peftkit: Command, recipes: Recipes) -> None:
    lines = [json.dumps(row) for row in tiny.rows(6)]
    lines[4] = lines[4][:-20]
    done = peftkit("run", recipes.write(rows="\n".join(lines) + "\n"))
    assert done.code == 3
    assert done.refusal.startswith("rows.jsonl:5: ")
    assert "check that line with `python -m json.tool`" in done.refusal


def test_all_rows_masked_after_truncation(peftkit: Command, recipes: Recipes) -> None:
    recipe = recipes.write(("max_length: 128", "max_length: 8"), ("#evaluate:", "evaluate:"))
    done = peftkit("run", recipe)
    assert done.code == 3
    masked = re.search(
        r"  train: 16 of 16 rows have no trained token within method\.sft\.max_length 8 on line"
        rf" {recipes.line('max_length')} .*\n    try: method\.sft\.max_length=(\d+) ",
        done.refusal,
    )
    assert masked is not None, done.refusal
    # the way out, followed
    allowed = ("data.audit.max_truncated=1", f"method.sft.max_length={masked.group(1)}")
    assert peftkit("run", recipe, *allowed, "evaluate=false").code == 0


def test_no_chat_template(peftkit: Command, recipes: Recipes, tmp_path: Path) -> None:
    bare = tiny.tiny_llama(tmp_path / "bare")
    template = bare / "chat_template.jinja"
    template.rename(tmp_path / "chat.jinja")
    recipe = recipes.write(model="./bare")
    done = peftkit("run", recipe)
    assert done.code == 3
    assert done.refusal == (
        f"r.yaml:{recipes.line('path:')} model.path: the tokenizer of {bare} has no chat"
        " template\n  try: model.chat_template=alpaca needs no more than an end token; it takes"
        " chatml, llama3, mistral, gemma, phi, zephyr, vicuna, alpaca, plain, others"
        " (peftkit explain model.chat_template) and Jinja files"
    )
    done = peftkit("run", recipe, "model.chat_template=chat.jinja")
    assert done.code == 0, done.err
    shown = peftkit("data", recipe, "model.chat_template=zephyr", "--rows", "1")
    assert shown.code == 0, shown.err
    assert shown.code == 0, shown.out


@pytest.mark.parametrize(
    ("targets", "named", "verb"),
    [
        ("[query, value]", "'query', 'value'", "match"),
        ("[q_proj, v_prj]", "'v_prj'", "matches"),
        ("'.*\\.attention'", r"'.*\\.attention'", "matches"),
    ],
)
def test_target_modules_without_a_match(
    peftkit: Command, recipes: Recipes, targets: str, named: str, verb: str
) -> None:
    done = peftkit("run", recipes.write(("all-linear", targets)))
    assert done.code == 2
    first, hint = done.refusal.splitlines()
    assert first == (
        f"r.yaml:{recipes.line('lora:')} adapter.lora.target_modules: {named} {verb} nothing in"
        " LlamaForCausalLM"
    )
    assert hint.endswith(
        "its linear modules are q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj, down_proj"
    )
    assert ("did you mean v_proj? " in hint) == ("v_prj" in targets)


def test_sequences_longer_than_the_positions(peftkit: Command, recipes: Recipes) -> None:
    rows = [{**row, "document": " ".join([row["document"]] * 20)} for row in tiny.rows(8)]
    recipe = recipes.write(("max_length: 128", "max_length: 4096"), rows=rows)
    done = peftkit("run", recipe)
    assert done.code == 3
    assert re.fullmatch(
        rf"r\.yaml:{recipes.line('data:')} data: the audit finds 1 threshold broken\n"
        rf"  train: method\.sft\.max_length is 4096 on line {recipes.line('max_length')} and the"
        r" longest row has \d+ tokens, but the model has 256 positions"
        r" \(max_position_embeddings\)\n"
        r"    try: method\.sft\.max_length=256, or a model with more positions",
        done.refusal,
    ), done.refusal


def test_a_learning_rate_that_diverges(peftkit: Command, recipes: Recipes) -> None:
    recipe = recipes.write(
        ("1.0e-3", "1.0e+30"), ("max_steps: 2", "max_steps: 4"), sft="save_steps: 1"
    )
    done = peftkit("run", recipe)
    assert done.code == 6
    first, hint = done.refusal.splitlines()
    assert first == (
        f"r.yaml:{recipes.line('learning_rate')} method.sft.learning_rate: step 1: what the model"
        " computes with the weights after it is no number (learning_rate 1e+30, max_grad_norm 1);"
        " no checkpoint was due before it"
    )
    assert not (RunDir(Path("runs/tiny")).checkpoints / "step-1").exists()
    override = hint.removeprefix("  try: ").split()[0]
    assert peftkit("run", recipe, override, "--out", "runs/calm").code == 0


def test_the_directory_of_a_different_run(peftkit: Command, recipes: Recipes) -> None:
    recipe = recipes.write()
    assert peftkit("run", recipe).code == 0
    before = sha256(RunDir(Path("runs/tiny")))
    done = peftkit("run", recipe, "adapter.lora.r=8")
    assert done.code == 2
    assert done.refusal == (
        "runs/tiny is another run:\n  adapter.lora.r: 4 -> 8\n"
        "  try: --out ANOTHER_DIR for this one, or the recipe as it was to resume"
    )
    assert sha256(RunDir(Path("runs/tiny"))) == before
    assert "already finished" in peftkit("run", recipe).out
    assert peftkit("run", recipe, "adapter.lora.r=8", "--out", "runs/eight").code == 0


def test_two_runs_in_one_directory(peftkit: Command, recipes: Recipes) -> None:
    recipe = recipes.write()
    Path("runs/tiny").mkdir(parents=True)
    with locked(RunDir(Path("runs/tiny"))):
        done = peftkit("run", recipe)
    assert done.code == 5
    assert re.fullmatch(
        r"runs/tiny is in use by process \d+\n"
        r"  try: wait for it, or give this run another directory with --out DIR",
        done.refusal,
    )
    assert peftkit("run", recipe).code == 0


@pytest.mark.parametrize("place", ["thesis", "thesis/chapter.tex", "/proc/peftkit"])
def test_a_place_where_no_run_can_live(peftkit: Command, recipes: Recipes, place: str) -> None:
    Path("thesis").mkdir()
    Path("thesis/chapter.tex").write_text("x")
    done = peftkit("run", recipes.write(), "--out", place)
    assert done.code == 2
    assert "choose another --out DIR" in done.refusal
    assert Path("thesis/chapter.tex").read_text() == "x"


def test_a_hub_id_without_a_network(
    peftkit: Command, recipes: Recipes, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = recipes.write(model="nobody/nothing")
    done = peftkit("run", recipe)
    assert done.code == 7
    assert done.refusal == (
        f"r.yaml:{recipes.line('path:')} model.path: model 'nobody/nothing' is not in the Hub"
        " cache, and the Hub cannot be reached\n  try: check the network; or download it elsewhere"
        " with `hf download nobody/nothing` and name the folder"
    )
    assert not RunDir(Path("runs/tiny")).trained.exists()


@pytest.mark.parametrize(
    ("change", "start"),
    [
        (("r: 4", "r: 400"), "adapter.lora.r: 400 is larger than the smaller side"),
        (("all-linear", "[lm_head]"), "adapter.lora: this adapter reaches the output head"),
        (
            ("  lora: {r: 4, lora_alpha: 8, target_modules: all-linear}", "  c3a: {}"),
            "adapter.c3a: C3AConfig cannot be attached to LlamaForCausalLM: ",
        ),
    ],
)
def test_sizes_that_do_not_suit_the_model(
    peftkit: Command, recipes: Recipes, change: tuple[str, str], start: str
) -> None:
    done = peftkit("run", recipes.write(change))
    assert done.code == 2
    line = recipes.line("c3a:" if "c3a" in start else "lora:")
    assert done.refusal.startswith(f"r.yaml:{line} {start}")
    assert "\n  try: " in done.refusal


def _tear(folder: Path) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])


def _pickle(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def _unknown(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "model_type": "hal9000"}))


@pytest.mark.parametrize(
    ("damage", "problem"),
    [
        (_tear, "is torn or no safetensors file"),
        (_pickle, "safetensors"),
        (_unknown, "does not know the architecture 'hal9000'"),
    ],
)
def test_a_model_that_cannot_be_loaded(
    peftkit: Command, recipes: Recipes, damage: Callable[[Path], None], problem: str
) -> None:
    damage(tiny.tiny_llama(Path("broken")))
    done = peftkit("run", recipes.write(model="./broken"))
    assert done.code == 4
    assert done.refusal.startswith(f"r.yaml:{recipes.line('path:')} model.path: ")
    assert problem in done.refusal
    assert "\n  try: " in done.refusal


def test_an_adapter_of_another_model_is_not_continued(peftkit: Command, recipes: Recipes) -> None:
    assert peftkit("run", recipes.write()).code == 0
    tiny.tiny_llama(Path("wide"), hidden_size=128)
    options = "  lora: {r: 4, lora_alpha: 8, target_modules: all-linear}"
    recipe = recipes.write((options, "  from: runs/tiny"), model="./wide")
    done = peftkit("run", recipe, "--out", "runs/second")
    assert done.code == 4
    adapter = Path("runs/tiny/adapter").absolute()
    assert done.refusal.startswith(
        f"r.yaml:{recipes.line('from:')} adapter.from: {adapter} was made for another base: it has "
    )


def test_a_full_disk(peftkit: Command, recipes: Recipes) -> None:
    recipe = recipes.write(sft="save_steps: 1")
    with files_of_at_most(26_000):
        done = peftkit("run", recipe)
    assert done.code == 5
    assert done.refusal.startswith("the disk is full while training")
    assert "resumes" in done.refusal
    # the way out, followed: room again, the same command
    assert peftkit("run", recipe).code == 0


@pytest.mark.parametrize("verb", ["evaluate", "generate", "report"])
def test_verbs_that_take_a_run_refuse_what_is_none(peftkit: Command, verb: str) -> None:
    Path("runs/other").mkdir(parents=True)
    arguments = ("hello",) if verb == "generate" else ()
    for place in ("runs/other", "runs/absent"):
        done = peftkit(verb, place, *arguments)
        assert done.code == 4, done.err
        assert done.refusal.startswith(place)


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (("rnu", "r.yaml"), "No such command 'rnu'"),
        (("run",), "Missing argument 'RECIPE'"),
        (("run", "r.yaml", "--ouput", "x"), "No such option: --ouput"),
        (("run", "r.yaml", "adapter.lora.r"), "'adapter.lora.r' is not KEY=VALUE"),
        (("run", "r.yaml", "adapter.lora.rr=8"), "LoraConfig (peft"),
    ],
)
def test_a_command_line_that_cannot_be_meant(
    peftkit: Command, recipes: Recipes, arguments: tuple[str, ...], problem: str
) -> None:
    recipes.write()
    done = peftkit(*arguments)
    assert done.code == 2
    assert problem in done.refusal
