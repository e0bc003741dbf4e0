"""onnxruntime computes the same logits, in batches with padding and through the cache."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tiny_families

from peftkit.exporters.onnx_model import Onnx, OnnxOptions
from peftkit.plugins.exported import Exported, Trained
from peftkit.testing import check_exporter

pytest.importorskip("onnx", reason="the onnx extra is not installed")
pytest.importorskip("onnxscript", reason="the onnx extra is not installed")
ort = pytest.importorskip("onnxruntime", reason="the onnx extra is not installed")


@pytest.fixture(scope="module")
def decoder(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Exported]:
    """One traced decoder for all tests: a trace takes ten seconds."""
    folder = tmp_path_factory.mktemp("decoder")
    model = tiny_families.save("llama", folder / "model", num_hidden_layers=1)
    (folder / "out").mkdir()
    return model, folder / "out", check_exporter(Onnx, {}, Trained("t", model), folder / "out")


def _session(out: Path):
    return ort.InferenceSession(str(out / "model.onnx"), providers=["CPUExecutionProvider"])


def test_the_graph_takes_and_gives_a_cache_by_name(decoder: tuple) -> None:
    session = _session(decoder[1])
    inputs = {value.name: value.shape for value in session.get_inputs()}
    assert inputs == {
        "input_ids": ["batch", "sequence"],
        "attention_mask": ["batch", "total"],
        "position_ids": ["batch", "sequence"],
        "past_key_values.0.key": ["batch", 2, "past", 32],
        "past_key_values.0.value": ["batch", 2, "past", 32],
    }
    outputs = [value.name for value in session.get_outputs()]
    assert outputs == ["logits", "present.0.key", "present.0.value"]


def test_a_padded_batch_is_what_transformers_computes(decoder: tuple) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    ids = np.arange(5, 45, dtype=np.int64).reshape(4, 10)
    mask = np.ones_like(ids)
    mask[2, :6] = 0
    positions = np.maximum(mask.cumsum(1) - 1, 0)
    empty = np.zeros((4, 2, 0, 32), np.float32)
    logits = _session(decoder[1]).run(
        ["logits"],
        {"input_ids": ids, "attention_mask": mask, "position_ids": positions,
         "past_key_values.0.key": empty, "past_key_values.0.value": empty},
    )[0]  # fmt: skip
    model = AutoModelForCausalLM.from_pretrained(decoder[0]).eval()
    with torch.no_grad():
        wanted = model(
            input_ids=torch.tensor(ids), attention_mask=torch.tensor(mask),
            position_ids=torch.tensor(positions),
        ).logits.numpy()  # fmt: skip
    seen = mask.astype(bool)
    np.testing.assert_allclose(logits[seen], wanted[seen], atol=1e-5, rtol=1e-4)


def test_greedy_generation_through_the_cache_is_transformers_own(decoder: tuple) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    session = _session(decoder[1])
    prompt = [7, 100, 23, 41, 300]
    model = AutoModelForCausalLM.from_pretrained(decoder[0]).eval()
    wanted = model.generate(
        torch.tensor([prompt]), attention_mask=torch.ones(1, 5, dtype=torch.long),
        do_sample=False, max_new_tokens=12, eos_token_id=None, pad_token_id=1,
    )[0].tolist()  # fmt: skip
    cache = [np.zeros((1, 2, 0, 32), np.float32)] * 2
    ids, step = list(prompt), list(prompt)
    while len(ids) < len(wanted):
        past = cache[0].shape[2]
        logits, *cache = session.run(
            None,
            {"input_ids": np.array([step]), "position_ids": np.arange(past, len(ids))[None],
             "attention_mask": np.ones((1, len(ids)), np.int64),
             "past_key_values.0.key": cache[0], "past_key_values.0.value": cache[1]},
        )  # fmt: skip
        step = [int(logits[0, -1].argmax())]
        ids += step
    assert ids == wanted


def test_proofs_are_of_logits_and_cache_and_companions_travel(decoder: tuple) -> None:
    exported = decoder[2]
    assert [proof.what for proof in exported.proofs] == ["logits", "cache"]
    assert all(0 < proof.measured < 1e-5 for proof in exported.proofs)
    names = {file.name for file in exported.files}
    assert {"model.onnx", "config.json", "tokenizer.json", "chat_template.jinja"} <= names


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["llama-untied-biased", "mistral", "qwen2", "qwen3", "gemma2", "gemma3", "gpt2"]
)
def test_every_family_of_decoders_is_traced(name: str, tmp_path: Path) -> None:
    config = {"sliding_window": 8} if name in ("mistral", "gemma2", "gemma3") else {}
    folder = tiny_families.save(name, tmp_path / "model", **config)
    (tmp_path / "out").mkdir()
    check_exporter(Onnx, {}, Trained("tiny", folder), tmp_path / "out")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("architecture", "outputs"),
    [
        ("BertModel", ["last_hidden_state"]),
        ("BertForSequenceClassification", ["logits"]),
        ("BertForQuestionAnswering", ["start_logits", "end_logits"]),
    ],
)
def test_encoders_are_traced(architecture: str, outputs: list[str], tmp_path: Path) -> None:
    folder = tiny_families.save_bert(tmp_path / "model", architecture=architecture)
    (tmp_path / "out").mkdir()
    exported = Onnx(OnnxOptions()).export(Trained("tiny", folder), tmp_path / "out")
    assert exported.proofs[0].holds
    assert [value.name for value in _session(tmp_path / "out").get_outputs()] == outputs
