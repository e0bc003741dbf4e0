"""Models that see: rows, batches, a whole run, and the adapter in plain peft."""

from __future__ import annotations

import json

import pytest
import tiny_vision

from peftkit.errors import UsageError
from peftkit.methods.vision_sft import PictureCollator, VisionSFT
from peftkit.plugins import PICTURE, Conversation, Picture, Pictured
from peftkit.plugins.rows import IGNORED
from peftkit.sources.drawings import DrawingsConfig, DrawingsSource
from peftkit.tasks.vision import ImageText, ImageTextConfig


@pytest.fixture(scope="module")
def processor():
    return tiny_vision.tiny_processor()


@pytest.fixture(scope="module")
def examples():
    rows = DrawingsSource(DrawingsConfig(num_rows=3, side=16)).load("train")
    return [ImageText(ImageTextConfig()).example(row) for row in rows]


def method(processor) -> VisionSFT:
    from types import SimpleNamespace

    made = VisionSFT(SimpleNamespace(max_length=128, pad_to_multiple_of=None, packing=False))
    made.processor = processor
    return made


def two_turns(example: Pictured) -> Pictured:
    """Ask again about a second picture, so that a row has two answers and two pictures."""
    again = ({"role": "user", "content": f"And {PICTURE} here?"},
             {"role": "assistant", "content": "green, top left"})  # fmt: skip
    talk = Conversation((*example.talk.messages, *again))
    return Pictured(talk, (*example.pictures, *example.pictures))


def test_a_batch_is_the_processor_s_own_and_the_answers_alone_are_trained(processor, examples):
    trained = method(processor)
    shown = [*examples, two_turns(examples[0])]
    rows = [rows[0] for rows in trained.encode(shown, None)]
    batch = PictureCollator(processor)(rows)
    for at, example in enumerate(shown):
        images = [picture.open() for picture in example.pictures]
        waiting = iter(images)
        messages = [
            {
                "role": message["role"],
                "content": [
                    part
                    for number, text in enumerate(message["content"].split(PICTURE))
                    for part in (
                        *([{"type": "image", "image": next(waiting)}] if number else []),
                        *([{"type": "text", "text": text}] if text else []),
                    )
                ],
            }
            for message in example.talk.messages
        ]
        plain = processor.apply_chat_template(
            messages, tokenize=True, return_dict=True, return_tensors="pt"
        )
        ids = plain["input_ids"][0].tolist()
        assert rows[at]["input_ids"] == ids
        assert batch["input_ids"][at, : len(ids)].tolist() == ids
        labels = batch["labels"][at].tolist()
        assert labels[: len(ids)] == rows[at]["labels"]
        assert set(labels[len(ids) :]) <= {IGNORED}
        said = processor.tokenizer.decode([label for label in labels if label != IGNORED])
        answers = [m["content"] for m in example.talk.messages if m["role"] == "assistant"]
        assert said == "".join(f"{answer}<end_of_turn>" for answer in answers)
    assert batch["pixel_values"].shape == (5, 3, 16, 16)


def test_a_row_that_is_too_long_is_left_out(processor, examples):
    import numpy as np

    row = method(processor).encode(examples[:1], None)[0][0]
    count = method(processor).count({"labels": np.asarray(row["labels"])})
    assert count.num_trained
    short = method(processor)
    short.config.max_length = count.length - 1
    left = short.count({"labels": np.asarray(row["labels"])})
    assert (left.is_cut, left.num_trained, left.needed) == (True, 0, count.length)


def test_pictures_that_cannot_be_read_are_the_row_s_fault(processor, examples):
    broken = Pictured(examples[0].talk, (Picture(data=b"no picture"),))
    found = method(processor).encode([broken, examples[1]], None)
    assert "none that can be read" in str(found[0])
    assert found[1][0]["input_ids"]


def test_a_model_of_text_alone_is_refused(tiny_model, processor):
    from transformers import AutoConfig

    with pytest.raises(UsageError, match="use the method sft"):
        method(processor).check_config(AutoConfig.from_pretrained(tiny_model))


def test_a_run_adapts_the_text_alone_and_its_adapter_is_plain_peft_s(tmp_path, capfd, caplog):
    """Trained, scored by generation, saved, loaded by peft and transformers alone, and merged."""
    import torch
    from command_line import run_command
    from peft import PeftModel
    from safetensors.torch import load_file
    from transformers import AutoModelForImageTextToText, AutoProcessor

    base = tiny_vision.tiny_gemma3(tmp_path / "base")
    recipe = tmp_path / "seen.yaml"
    recipe.write_text(tiny_vision.recipe_text(base))
    run = tmp_path / "run"
    ran = run_command(capfd, "run", recipe, "--out", run)
    assert ran.code == 0, ran.err
    assert "leaves out model.vision_tower" in caplog.text
    assert "what pictures become within the model is not rehearsed" in ran.out
    scores = json.loads((run / "scores.json").read_text())
    assert {"exact_match", "rougeL"} <= scores["tuned"].keys()
    assert scores["baselines"].keys() == {"most_frequent"}
    weights = load_file(run / "adapter" / "adapter_model.safetensors")
    assert any("language_model" in name for name in weights)
    assert not any("vision_tower" in name for name in weights)
    processor = AutoProcessor.from_pretrained(run / "adapter")
    rows = DrawingsSource(DrawingsConfig(num_rows=2, side=16)).load("test")
    inputs = processor(
        text=["<start_of_image>What is drawn?"],
        images=[[ImageText(ImageTextConfig()).example(rows[0]).pictures[0].open()]],
        return_tensors="pt",
    )
    model = AutoModelForImageTextToText.from_pretrained(base)
    before = model(**inputs).logits
    adapted = PeftModel.from_pretrained(model, run / "adapter").eval()
    with torch.no_grad():
        after = adapted(**inputs).logits
    assert not torch.equal(before, after)
    merged = tmp_path / "merged"
    combined = run_command(capfd, "merge", run, "--out", merged, "--no-verify")
    assert combined.code == 0, combined.err
    whole = AutoModelForImageTextToText.from_pretrained(merged).eval()
    with torch.no_grad():
        assert torch.allclose(whole(**inputs).logits, after, atol=1e-5)
    assert AutoProcessor.from_pretrained(merged).image_processor.size["height"] == 16
    picture = tmp_path / "one.png"
    picture.write_bytes(rows[0]["image"])
    said = run_command(capfd, "generate", run, "What is drawn?", "--column", f"image={picture}")
    assert said.code == 0, said.err
