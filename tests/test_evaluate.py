"""Scores equal what the plain libraries compute, and every evaluation finds its own file."""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import tiny
from training_fixture import train, write_recipe

from peftkit.errors import ArtefactError, UsageError
from peftkit.evaluate import _gain, _intervals, _too_few, evaluate, evaluate_run
from peftkit.plugins import PRETRAINING, Contestant, Evaluator, Method, Text
from peftkit.rundir.paths import RunDir

SFT = {"max_steps": 1, "per_device_train_batch_size": 2, "max_length": 128, "save_strategy": "no"}


@pytest.fixture
def run_dir(tiny_run: Path, tmp_path: Path) -> RunDir:
    return RunDir(Path(shutil.copytree(tiny_run, tmp_path / "run")))


def _plain_scores(model, tokenizer, rows: list[dict]) -> dict[str, float]:
    """Score row by row with transformers, rouge-score and sacrebleu alone."""
    import sacrebleu
    import torch
    from rouge_score.rouge_scorer import RougeScorer

    scorer = RougeScorer(["rouge1", "rouge2", "rougeL", "rougeLsum"], use_stemmer=True)
    answers, references, fractions, nats, num_tokens = [], [], [], 0.0, 0
    for row in rows:
        prompt = tokenizer.apply_chat_template(
            [{"role": "user", "content": f"Summarize the text.\n\n{row['document']}"}],
            add_generation_prompt=True,
            tokenize=False,
        )
        ids = tokenizer(prompt, return_tensors="pt")["input_ids"]
        made = model.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            do_sample=False,
            max_new_tokens=12,
            pad_token_id=tokenizer.pad_token_id,
        )
        text = tokenizer.decode(made[0, ids.shape[1] :], skip_special_tokens=True).strip()
        answers.append(text)
        references.append(row["summary"])
        found = scorer.score(row["summary"], text)
        fractions.append({name: score.fmeasure for name, score in found.items()})
        answer_ids = tokenizer(row["summary"] + "<|endoftext|>", return_tensors="pt")["input_ids"]
        whole = torch.cat([ids, answer_ids], dim=1)
        with torch.no_grad():
            logits = model(whole).logits[0, ids.shape[1] - 1 : -1].double()
        losses = torch.nn.functional.cross_entropy(logits, answer_ids[0], reduction="none")
        nats, num_tokens = nats + float(losses.sum()), num_tokens + len(losses)
    return {
        **{name: float(np.mean([row[name] for row in fractions])) for name in fractions[0]},
        "bleu": sacrebleu.corpus_bleu(answers, [references]).score,
        "chrf": sacrebleu.corpus_chrf(answers, [references]).score,
        "perplexity": math.exp(nats / num_tokens),
    }


def test_scores_equal_those_of_the_plain_libraries(
    tiny_run: Path, tiny_model: Path, run_dir: RunDir
) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    lines = (tiny_run.parent / "rows.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines[:4]]
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    base = AutoModelForCausalLM.from_pretrained(tiny_model).eval()
    before = _plain_scores(base, tokenizer, rows)
    tuned = PeftModel.from_pretrained(base, tiny_run / "adapter").eval()
    after = _plain_scores(tuned, tokenizer, rows)

    scores, file = evaluate_run(run_dir.path)
    assert file == run_dir.scores
    assert scores.base == pytest.approx(before, rel=1e-5)
    assert scores.tuned == pytest.approx(after, rel=1e-5)
    assert before["perplexity"] != pytest.approx(after["perplexity"], rel=0.05)
    assert (
        scores.to_json().items() >= {"split": "test", "num_rows": 4, "headline": "rougeL"}.items()
    )
    # The run itself found the same.
    earlier = json.loads((tiny_run / "scores.json").read_text())
    assert earlier["tuned"] == pytest.approx(after, rel=1e-5)


def test_the_baseline_and_whose_metrics_these_are_stand_beside_the_scores(tiny_run: Path) -> None:
    scores = json.loads((tiny_run / "scores.json").read_text())
    # The tiny documents are one sentence each, so the baseline answers with the whole document.
    assert 0 < scores["baselines"]["first_sentence"]["rougeL"] < 1
    notes = " ".join(scores["notes"])
    assert "ROUGE: F1 of rouge-score 0.1.2, stemmer on, sentences split at newlines, words" in notes
    assert "chrf nrefs:1|" in notes
    assert scores["generation"]["max_new_tokens"] == 12
    assert scores["num_unfinished"]["base"] <= 4


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"limit": 2}, "scores-test.json"),
        ({"split": "train"}, "scores-train.json"),
        ({"overrides": ["evaluate.generation.max_new_tokens=4"]}, "scores-test.json"),
    ],
)
def test_the_run_s_own_scores_are_never_lost(run_dir: RunDir, options: dict, name: str) -> None:
    own = {file.name: file.read_bytes() for file in (run_dir.scores, run_dir.samples)}
    scores, file = evaluate_run(run_dir.path, **options)
    assert file == run_dir.path / name
    written = json.loads(file.read_text())
    assert written["split"] == scores.split == options.get("split", "test")
    assert scores.num_rows == options.get("limit", 12 if "split" in options else 4)
    samples = (run_dir.path / name.replace("scores", "samples")).with_suffix(".jsonl")
    assert len(samples.read_text().splitlines()) == scores.num_rows
    assert {name: (run_dir.path / name).read_bytes() for name in own} == own


