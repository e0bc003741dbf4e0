"""The pieces of an answer that is written while it is made join to the whole."""

from __future__ import annotations

import pytest
import tiny
import torch

from peftkit.scoring.pieces import Pieces


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory):
    return tiny.tiny_tokenizer(tmp_path_factory.mktemp("tokenizer"))


@pytest.mark.parametrize("text", ["read a file", "Grüße, 世界 🙂", "ends in spaces   ", ""])
def test_pieces_join_to_the_whole_and_no_character_is_torn(tokenizer, text: str) -> None:
    written: list[str] = []
    pieces = Pieces(tokenizer, {tokenizer.eos_token_id}, written.append)
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    pieces.put(torch.tensor([[5, 6]]))  # the prompt
    for token in [*ids, tokenizer.eos_token_id]:
        pieces.put(torch.tensor([token]))
    pieces.end()
    whole = pieces.finish(ids)
    assert "".join(written) == whole == text.strip()
    assert not any("\ufffd" in piece for piece in written)
