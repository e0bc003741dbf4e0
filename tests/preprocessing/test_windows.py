"""Windows of a long context say exactly which tokens hold an answer, whatever the tokenizer."""

from __future__ import annotations

from pathlib import Path

import pytest
import tiny
import tiny_heads
import tiny_tokenizers
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from peftkit.errors import ArtefactError, DataError
from peftkit.plugins import Span, Spans
from peftkit.preprocessing.chat_labels import TemplateError
from peftkit.preprocessing.windows import cut_windows, encode_windows

WORDS = [
    *tiny.WORDS,
    "naïve",
    "cafés,",
    "1234",
    "日本語",
    "e\u0301t\u00e9",
    "🙂",
    "(x)",
    "\n",
    "A.B",
]


def trained(kind: str):
    """Train a fast WordPiece or Unigram tokenizer that parts two texts as BERT's or XLNet's do."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    specials = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    if kind == "wordpiece":
        raw = Tokenizer(models.WordPiece(unk_token="[UNK]"))
        raw.normalizer = normalizers.BertNormalizer()
        raw.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        trainer = trainers.WordPieceTrainer(
            vocab_size=150, special_tokens=specials, show_progress=False
        )
    else:
        raw = Tokenizer(models.Unigram())
        raw.normalizer = normalizers.NFKC()
        raw.pre_tokenizer = pre_tokenizers.Metaspace()
        trainer = trainers.UnigramTrainer(
            vocab_size=120, special_tokens=specials, unk_token="[UNK]", show_progress=False
        )
    raw.train_from_iterator(tiny_tokenizers.TEXT * 3, trainer)
    ids = [(token, raw.token_to_id(token)) for token in ("[CLS]", "[SEP]")]
    form = "[CLS] $A [SEP]", "[CLS] $A [SEP] $B:1 [SEP]:1"
    if kind == "unigram":  # its classifier's token stands last
        form = "$A [SEP] [CLS]", "$A [SEP] $B:1 [SEP]:1 [CLS]:2"
    raw.post_processor = processors.TemplateProcessing(
        single=form[0], pair=form[1], special_tokens=ids
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=raw, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]",
        sep_token="[SEP]", padding_side="left" if kind == "unigram" else "right",
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
    )  # fmt: skip


@pytest.fixture(scope="module", params=["wordpiece", "unigram", "bpe", "bpe-pair", "sentencepiece"])
def tokenizer(request, tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("tokenizer")
    return {
        "bpe": lambda: tiny.tiny_tokenizer(folder),
        "bpe-pair": lambda: tiny_heads.closed_tokenizer(folder),
        "sentencepiece": lambda: tiny_tokenizers.sentencepiece(folder),
    }.get(request.param, lambda: trained(request.param))()


@st.composite
def asked(draw):
    """Draw a context, and an answer that is some of its words in a row."""
    words = draw(st.lists(st.sampled_from(WORDS), min_size=1, max_size=60))
    gaps = draw(st.lists(st.sampled_from([" ", "  ", "\n"]), min_size=len(words) - 1,
                         max_size=len(words) - 1))  # fmt: skip
    first = draw(st.integers(0, len(words) - 1))
    last = draw(st.integers(first, min(first + 4, len(words) - 1)))
    parts = [part for pair in zip(words, [*gaps, ""], strict=True) for part in pair]
    start = len("".join(parts[: 2 * first]))
    text = "".join(parts[2 * first : 2 * last + 1])
    stripped = text.strip()
    start += len(text) - len(text.lstrip())
    return "".join(parts), Span(stripped, start)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(drawn=asked(), max_length=st.integers(24, 60), doc_stride=st.integers(0, 12))
def test_the_labels_are_the_fewest_tokens_whose_characters_hold_the_answer(
    tokenizer, drawn, max_length: int, doc_stride: int
) -> None:
    context, answer = drawn
    if not answer.text or not context.strip():
        return
    example = Spans("who sort", context, (answer,))
    (windows,) = cut_windows(
        [example.texts], tokenizer, max_length=max_length, doc_stride=doc_stride
    )
    (rows,) = encode_windows([example], tokenizer, max_length=max_length, doc_stride=doc_stride)
    assert not isinstance(windows, DataError)
    assert windows[0].covers[0] == 0
    assert windows[-1].covers[1] == len(context)
    if isinstance(rows, DataError):
        assert not any(window.find(answer) for window in windows)
        return
    for window, row in zip(windows, rows, strict=True):
        assert len(row["input_ids"]) <= max_length
        start, end = row["start_positions"], row["end_positions"]
        if window.find(answer) is None:
            assert start == end == window.no_answer
            assert row["input_ids"][start] in {tokenizer.cls_token_id, row["input_ids"][0]}
            continue
        held = [window.offsets[at - window.first] for at in range(start, end + 1)]
        decoded = context[held[0][0] : held[-1][1]]
        assert answer.text in decoded
        inside = [at for at in held if at[1] > answer.start and at[0] < answer.end]
        assert held[0] in inside
        assert held[-1] in inside
        is_on_borders = held[0][0] >= answer.start and held[-1][1] <= answer.end
        if is_on_borders:  # some tokenizers count the space before a word to it
            assert decoded == answer.text


def test_windows_are_those_of_the_tokenizer_and_overlap_by_the_stride() -> None:
    tokenizer = trained("wordpiece")
    context = " ".join(tiny.WORDS * 3)
    native = tokenizer(
        "who", context, truncation="only_second", max_length=32, stride=8,
        return_overflowing_tokens=True,
    )  # fmt: skip
    tokenizer.backend_tokenizer.no_truncation()
    (windows,) = cut_windows([("who", context)], tokenizer, max_length=32, doc_stride=8)
    assert tokenizer.backend_tokenizer.truncation is None  # it would be saved with it
    assert [window.row["input_ids"] for window in windows] == native["input_ids"]
    assert [window.row["token_type_ids"] for window in windows] == native["token_type_ids"]
    assert windows[0].offsets[-8:] == windows[1].offsets[:8]


def test_the_joined_windows_overlap_too(tmp_path: Path) -> None:
    tokenizer = tiny.tiny_tokenizer(tmp_path)
    context = " ".join(tiny.WORDS * 3)
    whole = tokenizer(context)["input_ids"]
    (windows,) = cut_windows([("sort", context)], tokenizer, max_length=32, doc_stride=8)
    parts = [window.row["input_ids"][window.first :] for window in windows]
    assert parts[0] + [one for part in parts[1:] for one in part[8:]] == whole
    assert windows[0].row["input_ids"][windows[0].first - 1] == tokenizer.eos_token_id


def test_what_cannot_be_cut_is_said(tmp_path: Path) -> None:
    tokenizer = trained("wordpiece")
    long, blank, cut = (
        Spans(" ".join(tiny.WORDS), "sort keys"),
        Spans("who", "\u0000\u0000"),
        Spans("who", " ".join(["sort"] * 60), (Span(" ".join(["sort"] * 20), 50),)),
    )
    found = encode_windows([long, blank, cut], tokenizer, max_length=32, doc_stride=8)
    messages = [one.message if isinstance(one, DataError) else "" for one in found]
    assert "leaves 0 for its context, not more than the doc_stride 8" in messages[0]
    assert messages[1] == "the context has no token"
    assert "every window cuts the answer, which has more tokens than" in messages[2]
    joined = tiny.tiny_tokenizer(tmp_path)
    joined.eos_token = None
    with pytest.raises(TemplateError, match="puts nothing between two texts"):
        cut_windows([("a", "b")], joined, max_length=16, doc_stride=2)


def test_a_tokenizer_without_offsets_is_refused() -> None:
    class Slow:
        is_fast = False

    with pytest.raises(ArtefactError, match="Slow does not say which characters"):
        cut_windows([("a", "b")], Slow(), max_length=16, doc_stride=2)  # type: ignore[arg-type]
