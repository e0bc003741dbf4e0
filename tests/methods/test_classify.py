"""Classifiers train as with plain transformers and peft, and go through every verb."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
import tiny
import tiny_heads
import torch
from training_fixture import losses

from peftkit.errors import ArtefactError, DataError, RecipeError, UsageError
from peftkit.rundir.paths import RunDir

pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")

ROWS = tiny_heads.pairs(14)
TASK = {"classify": {"text": "text", "second": "second", "label": "label", "positive": "same"}}
RATINGS = [0.5 + at / 4 for at in range(14)]
ALONE = {"classify": {"text": "text", "label": "label"}}


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bert")
    return tiny_heads.save(folder, tiny_heads.BERT, "AutoModelForPreTraining")


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory, bert: Path) -> Path:
    folder = tmp_path_factory.mktemp("recipe")
    return tiny_heads.recipe(folder, bert, ROWS, {"classify": tiny_heads.CLASSIFY}, TASK)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, recipe: Path) -> RunDir:
    return tiny_heads.train(tmp_path_factory.mktemp("run") / "run", recipe)


@pytest.fixture(scope="module")
def decoder_run(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> RunDir:
    """Return a run of a decoder on an nf4 base, one text a row."""
    folder = tmp_path_factory.mktemp("decoder")
    quantize = {"bitsandbytes": {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}}
    made = tiny_heads.recipe(
        folder, tiny_model, ROWS, {"classify": tiny_heads.CLASSIFY}, ALONE,
        model={"path": str(tiny_model), "dtype": "float32", "quantize": quantize},
    )  # fmt: skip
    return tiny_heads.train(folder / "run", made)


def plain_losses(
    base: Path, out: Path, labels: list[int] | list[float], weights: list[float] | None = None
) -> list[float]:
    """Train with plain transformers and peft alone; return the loss of each step."""
    from datasets import Dataset
    from peft import LoraConfig, get_peft_model
    from transformers import (
        AutoModelForSequenceClassification,
        AutoTokenizer,
        DataCollatorWithPadding,
        Trainer,
        TrainingArguments,
        set_seed,
    )

    class Weighted(Trainer):
        def compute_loss(self, model, inputs, **_):
            loss = torch.nn.CrossEntropyLoss(weight=torch.tensor(weights))
            return loss(model(**{**inputs, "labels": None}).logits, inputs["labels"])

    own = ("max_length", "save_steps", "save_total_limit")
    options = {key: value for key, value in tiny_heads.CLASSIFY.items() if key not in own}
    tokenizer = AutoTokenizer.from_pretrained(base)
    rows = tokenizer([row["text"] for row in ROWS], [row["second"] for row in ROWS])
    rows["labels"] = labels
    set_seed(options["seed"])
    model = AutoModelForSequenceClassification.from_pretrained(
        base, dtype=torch.float32, num_labels=2 if isinstance(labels[0], int) else 1
    )
    set_seed(options["seed"])
    model = get_peft_model(model, LoraConfig(task_type="SEQ_CLS", **tiny_heads.LORA))
    trainer = (Weighted if weights else Trainer)(
        model=model,
        args=TrainingArguments(
            output_dir=str(out), use_cpu=True, save_strategy="no", disable_tqdm=True,
            dataloader_pin_memory=False, **options,
        ),
        train_dataset=Dataset.from_dict(dict(rows)),
        data_collator=DataCollatorWithPadding(tokenizer),
        processing_class=tokenizer,
    )  # fmt: skip
    trainer.train()
    return [line["loss"] for line in trainer.state.log_history if "loss" in line]


def test_losses_are_plain_transformers_to_the_bit(run: RunDir, bert: Path, tmp_path: Path) -> None:
    assert losses(run) == plain_losses(bert, tmp_path, [int(r["label"] == "same") for r in ROWS])


def test_weighted_losses_are_torch_s_own(recipe: Path, bert: Path, tmp_path: Path) -> None:
    weighed = tiny_heads.train(
        tmp_path / "run", recipe, "method.classify.class_weights={same: 3.0}", "evaluate=false"
    )
    labels = [int(row["label"] == "same") for row in ROWS]
    assert losses(weighed) == plain_losses(bert, tmp_path, labels, [1.0, 3.0])
    data = json.loads(weighed.data.read_text())
    assert data["splits"]["train"]["weights"] == {"other": 1.0, "same": 3.0}
    assert "Weight of same" in weighed.report.read_text()


@pytest.fixture(scope="module")
def regression(tmp_path_factory: pytest.TempPathFactory, bert: Path) -> RunDir:
    folder = tmp_path_factory.mktemp("regression")
    task = {"regress": {"text": "text", "second": "second", "label": "label"}}
    rated = [{**row, "label": RATINGS[at]} for at, row in enumerate(ROWS)]
    made = tiny_heads.recipe(folder, bert, rated, {"classify": tiny_heads.CLASSIFY}, task)
    return tiny_heads.train(folder / "run", made)


def test_a_regression_is_plain_transformers_to_the_bit(
    regression: RunDir, bert: Path, tmp_path: Path
) -> None:
    assert losses(regression) == plain_losses(bert, tmp_path, RATINGS)
    scores = json.loads(regression.scores.read_text())
    assert set(scores["tuned"]) == {"pearson", "spearman", "mse"}
    mean = sum(RATINGS) / len(RATINGS)
    wanted = sum((value - mean) ** 2 for value in RATINGS[:6]) / 6
    assert scores["baselines"]["mean_of_train"]["mse"] == pytest.approx(wanted, rel=1e-4)


def test_a_regression_answers_and_merges_as_plain_transformers_loads_it(
    regression: RunDir, tmp_path: Path
) -> None:
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    from peftkit.generate import answer_file, open_answerer, read_questions
    from peftkit.merge import merge

    answerer = open_answerer(regression.path)
    asked = [{"text": row["text"], "second": row["second"]} for row in ROWS[:2]]
    file = tiny.write_jsonl(tmp_path / "asked.jsonl", asked)
    out = io.StringIO()
    answer_file(answerer, read_questions(answerer, file), out)
    found = [json.loads(line)["predicted"] for line in out.getvalue().splitlines()]
    merge(regression.path, out=tmp_path / "merged", verify=True)
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "merged").eval()
    assert model.config.num_labels == 1
    assert model.config.problem_type == "regression"
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "merged")
    for row, number in zip(asked, found, strict=True):
        with torch.no_grad():
            logits = model(**tokenizer(row["text"], row["second"], return_tensors="pt")).logits
        assert logits.item() == pytest.approx(number, abs=1e-5)


def test_a_run_resumes_to_the_bit(run: RunDir, recipe: Path, tmp_path: Path) -> None:
    tiny_heads.assert_resumes(run, recipe, tmp_path / "part")


def test_plain_peft_loads_the_adapter_with_its_head_and_predicts_alike(
    run: RunDir, bert: Path
) -> None:
    from peft import PeftModel
    from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer

    adapter = json.loads((run.adapter / "adapter_config.json").read_text())
    assert adapter["task_type"] == "SEQ_CLS"
    assert "classifier" in adapter["modules_to_save"]
    config = AutoConfig.from_pretrained(run.adapter)
    assert config.id2label == {0: "other", 1: "same"}
    assert config.label2id == {"other": 0, "same": 1}
    base = AutoModelForSequenceClassification.from_pretrained(bert, config=config)
    model = PeftModel.from_pretrained(base, run.adapter).eval()
    tokenizer = AutoTokenizer.from_pretrained(run.adapter)
    samples = [json.loads(line) for line in run.samples.read_text().splitlines()]
    assert len(samples) == 6
    for sample, row in zip(samples, ROWS, strict=False):
        assert sample["texts"] == [row["text"], row["second"]]
        assert sample["reference"] == row["label"]
        with torch.no_grad():
            logits = model(**tokenizer(row["text"], row["second"], return_tensors="pt")).logits
        shares = logits.double().softmax(-1)[0]
        assert sample["tuned"] == config.id2label[int(shares.argmax())]
        assert sample["probability"] == pytest.approx(float(shares.max()), abs=1e-6)


def test_the_card_s_own_lines_load_the_classifier(run: RunDir) -> None:
    card = (run.adapter / "README.md").read_text()
    usage = card.split("```python\n")[1].split("```")[0].replace("THIS FOLDER", str(run.adapter))
    usage = usage.replace("THE BASE", run.read_resolved()["model"]["path"])
    loaded: dict = {}
    exec(usage, loaded)  # noqa: S102 - what our own card says
    assert loaded["model"].config.id2label == {0: "other", 1: "same"}
    assert "pipeline_tag: text-classification" in card


def test_scores_have_no_base_and_the_most_frequent_label_beside(run: RunDir) -> None:
    scores = json.loads(run.scores.read_text())
    assert scores["base"] == {}
    assert scores["headline"] == "accuracy"
    assert set(scores["tuned"]) == {"accuracy", "macro_f1", "f1", "matthews"}
    assert scores["baselines"]["most_frequent"]["accuracy"] == 0.5
    assert scores["notes"][0].startswith("6 rows are too few to tell one model from another")
    assert any("its classification head is new" in note for note in scores["notes"])
    assert any("over most frequent is" in note for note in scores["notes"])
    assert scores["intervals"]["over"] == "most_frequent"
    samples = [json.loads(line) for line in run.samples.read_text().splitlines()]
    confusion = [
        [sum((one["reference"], one["tuned"]) == (right, given) for one in samples)
         for given in ("other", "same")] for right in ("other", "same")
    ]  # fmt: skip
    assert scores["by_label"]["tuned"]["confusion"] == confusion
    assert '<th scope="col">given same</th>' in run.report.read_text()
    report = run.report.read_text()
    assert "Accuracy" in report
    assert "Most frequent" in report
    assert "% sure" in report
    assert "<h3>Base</h3>" not in report
    assert "(nothing)" not in report
    assert "label other for" in report
    assert '<tr><th scope="row">Label same</th><td class="number">7</td>' in report
    assert "Share trained" not in report
    assert "cross-entropy of the labels" in report
    assert "All of them are read, and the label is learnt." in report
    assert "rained tokens" not in report.replace("untrained tokens", "")


def test_the_audit_counts_labels(run: RunDir) -> None:
    data = json.loads(run.data.read_text())
    assert data["splits"]["train"]["labels"] == {"other": 7, "same": 7}
    assert data["mask_samples"]["train"][0]["label"] == "other"


def test_a_run_names_labels_of_files_and_of_pairs_in_files_alone(run: RunDir, tmp_path: Path):
    from peftkit.generate import answer_file, open_answerer, read_questions
    from peftkit.scoring.prompts import question_of_text

    labeler = open_answerer(run.path)
    file = tiny.write_jsonl(tmp_path / "asked.jsonl", [{**ROWS[0], "label": None}, ROWS[1]])
    out = io.StringIO()
    answer_file(labeler, read_questions(labeler, file), out)
    lines = [json.loads(line) for line in out.getvalue().splitlines()]
    samples = [json.loads(line) for line in run.samples.read_text().splitlines()]
    for line, sample in zip(lines, samples, strict=False):
        assert (
            line["predicted"]
            == sample["tuned"]
            == max(line["probabilities"], key=line["probabilities"].get)
        )
        assert sum(line["probabilities"].values()) == pytest.approx(1, abs=1e-6)
    with pytest.raises(UsageError, match="several columns at once"):
        question_of_text(labeler.task, "sort")
    with pytest.raises(UsageError, match="the base knows no labels"):
        open_answerer(run.path, untrained=True)
    with pytest.raises(UsageError, match="generates nothing"):
        open_answerer(run.path, options=["max_new_tokens=3"])


def test_a_decoder_on_nf4_trains_its_head_whole(decoder_run: RunDir) -> None:
    from peftkit.generate import open_answerer
    from peftkit.scoring.classifier import LabelAnswerer
    from peftkit.scoring.prompts import question_of_text

    resolved = decoder_run.resolved.read_text()
    assert "llm_int8_skip_modules" in resolved
    assert losses(decoder_run)[-1] < losses(decoder_run)[0]
    labeler = open_answerer(decoder_run.path)
    assert isinstance(labeler, LabelAnswerer)
    assert labeler.model.config.pad_token_id == labeler.tokenizer.pad_token_id
    questions = [question_of_text(labeler.task, row["text"]) for row in ROWS[:3]]
    together = labeler.label_many(questions)
    for question, found in zip(questions, together, strict=True):
        (alone,) = labeler.label_many([question])
        assert alone.probabilities == pytest.approx(found.probabilities, abs=1e-3)


def test_a_classifier_of_a_quantized_base_merges(decoder_run: RunDir, tmp_path: Path) -> None:
    from peftkit.merge import merge

    merged = merge(decoder_run.path, out=tmp_path / "merged", onto="dequantized", verify=True)
    assert merged.verification is not None
    assert merged.quantized_logits is not None
    assert merged.quantized_logits.max_difference < 1e-5


@pytest.mark.parametrize("adapter", ["full", {"vera": {"r": 8, "target_modules": ["query"]}}])
def test_other_adapters_train_and_are_found_again(adapter, recipe: Path, tmp_path: Path) -> None:
    from peftkit.generate import open_answerer

    document = {**json.loads(recipe.read_text()), "adapter": adapter}
    file = tmp_path / "r.json"
    file.write_text(json.dumps(document))
    trained = tiny_heads.train(tmp_path / "run", file)
    labeler = open_answerer(trained.path)
    assert labeler.model.config.id2label == {0: "other", 1: "same"}


def test_training_goes_on_with_the_same_labels_alone(run: RunDir, recipe: Path, tmp_path: Path):
    document = {**json.loads(recipe.read_text()), "adapter": {"from": str(run.path)}}
    file = tmp_path / "r.json"
    file.write_text(json.dumps({**document, "evaluate": False}))
    again = losses(tiny_heads.train(tmp_path / "run", file))
    assert again[0] != losses(run)[0]
    others = [{**row, "label": row["label"].upper()} for row in ROWS]
    rows = tiny.write_jsonl(tmp_path / "others.jsonl", others)
    document["data"]["source"]["json"]["files"] = str(rows)
    document["data"]["splits"] = {"train": "train"}
    document["data"]["task"]["classify"]["positive"] = "SAME"
    file.write_text(json.dumps({**document, "evaluate": False}))
    with pytest.raises(UsageError, match="for the labels other, same, and these rows have OTHER"):
        tiny_heads.train(tmp_path / "other", file)


def test_a_merged_run_is_a_classifier_with_its_labels(run: RunDir, tmp_path: Path) -> None:
    from transformers import AutoModelForSequenceClassification

    from peftkit.merge import merge

    merged = merge(run.path, out=tmp_path / "merged", verify=True)
    assert merged.verification is not None
    model, report = AutoModelForSequenceClassification.from_pretrained(
        tmp_path / "merged", output_loading_info=True
    )
    assert model.config.id2label == {0: "other", 1: "same"}
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]


def headless_lora(base: Path, folder: Path) -> Path:
    """Save a LoRA of plain peft over a classifier that knows its labels; it names no task."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForSequenceClassification

    model = AutoModelForSequenceClassification.from_pretrained(base)
    attached = get_peft_model(model, LoraConfig(r=4, target_modules=["query", "value"]))
    torch.manual_seed(0)
    for name, parameter in attached.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_(std=0.05)
    attached.save_pretrained(folder)
    return folder


