"""Scores see every script: equal texts score in full, and English as the reference packages do."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rouge_score.rouge_scorer import RougeScorer
from rouge_score.tokenize import tokenize
from sacrebleu.metrics import BLEU, TER

from peftkit.tasks.metrics import bleu_and_chrf, rouge, sacrebleu_note, ter, token_f1
from peftkit.tasks.summarize import first_sentence
from peftkit.tasks.words import bleu_tokenizer, split_unspaced, words

SENTENCES = {
    "Chinese": "返回两个数字的总和。",
    "Japanese": "二つの数の合計を返します。",
    "Thai": "คืนค่าผลรวมของตัวเลขสองตัว",
    "Arabic": "أعد مجموع هذين الرقمين",
    "Hindi": "दो संख्याओं का योग लौटाएँ।",
    "Greek": "Επιστρέφει το άθροισμα δύο αριθμών",
    "Russian": "Возвращает сумму двух чисел",
    "German": "Gibt die Größe der Ähnlichkeit zurück",
    "Korean": "두 숫자의 합을 반환합니다",
}
ALPHABETS = [
    "abc XYZ",
    "äöüß é",
    "абв где",
    "αβγ ώς",
    "אבג",
    "ابت ث",
    "कखि ा",
    "กขำ่",
    "你好世",
    "かなカ",
]


@pytest.mark.parametrize("text", SENTENCES.values(), ids=SENTENCES)
def test_equal_sentences_score_in_full_and_others_do_not(text: str) -> None:
    assert set(rouge([text], [text]).values()) == {1.0}
    assert token_f1([text], [text]) == {"token_f1": 1.0}
    assert ter([text], [text]) == {"ter": 0.0}
    assert bleu_and_chrf([text], [text]) == pytest.approx({"bleu": 100.0, "chrf": 100.0})
    half = text[: len(text) // 2]
    assert 0 < rouge([half], [text])["rouge1"] < 1
    assert rouge(["unrelated words"], [text])["rouge1"] == 0.0


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(ALPHABETS).flatmap(lambda letters: st.text(letters, min_size=1)))
def test_any_text_with_letters_is_itself(text: str) -> None:
    if words(text):
        assert rouge([text], [text])["rougeL"] == 1.0
    assert token_f1([text], [text]) == {"token_f1": 1.0}


@settings(max_examples=200, deadline=None)
@given(st.text(st.characters(codec="ascii")))
def test_words_of_english_are_those_of_rouge_score(text: str) -> None:
    assert words(text) == tokenize(text, None)


@settings(max_examples=100, deadline=None)
@given(st.tuples(*[st.text("returns keys, values and running_functions 12.\n", min_size=5)] * 2))
def test_english_scores_are_the_reference_packages_own(pair: tuple[str, str]) -> None:
    prediction, reference = pair
    types = ["rouge1", "rouge2", "rougeL", "rougeLsum"]
    scores = RougeScorer(types, use_stemmer=True).score(reference, prediction)
    found = rouge([prediction], [reference])
    assert found == pytest.approx({name: score.fmeasure for name, score in scores.items()})
    bleu = BLEU().corpus_score([prediction], [[reference]]).score
    assert bleu_and_chrf([prediction], [reference])["bleu"] == bleu
    assert (
        ter([prediction], [reference])["ter"]
        == TER().corpus_score(*([prediction], [[reference]])).score
    )


def test_umlauts_tell_words_apart() -> None:
    assert rouge(["Größe"], ["Grüße"])["rouge1"] == 0.0
    assert words("Größe, NAÏVE x_1") == ["größe", "naïve", "x", "1"]
    assert words("你好 world กำ่") == ["你", "好", "world", "ก", "ำ่"]
    assert split_unspaced("a-b 你好") == ["a-b", "你", "好"]


@pytest.mark.parametrize(
    ("language", "name"),
    [("Chinese", "zh"), ("Japanese", "char"), ("Thai", "char"), ("Korean", "13a"),
     ("Russian", "13a"), ("Hindi", "13a"), ("German", "13a")],
)  # fmt: skip
def test_the_tokenizer_goes_by_the_references_script(language: str, name: str) -> None:
    text = SENTENCES[language]
    assert bleu_tokenizer([text]) == name
    assert f"tok:{name}|" in sacrebleu_note("bleu", references=[text])
    expected = BLEU(tokenize=name).corpus_score([text[:-2]], [[text]]).score
    assert bleu_and_chrf([text[:-2]], [text])["bleu"] == expected


def test_a_first_sentence_ends_where_its_language_ends_it() -> None:
    assert first_sentence("读取文件。然后关闭它。") == "读取文件。"
    assert first_sentence("本当ですか？はい。") == "本当ですか？"  # noqa: RUF001
    assert first_sentence("दो योग। तीन योग।") == "दो योग।"
    assert first_sentence("Reads it, e.g. a file. Then closes.") == "Reads it, e.g. a file."
