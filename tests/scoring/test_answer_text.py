"""Special tokens of the content are shown, those of the structure are not, on every side alike."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import tiny
import tiny_heads
import torch

from peftkit.scoring.answer_text import AnswerText
from peftkit.scoring.generation import Prompts, answer, generation_config, stream_answer
from peftkit.tasks.metrics import exact_match

REFERENCE = "<sql>read the file</sql>"


def with_marks(tokenizer):
    tokenizer.add_special_tokens({"additional_special_tokens": ["<sql>", "</sql>"]})
    return tokenizer


class Writer:
    """Stand in for a model that writes what it is given, whatever it is asked."""

    training = False

    def __init__(self, ids: list[int]) -> None:
        self.ids = ids
        self.config = SimpleNamespace(is_encoder_decoder=False)
        self.generation_config = SimpleNamespace(eos_token_id=None)

    def _supports_default_dynamic_cache(self) -> bool:
        return False

    def eval(self) -> None: ...
    def train(self, mode: bool) -> None: ...

    def get_input_embeddings(self):
        return torch.nn.Embedding(1, 1)

    def generate(self, input_ids, streamer=None, **_):
        whole = torch.cat([input_ids[0], torch.tensor(self.ids)])
        if streamer:
            for part in (input_ids, *torch.tensor(self.ids)):
                streamer.put(part)
        return whole[None]


@pytest.fixture
def tokenizer(tmp_path: Path):
    return with_marks(tiny.tiny_tokenizer(tmp_path))


def test_an_answer_is_scored_and_shown_with_its_own_marks(tokenizer) -> None:
    ids = [*tokenizer(REFERENCE)["input_ids"], tokenizer.eos_token_id]
    config = generation_config({}, tokenizer, stop_ids=[tokenizer.eos_token_id])
    found = answer(Writer(ids), tokenizer, Prompts(((5, 6),), 0, None), config=config, batch_size=1)
    assert found.texts == (REFERENCE,)
    assert exact_match(found.texts, [REFERENCE]) == {"exact_match": 1.0}
    pieces: list[str] = []
    text, is_finished = stream_answer(
        Writer(ids), tokenizer, [5, 6], config=config, write=pieces.append
    )
    assert (text, "".join(pieces), is_finished) == (REFERENCE, REFERENCE, True)


def test_what_is_written_around_every_text_is_hidden(tokenizer, tmp_path: Path) -> None:
    pad, end = tokenizer.pad_token_id, tokenizer.eos_token_id
    ids = [pad, *tokenizer("read")["input_ids"], end]
    assert AnswerText(tokenizer).decode(ids) == "read"
    closed = with_marks(tiny_heads.closed_tokenizer(tmp_path / "closed"))
    assert AnswerText(closed).decode(closed(text_target=REFERENCE)["input_ids"]) == REFERENCE
