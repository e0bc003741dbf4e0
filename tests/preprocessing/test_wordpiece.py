"""The trained WordPiece tokenizer is BERT's: the same pieces as transformers' own, reloadable."""

from __future__ import annotations

from pathlib import Path

import tiny

from peftkit.preprocessing.wordpiece import SPECIAL_TOKENS, train_wordpiece

TEXTS = [" ".join(tiny.WORDS[i:] + tiny.WORDS[:i]) for i in range(20)]


def test_it_splits_like_bert_s_own_tokenizer_of_the_same_vocabulary(tmp_path: Path) -> None:
    from transformers import AutoTokenizer, BertTokenizer

    made = train_wordpiece(TEXTS, vocab_size=120, max_length=64)
    made.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    reference = BertTokenizer(vocab=made.get_vocab(), do_lower_case=True)
    for text in ("Return the SUM, please; a value_is missing.", "Straße é 漢字 x", ""):
        assert loaded(text)["input_ids"] == made(text)["input_ids"]
        assert loaded(text, "raise")["token_type_ids"] == reference(text, "raise")["token_type_ids"]
        assert loaded(text, "raise")["input_ids"] == reference(text, "raise")["input_ids"]
    assert loaded.convert_tokens_to_ids(list(SPECIAL_TOKENS)) == [0, 1, 2, 3, 4]
    assert (loaded.cls_token, loaded.sep_token, loaded.mask_token) == ("[CLS]", "[SEP]", "[MASK]")
    assert loaded.model_max_length == 64
    assert len(loaded) <= 120


def test_case_is_kept_where_it_is_asked_for() -> None:
    texts = ["Sum sum Sum sum"] * 5
    cased = train_wordpiece(texts, vocab_size=60, max_length=64, lowercase=False)
    assert cased.tokenize("Sum sum") == ["Sum", "sum"]
    assert train_wordpiece(texts, vocab_size=60, max_length=64).tokenize("Sum") == ["sum"]


def test_the_same_texts_give_the_same_pieces_whenever_they_are_trained_on() -> None:
    texts = [f"{word}{number}" for number in range(40) for word in tiny.WORDS] + ["é漢"]
    made = [train_wordpiece(texts, vocab_size=200, max_length=64).get_vocab() for _ in range(3)]
    assert made[0] == made[1] == made[2]
    assert sorted(made[0].values()) == list(range(len(made[0])))
    assert 150 < len(made[0]) <= 200
