"""The commands about runs, from a recipe to a conversation, in one process."""

from __future__ import annotations

import builtins
import io
import json
import os
import shutil
import sys
from pathlib import Path

import pytest
import tiny
from command_line import run_command
from training_fixture import cut_back, train

from peftkit.rundir.paths import RunDir
from peftkit.scoring.generative import ANSWER


@pytest.fixture
def peftkit(capfd: pytest.CaptureFixture[str]):
    return lambda *arguments: run_command(capfd, *arguments)


@pytest.fixture
def run_path(tiny_run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_run, tmp_path / "runs" / "tiny"))


class Terminal(io.StringIO):
    """Be a terminal to type into."""

    def isatty(self) -> bool:
        return True


def test_run_trains_and_the_other_verbs_take_its_directory(
    peftkit, tiny_recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    dry = peftkit("run", tiny_recipe, "--dry-run")
    assert dry.code == 0
    assert "dry run: nothing was trained or written" in dry.out
    assert not (tmp_path / "runs").exists()
    done = peftkit("run", tiny_recipe, "method.sft.max_steps=2", "name=short")
    assert (done.code, done.err) == (0, "")
    run_dir = RunDir(tmp_path / "runs" / "short")
    assert json.loads(run_dir.status.read_text())["state"] == "finished"
    assert "  decided  method.sft.bf16: false (model.dtype is float32" in done.out
    assert peftkit("runs").out.splitlines()[1].split()[:3] == ["short", "finished", "2/2"]
    run_dir.report.unlink()
    assert peftkit("report", "runs/short").out == "runs/short/report.html\n"
    assert run_dir.report.stat().st_size > 10_000


def test_a_stopped_run_goes_on_by_its_folder_alone(
    peftkit, tiny_recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    typed = ["method.sft.max_steps=4", "method.sft.save_steps=1", "evaluate=false"]
    typed.append("method.sft.save_total_limit=9")
    whole = train(tiny_recipe, tmp_path / "whole", *typed)
    stopped = train(tiny_recipe, tmp_path / "elsewhere" / "stopped", *typed)
    cut_back(stopped, step=2)
    stated = stopped.recipe.read_text()
    done = peftkit("run", "elsewhere/stopped")
    assert (done.code, done.err) == (0, "")
    assert "resuming at step 2" in done.out
    assert stopped.recipe.read_text() == stated == tiny_recipe.read_text()
    weights = [run.adapter / "adapter_model.safetensors" for run in (whole, stopped)]
    assert weights[0].read_bytes() == weights[1].read_bytes()
    assert "already finished" in peftkit("run", "elsewhere/stopped").out


def test_every_file_may_be_read_by_whom_the_umask_lets(
    peftkit, run_path: Path, tmp_path: Path
) -> None:
    merged, exported = tmp_path / "merged", tmp_path / "vllm"
    assert peftkit("merge", run_path, "--out", merged).code == 0
    assert peftkit("export", run_path, "--to", "vllm", "--out", exported).code == 0
    mask = os.umask(0)
    os.umask(mask)
    for folder in (run_path, merged, exported):
        modes = {
            file.relative_to(folder): file.stat().st_mode & 0o777
            for file in folder.rglob("*")
            if file.is_file() and not file.name.startswith(".")
        }
        assert set(modes.values()) == {0o666 & ~mask}, modes


def test_data_shows_the_audit_and_the_trained_tokens(peftkit, tiny_recipe: Path) -> None:
    found = peftkit("data", tiny_recipe)
    assert found.code == 0
    head, train, test = found.out.split("row 0: ")
    assert "rows" in head
    for shown in (train, test):
        assert "[[" in shown  # trained tokens, where there is no colour
    content = json.loads(peftkit("data", tiny_recipe, "--split", "test", "--rows", 2, "--json").out)
    assert {name: len(rows) for name, rows in content["mask_samples"].items()} == {"test": 2}
    row = content["mask_samples"]["test"][0]
    answer = "".join(
        text for text, is_trained in zip(row["tokens"], row["trained"], strict=True) if is_trained
    )
    assert answer == tiny.rows(16)[0]["summary"] + "<|endoftext|>"


def test_data_that_a_run_would_refuse_leaves_with_3(
    peftkit, tiny_recipe: Path, tiny_data: Path
) -> None:
    tiny.write_jsonl(tiny_data, [*tiny.rows(4), {"document": None, "summary": "a"}])
    found = peftkit("data", tiny_recipe)
    assert found.code == 3
    assert "A run would refuse this data:" in found.out
    content = json.loads(peftkit("data", tiny_recipe, "--json").out)
    assert content["breaches"]


def test_evaluate_scores_a_split_and_says_where_it_wrote(peftkit, run_path: Path) -> None:
    found = peftkit("evaluate", run_path, "--split", "train", "--limit", 2)
    assert (found.code, found.err) == (0, "")
    file = run_path / "scores-train.json"
    assert found.out.splitlines()[0].strip() == "2 rows of the split train"
    assert found.out.splitlines()[-1] == f"wrote {file}"
    as_json = peftkit("evaluate", run_path, "--split", "train", "--limit", 2, "--json")
    printed, written = json.loads(as_json.out), json.loads(file.read_text())
    for one in (printed, written):
        for key in ("seconds", "seal", "samples_sha256"):
            one.pop(key, None)
    assert printed == written
    other = peftkit("evaluate", run_path, "evaluate.generation.max_new_tokens=3", "--json")
    assert json.loads(other.out)["generation"]["max_new_tokens"] == 3
    assert peftkit("evaluate", run_path, "adapter.lora.r=9").code == 2
    assert peftkit("evaluate", run_path, "--split", "tset").code == 2


def test_generate_streams_one_answer(peftkit, run_path: Path) -> None:
    document = tiny.rows(1)[0]["document"]
    found = peftkit("generate", run_path, document, "-o", "max_new_tokens=5")
    content = json.loads(peftkit("generate", run_path, document, "-o", "max_new_tokens=5",
                                 "--json").out)  # fmt: skip
    assert found.code == 0
    assert found.out == content["answer"] + "\n"
    assert content["prompt"] == document
    assert [f"({note})" for note in content["notes"]] == found.err.splitlines()
    assert peftkit("generate", run_path, " ").code == 2
    assert peftkit("generate", run_path, document, "-o", "max_new_token=5").code == 2


def test_generate_reads_a_prompt_from_a_pipe(
    peftkit, run_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    document = tiny.rows(1)[0]["document"]
    monkeypatch.setattr(sys, "stdin", io.StringIO(document))
    piped = peftkit("generate", run_path)
    assert piped.out == peftkit("generate", run_path, document).out


def test_generate_answers_a_file(peftkit, run_path: Path, tmp_path: Path) -> None:
    rows = [{"document": row["document"]} for row in tiny.rows(3)]
    file, out = tiny.write_jsonl(tmp_path / "in.jsonl", rows), tmp_path / "out.jsonl"
    found = peftkit("generate", run_path, "--file", file, "--out", out)
    assert found.out == f"wrote {out}, 3 answers\n"
    answered = [json.loads(line) for line in out.read_text().splitlines()]
    assert [row["document"] for row in answered] == [row["document"] for row in rows]
    printed = peftkit("generate", run_path, "--file", file).out
    assert [json.loads(line) for line in printed.splitlines()] == answered
    assert all(isinstance(row[ANSWER], str) for row in answered)
    assert "exists already" in peftkit("generate", run_path, "--file", file, "--out", out).refusal


def test_a_row_that_cannot_be_asked_costs_no_answer_file(
    peftkit, run_path: Path, tmp_path: Path
) -> None:
    file = tiny.write_jsonl(tmp_path / "in.jsonl", [{"document": "a"}, {"text": "b"}])
    found = peftkit("generate", run_path, "--file", file, "--out", tmp_path / "out.jsonl")
    assert found.code == 3
    assert f"{file}:2: the row has none of document" in found.refusal
    assert not (tmp_path / "out.jsonl").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [(["--out", "x"], "--out takes the answers"), (["a", "--file", "x"], "at once")],
)
def test_options_that_contradict_each_other_are_refused_before_anything_is_loaded(
    peftkit, tmp_path: Path, options: list[str], message: str
) -> None:
    found = peftkit("generate", tmp_path / "absent", *options)
    assert found.code == 2
    assert message in found.refusal


def test_generate_chats_where_a_person_types(
    peftkit, run_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    documents = [row["document"] for row in tiny.rows(2)]
    typed = iter([*documents, ""])
    monkeypatch.setattr(sys, "stdin", Terminal())
    monkeypatch.setattr(builtins, "input", lambda _: next(typed))
    found = peftkit("generate", run_path)
    assert found.code == 0
    assert found.err.splitlines()[0] == (
        "(each prompt stands alone; Ctrl-C stops an answer, an empty line leaves)"
    )
    expected = [peftkit("generate", run_path, document).out for document in documents]
    assert found.out == "".join(expected)


def test_ctrl_c_stops_an_answer_and_not_the_conversation(
    peftkit, run_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from peftkit.scoring.generative import GenerativeAnswerer

    real, calls = GenerativeAnswerer.reply, []

    def reply(self: GenerativeAnswerer, *arguments: object, **options: object) -> object:
        calls.append(1)
        if len(calls) == 1:
            raise KeyboardInterrupt
        return real(self, *arguments, **options)

    typed = iter(["sort keys", "by name", ""])
    monkeypatch.setattr(GenerativeAnswerer, "reply", reply)
    monkeypatch.setattr(sys, "stdin", Terminal())
    monkeypatch.setattr(builtins, "input", lambda _: next(typed))
    found = peftkit("generate", run_path)
    assert found.code == 0
    assert "(stopped)" in found.err
    assert len(calls) == 2


def test_runs_are_listed_and_compared(peftkit, run_path: Path) -> None:
    listed = json.loads(peftkit("runs", "--root", run_path.parent, "--json").out)
    assert [run["name"] for run in listed] == ["tiny"]
    other = Path(shutil.copytree(run_path, run_path.with_name("other")))
    found = peftkit("runs", "compare", run_path, other)
    assert found.code == 0
    assert found.out.splitlines()[0].split() == ["tiny", "other"]
    content = json.loads(peftkit("runs", "compare", run_path, other, "--json").out)
    assert content["scores"]["rougeL"][0] == listed[0]["tuned"]
    assert content["recipe"] == {}
    assert peftkit("runs", "compare", run_path).code == 2
    assert peftkit("runs", "--root", run_path / "absent").out.startswith("no runs here")


@pytest.mark.parametrize(("typed", "is_gone"), [("n\n", False), ("\n", False), ("y\n", True)])
def test_a_run_is_deleted_when_a_person_says_so(
    peftkit, run_path: Path, monkeypatch: pytest.MonkeyPatch, typed: str, is_gone: bool
) -> None:
    monkeypatch.setattr(sys, "stdin", Terminal(typed))
    found = peftkit("runs", "delete", run_path)
    assert found.code == 0
    assert f"{run_path}: finished, step 4" in found.err
    assert run_path.exists() is not is_gone
    assert found.out.startswith(f"deleted {run_path}" if is_gone else "kept")


def test_a_script_deletes_with_yes_only(
    peftkit, run_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    found = peftkit("runs", "delete", run_path)
    assert found.code == 2
    assert found.refusal.endswith("try: --yes")
    assert run_path.exists()
    stranger = run_path / "thesis.tex"
    stranger.write_text("x")
    assert "holds what no run wrote" in peftkit("runs", "delete", run_path, "--yes").refusal
    stranger.unlink()
    content = json.loads(peftkit("runs", "delete", run_path, "--yes", "--json").out)
    assert content["deleted"] == str(run_path)
    assert content["num_bytes"] > 0
    assert not run_path.exists()
    assert peftkit("runs", "delete", run_path, "-y").code == 2