def test_training_goes_on_under_the_head_that_the_base_has(tmp_path: Path) -> None:
    from safetensors.torch import load_file
    from transformers import AutoModelForSequenceClassification

    from peftkit.evaluate import evaluate_run
    from peftkit.export import export
    from peftkit.generate import open_answerer
    from peftkit.scoring.prompts import question_of_text

    base = tiny_heads.save(tmp_path / "base", tiny_heads.BERT, "AutoModelForSequenceClassification")
    adapter = headless_lora(base, tmp_path / "adapter")
    made = tiny_heads.recipe(
        tmp_path, base, ROWS, {"classify": tiny_heads.CLASSIFY}, ALONE,
        adapter={"from": str(adapter)},
    )  # fmt: skip
    trained = tiny_heads.train(tmp_path / "run", made)
    saved = load_file(trained.adapter / "adapter_model.safetensors")
    assert all(".lora_" in name for name in saved)

    scores, _ = evaluate_run(trained.path)
    assert set(scores.base) == set(scores.tuned)
    assert not any("is new and untrained" in note for note in scores.notes)
    questions = [question_of_text(open_answerer(trained.path).task, ROWS[0]["text"])]
    (tuned,) = open_answerer(trained.path).label_many(questions)
    (before,) = open_answerer(trained.path, untrained=True).label_many(questions)
    assert tuned.probabilities != before.probabilities
    native = AutoModelForSequenceClassification.from_pretrained(base).eval().requires_grad_(False)
    ids = open_answerer(trained.path).tokenizer(ROWS[0]["text"], return_tensors="pt")
    wanted = native(**ids).logits.softmax(-1)[0]
    assert before.probabilities["same"] == pytest.approx(float(wanted[1]), abs=1e-6)

    exported = export(trained.path, "safetensors", out=tmp_path / "exported")
    assert all(proof.holds for proof in exported.proofs)
    merged = AutoModelForSequenceClassification.from_pretrained(tmp_path / "exported")
    merged.eval().requires_grad_(False)
    assert merged.config.id2label == {0: "other", 1: "same"}
    found = merged(**ids).logits.softmax(-1)[0]
    assert tuned.probabilities["same"] == pytest.approx(float(found[1]), abs=1e-5)


