"""What a file says about its tokenizer tokenizes as the tokenizer it came from."""

from __future__ import annotations

from pathlib import Path

import pytest
import tiny_families
import tiny_tokenizers
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from peftkit.exporters.gguf_readback import FileTokenizer, read_back
from peftkit.exporters.gguf_tokenizer import read_vocabulary

KINDS = ("gpt-2", "smollm", "llama-bpe", "smaug-bpe", "qwen2", "tekken", "llama", "gemma", "bert")
PIECES = (
    "return", "It's", "DON'T", " ", "  ", "\n", "\t", "1234", "é", "🙂", "東京",
    "<|user|>", "camelCase", "!?", "sum", ".", "</s>", "[SEP]", "naïve",
)  # fmt: skip


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> dict:
    made = {}
    for kind in KINDS:
        folder: Path = tmp_path_factory.mktemp(kind)
        if kind == "bert":
            from transformers import AutoTokenizer

            tokenizer = AutoTokenizer.from_pretrained(tiny_families.save_bert(folder))
        elif kind in ("llama", "gemma"):
            tokenizer = tiny_tokenizers.sentencepiece(folder, style=kind)
        else:
            tokenizer = tiny_tokenizers.byte_level(kind, folder)
        vocabulary = read_vocabulary(tokenizer, vocab_size=len(tokenizer) + 3)
        made[kind] = (tokenizer, FileTokenizer(vocabulary))
    return made


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(parts=st.lists(st.sampled_from(PIECES), max_size=12))
def test_any_text_gives_the_same_ids(kind: str, pairs: dict, parts: list[str]) -> None:
    tokenizer, own = pairs[kind]
    text = "".join(parts)
    assert own(text) == tokenizer(text).input_ids
    bare = tokenizer(text, add_special_tokens=False).input_ids
    assert own(text, add_special_tokens=False) == bare


def test_a_file_is_read_back_whole(tmp_path: Path) -> None:
    gguf = pytest.importorskip("gguf", reason="the gguf extra is not installed")
    from peftkit.exporters.gguf_file import write_gguf
    from peftkit.plugins.exported import Trained

    folder = tiny_families.save("llama", tmp_path / "model")
    tokenizer = tiny_tokenizers.sentencepiece(folder)
    (tmp_path / "out").mkdir()
    file = write_gguf(Trained("tiny", folder), tmp_path / "out", "f32").files[0]
    found = read_back(gguf.GGUFReader(file))
    wanted = read_vocabulary(tokenizer, vocab_size=512)
    assert (found.model, found.tokens, found.kinds) == ("llama", wanted.tokens, wanted.kinds)
    assert found.scores == pytest.approx(wanted.scores)
    assert found.flags == wanted.flags
    assert found.special_ids == {"bos": 1, "eos": 2, "unk": 0}
