"""BERT's pretraining trains as plain transformers does, resumes to the bit, refuses by name."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import tiny
import training_fixture

from peftkit.errors import DataError, UsageError
from peftkit.methods.pretrain_bert import PretrainBert, PretrainMLM
from peftkit.plugins import Text
from peftkit.rundir.paths import RunDir

TEXTS = [" ".join(tiny.WORDS[i:] + tiny.WORDS[:i]) + f". Then return {i}." for i in range(24)]
SIZES = {
    "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32,
    "max_position_embeddings": 48,
}  # fmt: skip
OPTIONS = {
    "max_length": 48, "max_steps": 4, "per_device_train_batch_size": 4, "learning_rate": 1e-2,
    "logging_steps": 1, "save_steps": 1, "save_total_limit": 4, "seed": 3, "muon": True,
}  # fmt: skip


def write_recipe(folder: Path, *, method="pretrain_bert", model_type="bert", **sections) -> Path:
    rows = tiny.write_jsonl(folder / "rows.jsonl", [{"text": text} for text in TEXTS])
    recipe = {
        "name": "small",
        "model": {
            "config": {"model_type": model_type, **SIZES},
            "tokenizer": {"wordpiece": {"vocab_size": 150}},
            "dtype": "float32",
        },
        "data": {
            "source": {"json": {"files": {"train": str(rows), "test": str(rows)}}},
            "splits": {"train": "train", "test": "test"},
            "task": {"text": {"text": "text"}},
        },
        "adapter": "full",
        "method": {method: OPTIONS},
        "evaluate": {"split": "test", "batch_size": 8},
        **sections,
    }
    file = folder / "recipe.json"
    file.write_text(json.dumps(recipe), encoding="utf-8")
    return file


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, RunDir]:
    folder = tmp_path_factory.mktemp("bert")
    made = write_recipe(folder)
    return made, training_fixture.train(made, folder / "run")


def test_both_losses_are_logged_and_add_up_and_both_accuracies_scored(trained) -> None:
    _, run = trained
    lines = [json.loads(line) for line in run.metrics.read_text().splitlines()]
    assert len(lines) == 4
    for line in lines:
        assert line["mlm_loss"] + line["nsp_loss"] == pytest.approx(line["loss"], rel=1e-4)
        assert 0 <= line["nsp_accuracy"] <= 1
    scores = json.loads(run.scores.read_text())
    assert set(scores["tuned"]) == {"mlm_accuracy", "mlm_loss", "nsp_accuracy", "nsp_loss"}
    assert scores["headline"] == "mlm_accuracy"
    assert any("by their frequency alone" in note for note in scores["notes"])
    assert any("pairs are random" in note for note in scores["notes"])


def test_the_model_is_plain_transformers_and_its_scores_are_computed_there(trained) -> None:
    import torch
    from transformers import AutoModelForPreTraining, AutoTokenizer, BertForPreTraining

    from peftkit.methods.masked_head import MaskedBatches

    _, run = trained
    model = AutoModelForPreTraining.from_pretrained(run.model).eval()
    assert type(model) is BertForPreTraining
    tokenizer = AutoTokenizer.from_pretrained(run.model)
    rows = rows_of(tokenizer)
    batch = MaskedBatches(0, 0.15)(rows)
    labels = torch.full_like(batch["input_ids"], -100)
    for at, row in enumerate(rows):
        labels[at, : len(row["labels"])] = torch.tensor(row["labels"])
    with torch.no_grad():
        inputs = {k: v for k, v in batch.items() if k not in ("masked_positions", "labels")}
        outputs = model(**inputs, labels=labels)
    right = outputs.prediction_logits.argmax(-1)[labels != -100] == labels[labels != -100]
    judged = outputs.seq_relationship_logits.argmax(-1) == batch["next_sentence_label"]
    found = json.loads(run.scores.read_text())["tuned"]
    assert found["mlm_accuracy"] == pytest.approx(right.float().mean().item())
    assert found["nsp_accuracy"] == pytest.approx(judged.float().mean().item())
    total = found["mlm_loss"] + found["nsp_loss"]
    assert total == pytest.approx(outputs.loss.item(), rel=1e-5)


def arguments(cls: type, **options):
    from peftkit.methods import pretrain_bert

    made = getattr(pretrain_bert, cls.Config.rpartition(":")[2])
    return made(output_dir="unused", use_cpu=True, report_to="none", **{**OPTIONS, **options})


def rows_of(tokenizer, **options) -> list[dict]:
    from datasets import Dataset

    method = PretrainBert(arguments(PretrainBert, **options))
    rows = method.encode([Text(text) for text in TEXTS], tokenizer)
    return method.arrange(Dataset.from_list([row for (row,) in rows]), tokenizer).to_list()


def test_a_stopped_run_goes_on_to_the_bit(trained, tmp_path: Path) -> None:
    made, run = trained
    part = RunDir(tmp_path / "run")
    shutil.copytree(run.path, part.path)
    training_fixture.cut_back(part, step=2)
    training_fixture.train(made, part.path)
    assert training_fixture.losses(part) == training_fixture.losses(run)
    weights = [(one.model / "model.safetensors").read_bytes() for one in (part, run)]
    assert weights[0] == weights[1]
    assert (
        json.loads(part.scores.read_text())["tuned"] == json.loads(run.scores.read_text())["tuned"]
    )


def test_accumulated_micro_batches_train_as_plain_trainer_s_mean_does(tmp_path: Path) -> None:
    import torch
    from transformers import BertConfig, BertForPreTraining

    from peftkit.methods.masked_head import MaskedBatches
    from peftkit.plugins import Training
    from peftkit.preprocessing.wordpiece import train_wordpiece
    from peftkit.sources.rows import to_dataset

    tokenizer = train_wordpiece(TEXTS, vocab_size=150, max_length=48)
    rows = rows_of(tokenizer)[:8]
    options = {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 2, "max_steps": 1}
    args = arguments(
        PretrainBert, **options, muon=False, optim="sgd", learning_rate=1.0, max_grad_norm=0.0,
        train_sampling_strategy="sequential", lr_scheduler_type="constant",
    )  # fmt: skip
    sizes = {**SIZES, "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    torch.manual_seed(0)
    model = BertForPreTraining(BertConfig(vocab_size=len(tokenizer), **sizes))
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    import pyarrow as pa

    data = to_dataset(pa.Table.from_pylist(rows))
    PretrainBert(args).trainer(Training(model, tokenizer, data, None, (), tmp_path)).train()
    after = {name: p.detach().clone() for name, p in model.named_parameters()}
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(before[name])
    model.zero_grad()
    for half in (rows[:4], rows[4:]):
        (model(**MaskedBatches(0, 0.15)(half)).loss / 2).backward()
    for name, parameter in model.named_parameters():
        wanted = before[name] - parameter.grad if parameter.grad is not None else before[name]
        torch.testing.assert_close(after[name], wanted, rtol=1e-4, atol=1e-6, msg=name)


def test_other_encoders_train_by_masked_words_alone(tmp_path: Path) -> None:
    made = write_recipe(tmp_path, method="pretrain_mlm", model_type="electra")
    run = training_fixture.train(made, tmp_path / "run", "method.pretrain_mlm.whole_word_mask=true")
    scores = json.loads(run.scores.read_text())
    assert set(scores["tuned"]) == {"mlm_accuracy", "mlm_loss"}
    assert json.loads((run.model / "config.json").read_text())["architectures"] == [
        "ElectraForMaskedLM"
    ]


def test_what_cannot_be_trained_so_is_refused_by_name(tmp_path: Path) -> None:
    from transformers import BartConfig, BertConfig, RobertaConfig

    PretrainBert(None).check_config(BertConfig())
    with pytest.raises(UsageError, match="RobertaForMaskedLM has no head") as refusal:
        PretrainBert(None).check_config(RobertaConfig())
    assert "pretrain_mlm" in refusal.value.hint
    PretrainMLM(None).check_config(RobertaConfig())
    with pytest.raises(UsageError, match="bart model is an encoder-decoder"):
        PretrainMLM(None).check_config(BartConfig())
    made = write_recipe(tmp_path, model_type="roberta")
    with pytest.raises(UsageError, match="pretrained without next sentences"):
        training_fixture.train(made, tmp_path / "run")


def test_a_contradiction_in_a_recipe_is_found_before_training(tmp_path: Path) -> None:
    from peftkit.errors import PeftkitError
    from peftkit.recipe.load import load_recipe

    bad = [
        "model.tokenizer={bpe: {vocab_size: 300}}",
        "method.pretrain_bert.mask_replace_prob=0.95",
    ]
    with pytest.raises(PeftkitError) as refusal:
        load_recipe(write_recipe(tmp_path), bad)
    assert "pretrain_bert trains a tokenizer of the kind wordpiece" in str(refusal.value)
    assert "are 1.05 of those that are predicted" in str(refusal.value)


def test_a_text_of_one_token_is_left_out_and_one_text_makes_no_pair(tmp_path: Path) -> None:
    from datasets import Dataset

    from peftkit.preprocessing.wordpiece import train_wordpiece

    tokenizer = train_wordpiece(TEXTS, vocab_size=150, max_length=48)
    method = PretrainBert(arguments(PretrainBert))
    one, short = method.encode([Text(TEXTS[0]), Text(".")], tokenizer)
    assert isinstance(short, DataError)
    with pytest.raises(DataError, match="one text only"):
        method.arrange(Dataset.from_list(one), tokenizer)


def test_arguments_are_found_by_name_and_survive_pickling() -> None:
    import pickle

    from peftkit.methods import pretrain_bert

    made = arguments(PretrainBert, short_seq_prob=0.2)
    assert type(made) is pretrain_bert.PretrainBertArguments
    assert pickle.loads(pickle.dumps(made)).short_seq_prob == 0.2  # noqa: S301 - our own bytes
    with pytest.raises(AttributeError, match="no attribute 'Arguments'"):
        pretrain_bert.Arguments  # noqa: B018
