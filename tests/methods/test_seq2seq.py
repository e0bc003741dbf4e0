"""Encoder-decoders train as with plain transformers and peft, and go through every verb."""

from __future__ import annotations

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

ROWS = tiny.rows(9)
TASK = {"summarize": {}}


@pytest.fixture(scope="module")
def t5(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_heads.save(tmp_path_factory.mktemp("t5"), tiny_heads.T5, "AutoModelForSeq2SeqLM")


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory, t5: Path) -> Path:
    folder = tmp_path_factory.mktemp("recipe")
    return tiny_heads.recipe(folder, t5, ROWS, {"seq2seq": tiny_heads.SEQ2SEQ}, TASK)


PLAIN = "speed.fused_adapter=off"
"""PEFT's own layers, which plain scripts have."""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, recipe: Path) -> RunDir:
    return tiny_heads.train(tmp_path_factory.mktemp("run") / "run", recipe, PLAIN)


def plain_losses(base: Path, out: Path, *, smoothing: float = 0.0) -> list[float]:
    """Train with plain transformers and peft alone; return the loss of each step."""
    from datasets import Dataset
    from peft import LoraConfig, get_peft_model
    from transformers import (
        AutoModelForSeq2SeqLM,
        AutoTokenizer,
        DataCollatorForSeq2Seq,
        Seq2SeqTrainer,
        Seq2SeqTrainingArguments,
        set_seed,
    )

    own = ("max_source_length", "max_target_length", "save_steps", "save_total_limit")
    options = {key: value for key, value in tiny_heads.SEQ2SEQ.items() if key not in own}
    tokenizer = AutoTokenizer.from_pretrained(base)
    sources = tokenizer(["Summarize the text.\n\n" + row["document"] for row in ROWS])
    targets = tokenizer(text_target=[row["summary"] for row in ROWS])
    rows = {"input_ids": sources["input_ids"], "labels": targets["input_ids"]}
    set_seed(options["seed"])
    model = AutoModelForSeq2SeqLM.from_pretrained(base, dtype=torch.float32)
    set_seed(options["seed"])
    model = get_peft_model(model, LoraConfig(task_type="SEQ_2_SEQ_LM", **tiny_heads.LORA))
    trainer = Seq2SeqTrainer(
        model=model,
        args=Seq2SeqTrainingArguments(
            output_dir=str(out), use_cpu=True, save_strategy="no", disable_tqdm=True,
            label_smoothing_factor=smoothing, dataloader_pin_memory=False, **options,
        ),
        train_dataset=Dataset.from_dict(rows),
        data_collator=DataCollatorForSeq2Seq(tokenizer, model=model),
        processing_class=tokenizer,
    )  # fmt: skip
    trainer.train()
    return [line["loss"] for line in trainer.state.log_history if "loss" in line]


def test_losses_are_plain_transformers_to_the_bit(run: RunDir, t5: Path, tmp_path: Path) -> None:
    assert losses(run) == plain_losses(t5, tmp_path)


def test_label_smoothing_is_the_trainer_s(
    run: RunDir, recipe: Path, t5: Path, tmp_path: Path
) -> None:
    overrides = ("method.seq2seq.label_smoothing_factor=0.1", "evaluate=false", PLAIN)
    smoothed = losses(tiny_heads.train(tmp_path / "run", recipe, *overrides))
    assert smoothed == plain_losses(t5, tmp_path / "plain", smoothing=0.1)
    assert smoothed != losses(run)


def test_a_run_resumes_to_the_bit(run: RunDir, recipe: Path, tmp_path: Path) -> None:
    tiny_heads.assert_resumes(run, recipe, tmp_path / "part", PLAIN)