def test_the_recipe_s_own_limit_is_its_own_evaluation(run_dir: RunDir) -> None:
    _, file = evaluate_run(run_dir.path, split="test", limit=4)
    assert file == run_dir.scores


def test_other_rows_can_be_scored(run_dir: RunDir, tmp_path: Path) -> None:
    other = tiny.write_jsonl(tmp_path / "other.jsonl", tiny.rows(3, seed=5))
    override = f"data.source={{json: {{files: {{train: {other}, test: {other}}}}}}}"
    scores, _ = evaluate_run(run_dir.path, overrides=[override])
    assert scores.num_rows == 3
    expected = [row["summary"] for row in tiny.rows(3, seed=5)]
    assert [sample["reference"] for sample in scores.samples] == expected


@pytest.mark.parametrize("override", ["adapter.lora.r=8", "method.sft.max_steps=2", "name=x"])
def test_what_was_trained_cannot_be_overridden(run_dir: RunDir, override: str) -> None:
    with pytest.raises(UsageError, match="this run is trained; an evaluation can change"):
        evaluate_run(run_dir.path, overrides=[override])


def test_a_split_that_is_not_there_is_named(run_dir: RunDir) -> None:
    with pytest.raises(UsageError) as caught:
        evaluate_run(run_dir.path, split="nope")
    assert str(caught.value) == "there is no split 'nope'\n  try: one of train, test"


def test_a_native_split_that_the_recipe_does_not_use_can_be_scored(
    run_dir: RunDir, tmp_path: Path
) -> None:
    unseen = tiny.write_jsonl(tmp_path / "unseen.jsonl", tiny.rows(2, seed=8))
    scores, file = evaluate_run(
        run_dir.path,
        split="un/seen",
        overrides=[f'data.source.json.files."un/seen"={unseen}'],
    )
    assert file == run_dir.path / "scores-un_seen.json"
    assert (scores.split, scores.num_rows) == ("un/seen", 2)
    assert scores.samples[0]["reference"] == tiny.rows(2, seed=8)[0]["summary"]


def test_a_run_that_trained_nothing_is_refused(tmp_path: Path, run_dir: RunDir) -> None:
    with pytest.raises(ArtefactError, match="is not a run directory"):
        evaluate_run(tmp_path)
    shutil.rmtree(run_dir.adapter)
    with pytest.raises(ArtefactError, match="holds no trained weights yet") as caught:
        evaluate_run(run_dir.path)
    assert caught.value.hint == f"peftkit run {run_dir.path}"


def test_a_whole_model_is_compared_with_the_base_it_came_from(
    tmp_path: Path, tiny_model: Path, tiny_run: Path
) -> None:
    rows = tiny_run.parent / "rows.jsonl"
    sft = {**SFT, "learning_rate": 0.01}
    recipe = write_recipe(
        tmp_path / "full.json", tiny_model, rows, sft=sft, adapter="full", evaluate=True
    )
    overrides = ("evaluate.limit=4", "evaluate.generation.max_new_tokens=12")
    run_dir = train(recipe, tmp_path / "full", *overrides)
    full, lora = (
        json.loads((path / "scores.json").read_text()) for path in (run_dir.path, tiny_run)
    )
    assert full["base"] == pytest.approx(lora["base"], rel=1e-5)
    assert full["tuned"]["perplexity"] != pytest.approx(full["base"]["perplexity"], rel=1e-3)


