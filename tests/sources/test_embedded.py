"""The shipped sample is complete, split by package and free of give-aways; models are found."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from peftkit import embedded
from peftkit.errors import DataError, UsageError
from peftkit.sources.embedded import EmbeddedConfig, EmbeddedSource

ROOT = Path(__file__).resolve().parents[2]
SPLITS = {"train": 3000, "validation": 200, "test": 300}


@pytest.fixture(scope="module")
def rows() -> dict[str, list[dict[str, str]]]:
    source = EmbeddedSource(EmbeddedConfig(name="docstring-summaries"))
    assert source.splits() == list(SPLITS)
    return {split: source.load(split).to_list() for split in SPLITS}


def test_sample_has_its_rows_and_columns(rows) -> None:
    assert {split: len(found) for split, found in rows.items()} == SPLITS
    for found in rows.values():
        for row in found:
            assert list(row) == ["document", "summary", "package", "name"]


def test_sample_is_good_for_summaries(rows) -> None:
    for row in (row for found in rows.values() for row in found):
        heading, _, body = row["document"].partition("\n\n")
        assert heading.startswith(row["name"])
        assert len(row["document"]) <= 700
        assert len(body.split()) >= 15
        assert 4 <= len(row["summary"].split()) <= 30
        assert row["summary"].endswith(".")
        assert "\n" not in row["summary"]
        assert row["summary"].lower()[:-1] not in " ".join(body.split()).lower()


def test_no_package_document_or_summary_is_in_two_splits(rows) -> None:
    for key in ("package", "document", "summary"):
        values = [{row[key] for row in found} for found in rows.values()]
        assert sum(map(len, values)) == len(set().union(*values))
    summaries = [row["summary"] for found in rows.values() for row in found]
    assert len(set(summaries)) == len(summaries)


def test_no_package_dominates_and_the_sample_stays_small(rows) -> None:
    for found in rows.values():
        packages = [row["package"] for row in found]
        assert max(packages.count(package) for package in packages) <= 40
    folder = embedded.dataset_path("docstring-summaries")
    assert sum(file.stat().st_size for file in folder.iterdir()) <= 2_000_000


def test_every_package_of_the_sample_is_in_the_notice(rows) -> None:
    notice = (ROOT / "NOTICE").read_text("utf-8").lower().replace("_", "-")
    packages = {row["package"] for found in rows.values() for row in found} - {"stdlib"}
    assert [name for name in sorted(packages) if f"\n{name} " not in notice] == []


def test_unknown_names_are_answered_with_the_known() -> None:
    with pytest.raises(DataError) as caught:
        EmbeddedSource(EmbeddedConfig(name="docstring-summary"))
    assert "'docstring-summaries'" in (caught.value.hint or "")
    with pytest.raises(DataError, match="no split 'dev'"):
        EmbeddedSource(EmbeddedConfig(name="docstring-summaries")).load("dev")
    with pytest.raises(UsageError) as caught:
        embedded.model_path("embedded:docstring-llm")
    assert "docstring-lm" in caught.value.hint


def test_embedded_model_is_small_and_a_plain_transformers_folder() -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = embedded.model_path("embedded:docstring-lm")
    assert folder == embedded.model_path("docstring-lm")
    assert (folder / "model.safetensors").stat().st_size <= 16_000_000
    model = AutoModelForCausalLM.from_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
    assert model.num_parameters() <= 8_000_000
    sizes = {size for p in model.parameters() for size in p.shape}
    assert [size for size in sizes if size % 32] == []
    assert model.config.vocab_size == len(tokenizer)
    assert model.config.eos_token_id == tokenizer.eos_token_id
    assert tokenizer.pad_token_id not in (None, tokenizer.eos_token_id)


def test_the_encoder_is_bert_in_float32_with_both_of_its_heads() -> None:
    import torch
    from transformers import AutoModelForPreTraining, AutoTokenizer, BertForPreTraining

    folder = embedded.model_path("docstring-bert")
    model = AutoModelForPreTraining.from_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert type(model) is BertForPreTraining
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert model.config.vocab_size == len(tokenizer)
    assert tokenizer("a", "b")["token_type_ids"] == [0, 0, 0, 1, 1]
    both = [embedded.model_path(name) for name in ("docstring-lm", "docstring-bert")]
    files = [file for place in both for file in place.iterdir()]
    assert sum(file.stat().st_size for file in files) <= 24_000_000


def test_the_encoder_reads_better_than_frequencies_and_chance_do() -> None:
    file = embedded.model_path("docstring-bert") / "receipt.json"
    scores = json.loads(file.read_text("utf-8"))["scores"]
    assert scores["num_rows"] == 1000
    assert scores["tuned"]["mlm_accuracy"] > 2 * 0.083
    assert scores["tuned"]["nsp_accuracy"] > 0.55


@pytest.mark.parametrize("name", embedded.names())
def test_receipt_belongs_to_the_weights_and_the_recipe(name: str) -> None:
    import hashlib

    from build_model import recipe_digest

    folder = embedded.model_path(name)
    receipt = json.loads((folder / "receipt.json").read_text("utf-8"))
    weights = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    assert receipt["weights_sha256"] == weights
    recipe = ROOT / f"recipes/pretrain-{name.rpartition('-')[2]}.yaml"
    assert receipt["recipe_sha256"] == recipe_digest(recipe)
    if name == "docstring-lm":
        file = ROOT / "benchmarks/results/bits_per_byte.json"
        assert json.loads(file.read_text("utf-8"))["weights_sha256"] == weights


def test_half_of_the_pairs_are_mismatched_the_same_way_every_time(rows) -> None:
    source = EmbeddedSource(EmbeddedConfig(name="docstring-summaries", mismatched=True))
    for split, originals in rows.items():
        found = source.load(split).to_list()
        assert found == source.load(split).to_list()
        assert [row["document"] for row in found] == [row["document"] for row in originals]
        own = {row["document"]: row["summary"] for row in originals}
        matches = [row["match"] for row in found]
        assert matches.count("no") == len(found) // 2
        assert set(matches) == {"yes", "no"}
        for row in found:
            assert (row["summary"] == own[row["document"]]) == (row["match"] == "yes")
            assert row["summary"] in own.values()
        # no summary gives a mismatch away by coming twice
        assert len({row["summary"] for row in found}) == len(found)


@pytest.mark.parametrize(
    ("name", "signature", "kind"),
    [
        ("a.b.Tree", "(left=None)", "class"), ("a.b._Tree", "", "class"),
        ("a.b.Tree.walk", "(order)", "method"), ("a.b.walk", "()", "function"),
        ("a.b.URL.join", "()", "function"), ("a.b", "", "module"),
    ],
)  # fmt: skip
def test_a_name_s_form_and_signature_say_what_it_is(name: str, signature: str, kind: str) -> None:
    from peftkit.sources.embedded import kind_of

    assert kind_of({"name": name, "document": f"{name}{signature}\n\nBody (a note)."}) == kind


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "docstring-summaries", "likeness": True, "answers": "pairs"}, "one thing"),
        ({"name": "django-translations", "likeness": True}, "which django-translations lacks"),
        ({"name": "docstring-questions", "kinds": True}, "kinds is made of documents"),
    ],
)
def test_rows_are_made_into_one_thing_and_of_summaries(options: dict, message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        EmbeddedSource(EmbeddedConfig(**options))
    assert caught.value.hint


def test_every_row_has_its_kind_where_it_is_asked_for() -> None:
    source = EmbeddedSource(EmbeddedConfig("docstring-summaries", kinds=True))
    rows = source.load("test")
    assert set(rows["kind"]) == {"class", "function", "method", "module"}


def test_translations_have_every_language_and_no_topic_in_two_splits() -> None:
    from build_translations import LANGUAGES, topic

    source = EmbeddedSource(EmbeddedConfig(name="django-translations"))
    found = {split: source.load(split).to_list() for split in source.splits()}
    assert {split: len(rows) for split, rows in found.items()} == {
        "train": 563, "validation": 51, "test": 105,
    }  # fmt: skip
    for row in (row for rows in found.values() for row in rows):
        assert list(row) == ["en", *LANGUAGES]
        assert all(row.values())
    topics = [{topic(row["en"]) for row in rows} for rows in found.values()]
    assert sum(map(len, topics)) == len(set().union(*topics))
    folder = embedded.dataset_path("django-translations")
    assert sum(file.stat().st_size for file in folder.iterdir()) <= 1_000_000


def test_the_encoder_decoder_translates_into_what_it_was_taught() -> None:
    import torch
    from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

    folder = embedded.model_path("embedded:catalogue-seq2seq")
    assert sum(file.stat().st_size for file in folder.iterdir()) <= 6_000_000
    model = AutoModelForSeq2SeqLM.from_pretrained(folder, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    source = tokenizer("Translate to es.\n\nDelete", return_tensors="pt")["input_ids"]
    made = model.generate(source, max_new_tokens=8, do_sample=False)
    assert tokenizer.decode(made[0], skip_special_tokens=True) in ("Eliminar", "Borrar")