def test_plain_peft_loads_the_adapter_and_scores_what_was_scored(run: RunDir, t5: Path) -> None:
    from peft import AutoPeftModelForSeq2SeqLM
    from transformers import AutoTokenizer

    config = json.loads((run.adapter / "adapter_config.json").read_text())
    assert config["task_type"] == "SEQ_2_SEQ_LM"
    model = AutoPeftModelForSeq2SeqLM.from_pretrained(run.adapter).eval()
    tokenizer = AutoTokenizer.from_pretrained(run.adapter)
    nats = num_tokens = 0.0
    answers = []
    for row in ROWS[:6]:
        source = tokenizer("Summarize the text.\n\n" + row["document"], return_tensors="pt")
        labels = tokenizer(text_target=row["summary"], return_tensors="pt")["input_ids"]
        inputs = {key: source[key] for key in ("input_ids", "attention_mask")}
        with torch.no_grad():
            loss = model(**inputs, labels=labels).loss
            made = model.generate(**inputs, max_new_tokens=8, do_sample=False)
        nats, num_tokens = nats + float(loss) * labels.numel(), num_tokens + labels.numel()
        answers.append(tokenizer.decode(made[0], skip_special_tokens=True).strip())
    scores = json.loads(run.scores.read_text())
    assert scores["tuned"]["perplexity"] == pytest.approx(
        torch.tensor(nats / num_tokens).exp().item(), rel=1e-4
    )
    samples = [json.loads(line) for line in run.samples.read_text().splitlines()]
    assert [sample["tuned"] for sample in samples] == answers
    assert scores["base"]["perplexity"] > scores["tuned"]["perplexity"]
    assert set(scores["baselines"]) == {"first_sentence"}


def test_a_run_answers_prompts_and_files_but_holds_no_conversation(run: RunDir) -> None:
    from peftkit.generate import Conversation, open_answerer
    from peftkit.scoring.prompts import question_of_text

    answerer = open_answerer(run.path, options=["max_new_tokens=8"])
    written: list[str] = []
    question = question_of_text(answerer.task, ROWS[0]["document"])
    reply = answerer.reply(question, written.append)
    assert "".join(written) == reply.text
    assert [found["generated"] for found in answerer.reply_many([question] * 2)] == [reply.text] * 2
    with pytest.raises(UsageError, match="holds no conversation"):
        Conversation(answerer)


def test_the_report_and_the_audit_show_both_sides(run: RunDir) -> None:
    data = json.loads(run.data.read_text())
    audit = data["splits"]["train"]
    assert audit["max_length"] == 96
    assert audit["max_target_length"] == 24
    sample = data["mask_samples"]["train"][0]
    trained = "".join(t for t, is_on in zip(*sample.values(), strict=True) if is_on)
    assert trained == ROWS[0]["summary"] + "<|endoftext|>"
    assert audit["num_trained_tokens"] < audit["num_tokens"]
    report = run.report.read_text()
    assert "Longest target" in report
    assert "Share trained" in report


@pytest.mark.parametrize("adapter", ["full", {"ia3": {}}])
def test_other_adapters_train(adapter, recipe: Path, tmp_path: Path) -> None:
    document = {**json.loads(recipe.read_text()), "adapter": adapter, "evaluate": False}
    file = tmp_path / "r.json"
    file.write_text(json.dumps(document))
    found = losses(tiny_heads.train(tmp_path / "run", file))
    assert len(found) == 4
    assert found[-1] < found[0]


def test_bart_trains_and_what_is_merged_answers_alike(tmp_path: Path) -> None:
    from peftkit.merge import merge

    base = tiny_heads.save(tmp_path, tiny_heads.BART, "AutoModelForSeq2SeqLM")
    made = tiny_heads.recipe(tmp_path, base, ROWS, {"seq2seq": tiny_heads.SEQ2SEQ}, TASK)
    trained = tiny_heads.train(tmp_path / "run", made, "method.seq2seq.max_steps=12")
    found = losses(trained)
    assert sum(found[-4:]) < sum(found[:4])
    merged = merge(trained.path, out=tmp_path / "merged", verify=True)
    assert merged.verification is not None