def test_a_head_that_neither_base_nor_adapter_has_is_refused(bert: Path, tmp_path: Path) -> None:
    adapter = headless_lora(bert, tmp_path / "adapter")
    made = tiny_heads.recipe(
        tmp_path, bert, ROWS, {"classify": tiny_heads.CLASSIFY}, ALONE,
        adapter={"from": str(adapter)},
    )  # fmt: skip
    with pytest.raises(
        ArtefactError, match=r"missing classifier\.bias; missing classifier\.weight"
    ):
        tiny_heads.train(tmp_path / "run", made)


@pytest.mark.parametrize("config", [tiny_heads.BART, tiny_heads.T5], ids=["bart", "t5"])
def test_a_classifier_over_an_encoder_decoder_merges(config: dict, tmp_path: Path) -> None:
    import torch
    from peft import LoraConfig
    from transformers import AutoModelForSequenceClassification

    from peftkit.adapters.peft_types import Lora
    from peftkit.merge import merge

    base = tiny_heads.save(tmp_path / "base", config, "AutoModelForSeq2SeqLM")
    names = {0: "other", 1: "same"}
    loaded = AutoModelForSequenceClassification.from_pretrained(base, id2label=names)
    model = Lora(LoraConfig(r=2, target_modules="all-linear")).attach(loaded).eval()
    torch.manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.1)
    adapter = tmp_path / "adapter"
    model.save_pretrained(adapter)
    loaded.config.save_pretrained(adapter)  # the labels, as a run saves them
    tiny_heads.closed_tokenizer(adapter)
    merged = merge(adapter, base=str(base), out=tmp_path / "merged", verify=True)
    assert merged.verification is not None
    ids = torch.tensor([[5, 6, 7, 0]])
    found = AutoModelForSequenceClassification.from_pretrained(tmp_path / "merged").eval()
    torch.testing.assert_close(found(ids).logits, model(ids).logits, rtol=1e-4, atol=1e-5)


