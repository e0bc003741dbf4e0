"""What is no run is asked too: merged, exported, foreign adapters, bare bases, classifiers."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import tiny
import tiny_heads
from command_line import run_command
from trained_adapter import lora, move_and_save
from training_fixture import train, write_recipe

from peftkit.errors import ArtefactError, UsageError
from peftkit.export import export
from peftkit.generate import Conversation, open_answerer
from peftkit.merge import merge
from peftkit.training.open_model import is_model, open_model

CHAT = [{"role": "user", "content": "sort"}, {"role": "assistant", "content": "keys by name"}]
OPTIONS = ["max_new_tokens=8"]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.tiny_llama(tmp_path_factory.mktemp("lively"), initializer_range=0.3)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, base: Path) -> Path:
    folder = tmp_path_factory.mktemp("chat")
    rows = tiny.write_jsonl(folder / "rows.jsonl", [{"messages": CHAT}] * 8)
    sft = {"max_steps": 2, "learning_rate": 0.05, "per_device_train_batch_size": 4}
    data = {"source": {"json": {"files": str(rows)}}, "task": {"chat": {}}}
    return train(write_recipe(folder / "r.json", base, rows, sft=sft, data=data), folder / "r").path


def said(place: Path | str, **options) -> list[str]:
    """Hold a short conversation."""
    answers = Conversation(open_answerer(Path(place), options=OPTIONS, **options))
    return [answers.say(prompt, lambda _: None).text for prompt in ("sort keys", "again")]


def test_merged_and_exported_folders_answer_as_their_run(run: Path, tmp_path: Path) -> None:
    merge(run, out=tmp_path / "merged")
    export(run, "adapter", out=tmp_path / "adapter")
    wanted = said(run)
    assert wanted[0] != said(run, untrained=True)[0], "training changed something"
    assert said(tmp_path / "merged") == wanted
    assert said(tmp_path / "adapter") == wanted
    assert said(run / "adapter") == wanted


def test_a_base_answers_as_the_run_s_before_training(run: Path, base: Path) -> None:
    assert said(base) == said(run, untrained=True)


def test_an_adapter_of_another_tool_takes_the_base_that_is_named(
    base: Path, tmp_path: Path
) -> None:
    trained = move_and_save(base, tmp_path / "adapter", lora())
    moved = shutil.copytree(base, tmp_path / "elsewhere")
    assert said(trained.folder) == said(trained.folder, base=str(moved)) != said(base)


def test_running_text_is_continued_without_a_chat_template(
    base: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    plain = shutil.copytree(base, tmp_path / "plain")
    tiny.tiny_tokenizer(plain, chat_template=None)
    (plain / "chat_template.jinja").unlink(missing_ok=True)
    done = run_command(capfd, "generate", plain, "sort keys by", "-o", "max_new_tokens=5")
    assert done.code == 0, done.err
    tokenizer = AutoTokenizer.from_pretrained(plain)
    ids = tokenizer("sort keys by", return_tensors="pt")
    model = AutoModelForCausalLM.from_pretrained(plain).eval()
    with torch.no_grad():
        found = model.generate(**ids, max_new_tokens=5, do_sample=False)[0]
    wanted = tokenizer.decode(found[ids["input_ids"].shape[1] :], skip_special_tokens=True)
    assert done.out.strip("\n").startswith(wanted.strip("\n"))


def test_an_encoder_decoder_and_a_classifier_are_asked_as_what_they_are(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    seq2seq = open_model("embedded:catalogue-seq2seq").built.method.kind
    assert seq2seq.auto_class == "AutoModelForSeq2SeqLM"
    config = {**tiny_heads.BERT, "id2label": {0: "no", 1: "yes"}}
    folder = tiny_heads.save(tmp_path / "bert", config, "AutoModelForSequenceClassification")
    done = run_command(capfd, "generate", folder, "sort keys")
    assert done.code == 0, done.err
    assert set(done.out.split()) & {"no", "yes"}


def test_what_names_a_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert is_model("embedded:docstring-lm")
    assert is_model("owner/name")
    assert is_model("owner/name@main")
    (tmp_path / "runs").mkdir()
    assert not is_model("runs/misspelt"), "no run's name is asked of the Hub"
    assert not is_model("misspelt")
    assert not is_model("runs")


def test_what_cannot_be_asked_is_refused(run: Path, base: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="fill in masked words"):
        open_answerer(Path("embedded:docstring-bert"))
    with pytest.raises(UsageError, match="is no run"):
        open_answerer(base, untrained=True)
    adapter = shutil.copytree(run / "adapter", tmp_path / "adapter")
    with pytest.raises(UsageError, match="other weights"):
        open_answerer(adapter, base=str(tiny.tiny_llama(tmp_path / "other", seed=3)))
    with pytest.raises(ArtefactError, match="is not there"):
        open_answerer(adapter, base=str(tmp_path / "gone"))