def test_a_new_t5_is_made_of_a_config_with_a_tokenizer_of_its_rows(tmp_path: Path) -> None:
    from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

    own = ("vocab_size", "pad_token_id", "eos_token_id", "decoder_start_token_id")
    config = {key: value for key, value in tiny_heads.T5.items() if key not in own}
    model = {"config": config, "tokenizer": {"bpe": {"vocab_size": 300}}, "dtype": "float32"}
    made = tiny_heads.recipe(
        tmp_path, tmp_path, ROWS, {"seq2seq": tiny_heads.SEQ2SEQ}, TASK,
        model=model, adapter="full", evaluate=False,
    )  # fmt: skip
    trained = tiny_heads.train(tmp_path / "run", made)
    tokenizer = AutoTokenizer.from_pretrained(trained.model)
    built = AutoModelForSeq2SeqLM.from_pretrained(trained.model).config
    assert tokenizer.convert_ids_to_tokens(tokenizer("Größe 日本")["input_ids"])[-1] == "</s>"
    assert tokenizer.decode(tokenizer("Größe 日本")["input_ids"][:-1]) == "Größe 日本"
    assert (built.vocab_size, built.eos_token_id) == (300, tokenizer.eos_token_id)
    assert built.decoder_start_token_id == built.pad_token_id == tokenizer.pad_token_id


def test_a_base_whose_config_switches_the_cache_off_is_planned(tmp_path: Path) -> None:
    config = {**tiny_heads.T5, "use_cache": False}  # as transformers' Trainer leaves it
    base = tiny_heads.save(tmp_path, config, "AutoModelForSeq2SeqLM")
    made = tiny_heads.recipe(tmp_path, base, ROWS, {"seq2seq": tiny_heads.SEQ2SEQ}, TASK)
    assert tiny_heads.train(tmp_path / "run", made, "method.seq2seq.max_steps=1").scores.is_file()


def test_owned_keys_and_other_examples_are_refused(recipe: Path, tmp_path: Path) -> None:
    from peftkit.recipe.load import load_recipe

    with pytest.raises(RecipeError, match=r"predict_with_generate.*evaluate.generation"):
        load_recipe(recipe, ["method.seq2seq.predict_with_generate=true"])
    with pytest.raises(RecipeError, match="makes Text examples, seq2seq trains on Conversation"):
        load_recipe(recipe, ["data.task={text: {text: document}}"])
    turns = [{"role": role, "content": "sort"} for role in ("user", "assistant") * 2]
    chat = tiny_heads.recipe(
        tmp_path, Path(json.loads(recipe.read_text())["model"]["path"]),
        [{"messages": turns}] * 3, {"seq2seq": tiny_heads.SEQ2SEQ}, {"chat": {}},
    )  # fmt: skip
    with pytest.raises(DataError, match="several turns, and an encoder-decoder reads one"):
        tiny_heads.train(tmp_path / "run", chat)


def test_what_is_too_long_is_named_side_by_side(recipe: Path, tmp_path: Path) -> None:
    overrides = ("method.seq2seq.max_source_length=20", "method.seq2seq.max_target_length=4")
    with pytest.raises(DataError) as caught:
        tiny_heads.train(tmp_path / "run", recipe, *overrides)
    text = str(caught.value)
    assert "9 of 9 sources are longer than method.seq2seq.max_source_length 20" in text
    assert "9 of 9 targets are longer than method.seq2seq.max_target_length 4" in text


def test_the_conformance_checks_hold(tmp_path: Path) -> None:
    from peftkit.methods.seq2seq import Seq2Seq
    from peftkit.plugins.examples import Conversation
    from peftkit.testing import check_method

    tokenizer = tiny_heads.closed_tokenizer(tmp_path)
    turns = [{"role": "user", "content": "sort"}, {"role": "assistant", "content": "keys"}]
    options = {"max_source_length": 2, "max_target_length": 2}
    check_method(Seq2Seq, options, tokenizer, [Conversation(tuple(turns))])