def test_running_text_is_scored_in_bits_per_byte(tmp_path: Path, tiny_model: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    texts = [" ".join(tiny.WORDS[:20]), "sort keys by name ; café" * 4]
    rows = tiny.write_jsonl(tmp_path / "rows.jsonl", [{"text": text} for text in texts])
    recipe = write_recipe(
        tmp_path / "text.json",
        tiny_model,
        rows,
        sft={**SFT, "learning_rate": 1e-9},
        data={
            "source": {"json": {"files": {"train": str(rows), "test": str(rows)}}},
            "splits": {"train": "train", "test": "test"},
            "task": {"text": {}},
        },
        evaluate=True,
    )
    found = json.loads((train(recipe, tmp_path / "run").path / "scores.json").read_text())

    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    model = AutoModelForCausalLM.from_pretrained(tiny_model).eval()
    bits, num_bytes = 0.0, 0
    for text in texts:
        ids = torch.tensor([[*tokenizer(text)["input_ids"], tokenizer.eos_token_id]])
        with torch.no_grad():
            logits = model(ids).logits[0, :-1].double()
        losses = torch.nn.functional.cross_entropy(logits, ids[0, 1:], reduction="none")
        bits += float(losses.sum()) / math.log(2)
        num_bytes += len(text.encode()) - len(tokenizer.decode(ids[0, :1]).encode())
    assert found["base"]["bits_per_byte"] == pytest.approx(bits / num_bytes, rel=1e-5)
    assert found["headline"] == "bits_per_byte"
    assert found["baselines"] == {}


def _contestant(values: list[float]) -> Contestant:
    return Contestant({"m": float(np.mean(values))}, tuple("a" for _ in values), 0)


def test_the_interval_is_that_of_a_mean_and_pairs_the_rows() -> None:
    source = np.random.default_rng(1)
    base = source.random(400)
    tuned = base + 0.1 + 0.01 * source.standard_normal(400)
    scores = {"base": list(base), "tuned": list(tuned)}
    contestants = {name: _contestant(values) for name, values in scores.items()}
    found = _intervals("m", contestants, scores)
    assert found is not None
    # Against the normal approximation of a mean's error
    for bounds, values in ((found.tuned, tuned), (found.gain, tuned - base)):
        error = 1.96 * np.std(values) / math.sqrt(len(values))
        assert bounds == pytest.approx(
            (np.mean(values) - error, np.mean(values) + error), abs=error / 4
        )
    # Paired: the gain is known far better than either score.
    assert found.gain[1] - found.gain[0] < (found.tuned[1] - found.tuned[0]) / 10
    assert found.base[0] < found.tuned[0] - 0.09


def test_where_there_is_no_base_the_gain_is_over_the_best_baseline() -> None:
    tuned, rival = [1.0, 1.0, 1.0, 0.0], [0.0, 1.0, 0.0, 0.0]
    found = _intervals("m", {"tuned": _contestant(tuned)}, {"tuned": tuned}, ("first", rival))
    assert found is not None
    assert (found.base, found.over) == (None, "first")
    assert found.gain is not None
    (said, zero) = _gain(found)
    assert said.startswith("The gain in m over first is 0.000 to 1.000")
    assert "holds zero" in zero
    better = _intervals("m", {"tuned": _contestant(tuned)}, {"tuned": tuned}, ("none", [-1.0] * 4))
    assert len(list(_gain(better))) == 1
    assert list(_too_few(29)) == [
        "29 rows are too few to tell one model from another: chance alone moves such scores."
    ]
    assert list(_too_few(30)) == []


def test_a_score_of_the_whole_corpus_has_no_interval_of_rows() -> None:
    scores = {"tuned": [0.1, 0.5]}
    corpus = {"tuned": Contestant({"m": 0.2}, ("a", "b"), 0)}
    assert _intervals("m", corpus, scores) is None
    assert _intervals("m", {"tuned": _contestant([0.1])}, {"tuned": [0.1]}) is None


class Preferring(Method):
    """Prefer one text to another, and say by how much; nothing is answered."""

    Config = None
    kind = PRETRAINING
    examples = (Text,)
    max_length = None

    def encode(self, examples, tokenizer):
        return [[{"input_ids": tokenizer(one.text)["input_ids"]}] for one in examples]

    def evaluator(self, scoring):
        return Margins(scoring)


@dataclass(frozen=True)
class Judged(Contestant):
    """Hold a margin for each pair."""

    margins: tuple[float, ...] = ()


class Margins(Evaluator):
    """Take the length of a row for the margin of a pair, and its half for that of the base."""

    notes = ("Margins are in tokens.",)

    def __init__(self, scoring):
        super().__init__(scoring)
        self.headline = "margin"

    def take(self, model, name):  # noqa: ARG002
        rows = [rows[0]["input_ids"] for rows in self.scoring.rows]
        margins = tuple(len(row) / (1 if name == "tuned" else 2) for row in rows)
        return Judged({"margin": float(np.mean(margins)), "accuracy": 1.0}, margins=margins)

    def row_scores(self, one):
        return list(one.margins)


def test_a_method_may_score_without_answers_and_references(
    tiny_run: Path, tiny_model: Path
) -> None:
    from peftkit.training.open_run import load_tuned, open_run

    run = open_run(RunDir(tiny_run))
    texts = [Text("sort keys"), Text("read a file from disk")]
    lengths = [len(run.tokenizer(one.text)["input_ids"]) for one in texts]
    prepared: Any = SimpleNamespace(examples={"test": texts}, rows={"test": [{}, {}]})
    built = replace(run.built, method=Preferring())
    found = evaluate(built, prepared, load_tuned(run), run.tokenizer, split="test")
    assert found.tuned == {"margin": np.mean(lengths), "accuracy": 1.0}
    assert found.base["margin"] == np.mean(lengths) / 2
    assert (found.headline, found.num_rows) == ("margin", 2)
    assert (found.baselines, found.samples, found.generation) == ({}, (), {})
    assert found.intervals is not None
    assert found.intervals.tuned == (min(lengths), max(lengths))
    assert "Margins are in tokens." in found.notes
    assert any(note.startswith("The gain in Margin is ") for note in found.notes)
