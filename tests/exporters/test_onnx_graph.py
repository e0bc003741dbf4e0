"""What can be traced is known before it is traced, and a mask is the model's own."""

from __future__ import annotations

from pathlib import Path

import pytest
import tiny_families

from peftkit.errors import ArtefactError
from peftkit.exporters.model_folder import load_model
from peftkit.exporters.onnx_graph import _decoder_step, is_decoder


def _load(name: str, folder: Path, **config):
    return load_model(
        tiny_families.save(name, folder, **config), dtype="float32", attn_implementation="eager"
    )


@pytest.mark.parametrize(
    ("name", "config"),
    [
        ("llama", {}),
        ("mistral", {"sliding_window": 3}),
        ("gemma2", {"sliding_window": 3}),
        ("gemma3", {"sliding_window": 3}),
        ("gpt2", {}),
    ],
)
def test_a_step_with_cache_and_padding_is_what_the_model_computes(
    name: str, config: dict, tmp_path: Path
) -> None:
    import torch

    model = _load(name, tmp_path, **config)
    step = _decoder_step(model)
    ids = torch.arange(5, 29).reshape(2, 12)
    mask = torch.ones_like(ids)
    mask[1, :4] = 0  # the second row begins later
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    with torch.no_grad():
        wanted = model(input_ids=ids, attention_mask=mask, position_ids=positions).logits
        heads = getattr(model.config, "num_key_value_heads", model.config.num_attention_heads)
        size = getattr(model.config, "head_dim", None) or model.config.hidden_size // heads
        cache = [(torch.zeros(2, heads, 0, size),) * 2] * model.config.num_hidden_layers
        found = []
        for start, stop in ((0, 7), (7, 8), (8, 12)):
            logits, cache = step(
                ids[:, start:stop], mask[:, :stop], positions[:, start:stop], cache
            )
            found.append(logits)
    seen = mask.bool()
    torch.testing.assert_close(torch.cat(found, 1)[seen], wanted[seen], atol=1e-5, rtol=1e-4)
    assert cache[0][0].shape[2] == 12


def test_an_encoder_is_no_decoder(tmp_path: Path) -> None:
    folder = tiny_families.save_bert(tmp_path, architecture="BertForSequenceClassification")
    assert not is_decoder(load_model(folder))


def test_an_encoder_decoder_is_refused(tmp_path: Path) -> None:
    import transformers

    config = transformers.T5Config(
        vocab_size=64, d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2
    )
    transformers.T5ForConditionalGeneration(config).save_pretrained(tmp_path)
    with pytest.raises(ArtefactError, match="encoder-decoder"):
        is_decoder(load_model(tmp_path))
