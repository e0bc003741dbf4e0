"""Answers are found in texts as plain transformers and peft learn it, and go through every verb."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
import tiny
import tiny_heads
import torch
from training_fixture import losses

from peftkit.errors import DataError, RecipeError, UsageError
from peftkit.rundir.paths import RunDir

pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")

ROWS = tiny_heads.questions(8)
TASK: dict = {"question_answering": {}}
METHOD = {"question_answering": tiny_heads.QUESTION_ANSWERING}


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bert")
    return tiny_heads.save(folder, tiny_heads.BERT, "AutoModelForPreTraining")


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory, bert: Path) -> Path:
    folder = tmp_path_factory.mktemp("recipe")
    evaluate = {"split": "test", "limit": 6}
    return tiny_heads.recipe(folder, bert, ROWS, METHOD, TASK, evaluate=evaluate)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, recipe: Path) -> RunDir:
    return tiny_heads.train(tmp_path_factory.mktemp("run") / "run", recipe)


def plain_losses(base: Path, out: Path) -> list[float]:
    """Train with plain transformers and peft alone, as transformers' run_qa makes its features."""
    from datasets import Dataset
    from peft import LoraConfig, get_peft_model
    from transformers import (
        AutoModelForQuestionAnswering,
        AutoTokenizer,
        DataCollatorWithPadding,
        Trainer,
        TrainingArguments,
        set_seed,
    )

    options = dict(tiny_heads.QUESTION_ANSWERING)
    for name in ("save_steps", "save_total_limit", "max_answer_length"):
        del options[name]
    tokenizer = AutoTokenizer.from_pretrained(base)
    features = tokenizer(
        [row["question"] for row in ROWS], [row["context"] for row in ROWS],
        truncation="only_second", max_length=options.pop("max_length"),
        stride=options.pop("doc_stride"), return_overflowing_tokens=True,
        return_offsets_mapping=True,
    )  # fmt: skip
    rows = []
    for at, of in enumerate(features["overflow_to_sample_mapping"]):
        start = ROWS[of]["answers"]["answer_start"][0]
        end = start + len(ROWS[of]["answers"]["text"][0])
        offsets, sides = features["offset_mapping"][at], features.sequence_ids(at)
        own = [i for i, side in enumerate(sides) if side == 1]
        first = last = 0
        if offsets[own[0]][0] <= start and offsets[own[-1]][1] >= end:
            first = max(i for i in own if offsets[i][0] <= start)
            last = min(i for i in own if offsets[i][1] >= end)
        rows.append(
            {
                "input_ids": features["input_ids"][at],
                "start_positions": first,
                "token_type_ids": features["token_type_ids"][at],
                "end_positions": last,
            }
        )
    set_seed(options["seed"])
    model = AutoModelForQuestionAnswering.from_pretrained(base, dtype=torch.float32)
    set_seed(options["seed"])
    lora = LoraConfig(task_type="QUESTION_ANS", modules_to_save=["qa_outputs"], **tiny_heads.LORA)
    model = get_peft_model(model, lora)
    trainer = Trainer(
        model=model,
        args=TrainingArguments(
            output_dir=str(out), use_cpu=True, save_strategy="no", disable_tqdm=True,
            dataloader_pin_memory=False, **options,
        ),
        train_dataset=Dataset.from_list(rows),
        data_collator=DataCollatorWithPadding(tokenizer),
        processing_class=tokenizer,
    )  # fmt: skip
    trainer.train()
    return [line["loss"] for line in trainer.state.log_history if "loss" in line]


def test_losses_are_plain_transformers_to_the_bit(run: RunDir, bert: Path, tmp_path: Path) -> None:
    assert losses(run) == plain_losses(bert, tmp_path)


def test_a_run_resumes_to_the_bit(run: RunDir, recipe: Path, tmp_path: Path) -> None:
    tiny_heads.assert_resumes(run, recipe, tmp_path / "part")


def test_the_audit_counts_windows_and_shows_the_answer(run: RunDir) -> None:
    data = json.loads(run.data.read_text())
    train = data["splits"]["train"]
    assert (train["num_used"], train["num_fully_masked"], train["num_truncated"]) == (8, 0, 0)
    assert train["num_windows"] > 8
    marked = [
        "".join(t for t, m in zip(row["tokens"], row["trained"], strict=True) if m).strip()
        for row in data["mask_samples"]["train"]
    ]
    assert set(marked) <= {"w", *map(a, ROWS)}  # a window without the answer: its first token
    assert a(ROWS[0]) in marked