def test_a_head_that_peft_does_not_know_by_name_is_trained_whole(tmp_path: Path) -> None:
    from transformers import BartConfig, BartForSequenceClassification

    from peftkit.adapters.peft_types import Lora

    config = {key: value for key, value in tiny_heads.BART.items() if key != "model_type"}
    base = BartForSequenceClassification(BartConfig(**config))
    from peft import LoraConfig

    model = Lora(LoraConfig(r=2, target_modules=["q_proj"])).attach(base)
    head = [p for n, p in model.named_parameters() if "classification_head.modules_to_save" in n]
    assert len(head) == 4
    assert all(parameter.requires_grad for parameter in head)


def test_a_file_s_own_label_names_hold_and_an_unseen_one_is_named(bert: Path, tmp_path: Path):
    from datasets import ClassLabel, Dataset, Features, Value

    from peftkit.data import show_data
    from peftkit.recipe.load import load_recipe

    features = Features({"text": Value("string"), "label": ClassLabel(names=["spam", "ham"])})
    rows = {"text": [f"text {at}" for at in range(8)], "label": [0, 1] * 4}
    file = tmp_path / "rows.parquet"
    Dataset.from_dict(rows, features=features).to_parquet(file)
    made = tiny_heads.recipe(tmp_path, bert, ROWS, {"classify": tiny_heads.CLASSIFY}, ALONE)
    override = f"data.source={{parquet: {{files: {{train: {file}, test: {file}}}}}}}"
    view = show_data(load_recipe(made, [override]), num_rows=1)
    assert list(view.audit["train"].labels) == ["spam", "ham"]
    assert view.rows["test"][0].label == "spam"
    unseen = tiny.write_jsonl(tmp_path / "unseen.jsonl", [*ROWS, {**ROWS[0], "label": "third"}])
    document = json.loads(made.read_text())
    document["data"]["source"]["json"]["files"]["test"] = str(unseen)
    made.write_text(json.dumps(document))
    with pytest.raises(DataError, match="row 14 of test has the label 'third', which no row of"):
        show_data(load_recipe(made))


def test_wrong_labels_and_tasks_are_refused_by_name(recipe: Path, bert: Path, tmp_path: Path):
    from peftkit.recipe.load import load_recipe

    with pytest.raises(RecipeError, match="makes Conversation examples, classify trains on Label"):
        load_recipe(recipe, ["data.task={summarize: {document: text, summary: second}}"])
    floats = [{**row, "label": 0.5} for row in ROWS]
    made = tiny_heads.recipe(tmp_path, bert, floats, {"classify": tiny_heads.CLASSIFY}, TASK)
    with pytest.raises(DataError, match=r"a number with a fraction.*regress predicts"):
        tiny_heads.train(tmp_path / "run", made)


def test_the_conformance_checks_hold(tmp_path: Path) -> None:
    from peftkit.methods.classify import Classify
    from peftkit.plugins.examples import Labeled
    from peftkit.testing import check_method

    tokenizer = tiny_heads.closed_tokenizer(tmp_path)
    check_method(Classify, {"max_length": 4}, tokenizer, [Labeled(("sort keys", "read"), "a", 0)])
