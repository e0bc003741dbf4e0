"""Every encoder-decoder family trains, answers, is scored, and merged for transformers alone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import seq2seq_families
import tiny
import tiny_heads
import torch
from training_fixture import losses

from peftkit.errors import UsageError

ROWS = tiny.rows(5)
QUICK = ("m2m_100", "mbart")
"""One whose class lacks what a collator asks for, and one whose targets close with a language."""


@pytest.mark.parametrize(
    "family",
    [
        pytest.param(name, marks=() if name in QUICK else pytest.mark.slow)
        for name in seq2seq_families.FAMILIES
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_a_family_goes_through_every_verb(family: str, tmp_path: Path) -> None:
    from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

    from peftkit.merge import merge

    base = seq2seq_families.save(tmp_path, family)
    options = {**tiny_heads.SEQ2SEQ, "max_steps": 2, "label_smoothing_factor": 0.1}
    made = tiny_heads.recipe(tmp_path, base, ROWS, {"seq2seq": options}, {"summarize": {}})
    run = tiny_heads.train(tmp_path / "run", made)
    merge(run.path, out=tmp_path / "merged", verify=True)
    model = AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "merged").eval()
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "merged")
    samples = [json.loads(line) for line in run.samples.read_text().splitlines()]
    for row, sample in zip(ROWS, samples, strict=True):
        source = tokenizer("Summarize the text.\n\n" + row["document"], return_tensors="pt")
        inputs = {key: source[key] for key in ("input_ids", "attention_mask")}
        made_ids = model.generate(**inputs, max_new_tokens=8, do_sample=False, num_beams=1)
        assert tokenizer.decode(made_ids[0], skip_special_tokens=True).strip() == sample["tuned"]


def test_every_class_of_the_kind_is_trained_or_refused_by_name() -> None:
    from transformers import AutoConfig
    from transformers.models.auto.modeling_auto import (
        MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES as NAMES,
    )

    from peftkit.models.load_errors import check_trains
    from peftkit.plugins import SEQ_2_SEQ_LM

    refused = {name for name in NAMES if name not in seq2seq_families.FAMILIES}
    assert "prophetnet" in refused
    for name in sorted(refused):
        with pytest.raises(UsageError, match=f"a {name} model is not trained here"):
            check_trains(AutoConfig.for_model(name), SEQ_2_SEQ_LM)


def nllb(folder: Path) -> Path:
    """Save a tiny NLLB: an M2M100 whose tokenizer writes a language before each text."""
    from transformers import M2M100Config, M2M100ForConditionalGeneration, NllbTokenizer

    words = dict.fromkeys(" ".join(tiny.WORDS) + "▁Translatehxy.")
    vocab = {t: at for at, t in enumerate(["<s>", "<pad>", "</s>", "<unk>", *sorted(words), "\n"])}
    codes = ["deu_Latn", "eng_Latn", "fra_Latn"]
    tokenizer = NllbTokenizer(vocab=vocab, merges=[], additional_special_tokens=codes)
    tokenizer.save_pretrained(folder)
    sizes = {**seq2seq_families.BART, "vocab_size": len(tokenizer), "eos_token_id": 2,
             "max_position_embeddings": 256}  # fmt: skip
    torch.manual_seed(0)
    model = M2M100ForConditionalGeneration(M2M100Config(**{**sizes, "decoder_start_token_id": 2}))
    model.save_pretrained(folder)
    return folder


PAIRS = [{"source": row["document"], "target": row["summary"]} for row in ROWS]


def test_codes_of_languages_are_trained_generated_and_saved(tmp_path: Path) -> None:
    from transformers import AutoTokenizer, GenerationConfig

    from peftkit.merge import merge

    base = nllb(tmp_path)
    task = {"translate": {"src_lang": "deu_Latn", "tgt_lang": "fra_Latn", "instruction": ""}}
    options = {**tiny_heads.SEQ2SEQ, "max_target_length": 200, "max_source_length": 200}
    made = tiny_heads.recipe(tmp_path, base, PAIRS, {"seq2seq": options}, task)
    run = tiny_heads.train(tmp_path / "run", made)
    sample = json.loads(run.data.read_text())["mask_samples"]["train"][0]
    trained = [t for t, is_on in zip(*sample.values(), strict=True) if is_on]
    assert sample["tokens"][0] == "deu_Latn"
    assert (trained[0], trained[-1]) == ("fra_Latn", "</s>")
    merge(run.path, out=tmp_path / "merged")
    for folder in (run.adapter, tmp_path / "merged"):
        tokenizer = AutoTokenizer.from_pretrained(folder)
        assert (tokenizer.src_lang, tokenizer.tgt_lang) == ("deu_Latn", "fra_Latn")
        saved = GenerationConfig.from_pretrained(folder)
        assert saved.forced_bos_token_id == tokenizer.convert_tokens_to_ids("fra_Latn")
        assert saved.decoder_start_token_id == 2
    assert len(losses(run)) == 4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, r"translate.src_lang and translate.tgt_lang are missing: .* writes a"),
        ({"src_lang": "deu_Latn", "tgt_lang": "fra_Lat"}, r"no language 'fra_Lat'[^$]*fra_Latn"),
    ],
)
def test_languages_are_checked_against_the_tokenizer(options, message, tmp_path: Path) -> None:
    made = tiny_heads.recipe(
        tmp_path, nllb(tmp_path), PAIRS, {"seq2seq": tiny_heads.SEQ2SEQ}, {"translate": options}
    )
    with pytest.raises(UsageError, match=message):
        tiny_heads.train(tmp_path / "run", made)