def a(row: dict) -> str:
    return row["answers"]["text"][0]


def test_plain_peft_loads_the_adapter_with_its_head_and_answers_alike(
    run: RunDir, bert: Path
) -> None:
    from peft import PeftModel
    from transformers import AutoModelForQuestionAnswering, AutoTokenizer

    from peftkit.preprocessing.windows import cut_windows

    adapter = json.loads((run.adapter / "adapter_config.json").read_text())
    assert adapter["task_type"] == "QUESTION_ANS"
    assert "qa_outputs" in adapter["modules_to_save"]
    base = AutoModelForQuestionAnswering.from_pretrained(bert)
    model = PeftModel.from_pretrained(base, run.adapter).eval()
    tokenizer = AutoTokenizer.from_pretrained(run.adapter)
    samples = [json.loads(line) for line in run.samples.read_text().splitlines()]
    assert len(samples) == 6
    for sample, row in zip(samples, ROWS, strict=False):
        best = (-1e9, "")
        context = row["context"]
        (windows,) = cut_windows(
            [(row["question"], context)], tokenizer, max_length=32, doc_stride=8
        )
        for window in windows:
            batch = {k: torch.tensor([v]) for k, v in window.row.items()}
            with torch.no_grad():
                out = model(**batch)
            for i, (first, _) in enumerate(window.offsets):
                for j in range(i, min(i + 6, len(window.offsets))):
                    score = out.start_logits[0, window.first + i] + out.end_logits[
                        0, window.first + j]  # fmt: skip
                    text = context[first : window.offsets[j][1]].strip()
                    if text:
                        best = max(best, (float(score), text))
        assert sample["tuned"] == best[1]
        assert sample["reference"] == a(row)
        assert sample["texts"] == [row["question"], context]


def test_the_card_s_own_lines_load_the_model(run: RunDir) -> None:
    card = (run.adapter / "README.md").read_text()
    usage = card.split("```python\n")[1].split("```")[0].replace("THIS FOLDER", str(run.adapter))
    usage = usage.replace("THE BASE", run.read_resolved()["model"]["path"])
    loaded: dict = {}
    exec(usage, loaded)  # noqa: S102 - what our own card says
    assert "pipeline_tag: question-answering" in card


def test_scores_have_no_base_and_a_baseline_beside(run: RunDir) -> None:
    scores = json.loads(run.scores.read_text())
    assert scores["base"] == {}
    assert scores["headline"] == "f1"
    assert set(scores["tuned"]) == {"exact_match", "f1"}
    assert set(scores["baselines"]) == {"next_words"}
    assert any("the head that finds answers is new" in note for note in scores["notes"])
    assert "SQuAD 1.1's own script" in scores["notes"][-1]
    report = run.report.read_text()
    assert "Exact match" in report
    assert "Next words" in report


def test_a_run_answers_questions_and_files(run: RunDir, tmp_path: Path) -> None:
    from peftkit.generate import answer_file, open_answerer, read_questions
    from peftkit.scoring.prompts import question_of_row, question_of_text

    answerer = open_answerer(run.path)
    asked = {"question": ROWS[0]["question"], "context": ROWS[0]["context"]}
    file = tiny.write_jsonl(tmp_path / "asked.jsonl", [asked, ROWS[1]])
    out = io.StringIO()
    answer_file(answerer, read_questions(answerer, file), out)
    lines = [json.loads(line) for line in out.getvalue().splitlines()]
    samples = [json.loads(line) for line in run.samples.read_text().splitlines()]
    for line, sample in zip(lines, samples, strict=False):
        assert line["predicted"] == sample["tuned"]
        start = line["predicted_start"]
        assert line["context"][start : start + len(line["predicted"])] == line["predicted"]
        assert 0 < line["probability"] <= 1
    written: list[str] = []
    reply = answerer.reply(question_of_row(answerer.task, asked), written.append)
    assert written == [lines[0]["predicted"]] == [reply.text]
    with pytest.raises(UsageError, match="several columns at once: question, context"):
        question_of_text(answerer.task, "sort")
    with pytest.raises(UsageError, match="the base knows no answers"):
        open_answerer(run.path, untrained=True)
    with pytest.raises(UsageError, match="max_new_tokens does not say how"):
        open_answerer(run.path, options=["max_new_tokens=3"])
    with pytest.raises(UsageError, match="n_best_size must be at least 1"):
        open_answerer(run.path, options=["n_best_size=0"])
    short = open_answerer(run.path, options=["max_answer_length=1"])
    assert len(short.reply(question_of_row(short.task, asked), written.append).text.split()) == 1


def test_how_answers_are_found_may_change_after_training(run: RunDir) -> None:
    from peftkit.evaluate import evaluate_run

    option = "method.question_answering.max_answer_length=1"
    scores, file = evaluate_run(run.path, overrides=[option])
    assert file.name == "scores-test.json"
    assert all(len(sample["tuned"].split()) <= 1 for sample in scores.samples)
    with pytest.raises(UsageError, match=r"can change the sections.*or method\..*max_answer"):
        evaluate_run(run.path, overrides=["method.question_answering.max_length=16"])


@pytest.mark.parametrize(
    "adapter", ["full", pytest.param({"ia3": {}}, marks=pytest.mark.slow)], ids=str
)
def test_other_adapters_answer_where_there_may_be_none(adapter, bert: Path, tmp_path: Path) -> None:
    rows = tiny_heads.questions(9, unanswerable=True)
    task = {"question_answering": {"version_2_with_negative": True}}
    made = tiny_heads.recipe(
        tmp_path, bert, rows, METHOD, task, adapter=adapter, evaluate={"split": "test"}
    )
    trained = tiny_heads.train(tmp_path / "run", made)
    scores = json.loads(trained.scores.read_text())
    assert set(scores["tuned"]) == {"exact_match", "f1", "has_ans_f1", "no_ans_f1"}
    assert scores["baselines"]["no_answer"]["f1"] == pytest.approx(1 / 3)
    assert any("would give the best F1" in note for note in scores["notes"])


def test_a_merged_run_and_one_that_goes_on_answer(
    run: RunDir, recipe: Path, tmp_path: Path
) -> None:
    from transformers import AutoModelForQuestionAnswering

    from peftkit.merge import merge

    merged = merge(run.path, out=tmp_path / "merged", verify=True)
    assert merged.verification is not None
    _, report = AutoModelForQuestionAnswering.from_pretrained(
        tmp_path / "merged", output_loading_info=True
    )
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    document = {**json.loads(recipe.read_text()), "adapter": {"from": str(run.path)}}
    file = tmp_path / "r.json"
    file.write_text(json.dumps({**document, "evaluate": False}))
    assert losses(tiny_heads.train(tmp_path / "run", file))[0] != losses(run)[0]


@pytest.mark.slow
def test_an_exported_run_answers_alike(run: RunDir, tmp_path: Path) -> None:
    from peftkit.export import export

    for name in ("safetensors", "adapter", "onnx"):
        assert all(proof.holds for proof in export(run.path, name, out=tmp_path / name).proofs)


def test_wrong_rows_and_tasks_are_refused_by_name(recipe: Path, bert: Path, tmp_path: Path):
    from peftkit.recipe.load import load_recipe

    with pytest.raises(RecipeError, match="question_answering trains on Spans"):
        load_recipe(recipe, ["data.task={summarize: {document: question, summary: context}}"])
    with pytest.raises(RecipeError, match="label_smoothing_factor"):
        load_recipe(recipe, ["method.question_answering.label_smoothing_factor=0.1"])
    row = ROWS[0]
    off = {**row, "answers": {**row["answers"], "answer_start": [0]}}
    gone = {**row, "answers": {"text": ["nowhere"], "answer_start": [3]}}
    made = tiny_heads.recipe(tmp_path, bert, [row, off, gone], METHOD, TASK)
    with pytest.raises(DataError) as caught:
        tiny_heads.train(tmp_path / "run", made)
    message = str(caught.value)
    assert "is not at answer_start 0" in message
    assert "search: true looks for it" in message
    assert "the answer 'nowhere' stands nowhere in its context" in message
    assert "the first is row 1" in message


def test_the_conformance_checks_hold(tmp_path: Path) -> None:
    from peftkit.methods.question_answering import QuestionAnswering
    from peftkit.plugins import Span, Spans
    from peftkit.testing import check_method

    tokenizer = tiny_heads.closed_tokenizer(tmp_path)
    example = Spans("who", "sort keys by name", (Span("keys", 5),))
    check_method(QuestionAnswering, {"max_length": 16, "doc_stride": 2}, tokenizer, [example])
