"""GGUF: every family against transformers' own reader, types, tokens, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import tiny
import tiny_families

from peftkit.errors import ArtefactError
from peftkit.exporters.gguf_file import Gguf, GgufOptions, without_generation_marks, write_gguf
from peftkit.models.logit_parity import SENTENCES
from peftkit.plugins.exported import Trained
from peftkit.testing import check_exporter

gguf = pytest.importorskip("gguf", reason="the gguf extra is not installed")

# transformers reads no first gemma and no mistral, and leaves biases of llama interleaved
NOT_READ = ("gemma", "mistral", "llama-untied-biased")
READABLE = [name for name in tiny_families.FAMILIES if name not in NOT_READ]


def _logits(model) -> np.ndarray:
    import torch

    ids = torch.arange(5, 41).reshape(2, 18) * 11 % 512
    with torch.no_grad():
        return model(input_ids=ids).logits.double().numpy()


@pytest.mark.filterwarnings("ignore:.*:DeprecationWarning")
@pytest.mark.parametrize("name", READABLE)
def test_transformers_reads_the_same_model_from_the_file(name: str, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    folder = tiny_families.save(name, tmp_path / "model")
    (tmp_path / "out").mkdir()
    exported = write_gguf(Trained("tiny", folder), tmp_path / "out", "f32")
    assert [proof.measured for proof in exported.proofs] == [0.0, 0.0]
    reference = AutoModelForCausalLM.from_pretrained(folder).eval()
    # transformers reads only some of the sizes, and not rope_freqs: its config is the model's own
    again = AutoModelForCausalLM.from_pretrained(
        tmp_path / "out", gguf_file=exported.files[0].name, config=reference.config
    ).eval()
    np.testing.assert_allclose(_logits(again), _logits(reference), atol=2e-5, rtol=1e-5)


def test_mistral_and_the_first_gemma_differ_from_read_families_by_their_names_only(
    tmp_path: Path,
) -> None:
    for name, like in (("mistral", "llama"), ("gemma", "gemma2")):
        found = {}
        for family in (name, like):
            folder = tiny_families.save(family, tmp_path / family)
            out = tmp_path / f"{family}-out"
            out.mkdir()
            file = write_gguf(Trained("tiny", folder), out, "f32").files[0]
            found[family] = {tensor.name: tensor for tensor in gguf.GGUFReader(file).tensors}
        shared = found[name].keys() & found[like].keys()
        assert {"blk.1.attn_q.weight", "blk.0.attn_norm.weight", "token_embd.weight"} <= shared
        for tensor in shared:
            assert found[name][tensor].shape.tolist() == found[like][tensor].shape.tolist()
        weights = _read(tmp_path / name)
        query = weights["model.layers.1.self_attn.q_proj.weight"]
        norm = weights["model.layers.0.input_layernorm.weight"]
        if name == "mistral":
            # rows i and i + 16 of each head of 32 become neighbours
            order = [h * 32 + i + half for h in range(4) for i in range(16) for half in (0, 16)]
            query = query[order]
        else:
            norm = norm + np.float32(1)
        np.testing.assert_array_equal(found[name]["blk.1.attn_q.weight"].data, query)
        np.testing.assert_array_equal(found[name]["blk.0.attn_norm.weight"].data, norm)


def _read(folder: Path) -> dict[str, np.ndarray]:
    from safetensors.numpy import load_file

    return load_file(folder / "model.safetensors")


def test_llama_3_rope_is_what_transformers_divides_its_frequencies_by(tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    folder = tiny_families.save("llama-3-rope", tmp_path / "model")
    (tmp_path / "out").mkdir()
    file = write_gguf(Trained("tiny", folder), tmp_path / "out", "f32").files[0]
    factors = next(t for t in gguf.GGUFReader(file).tensors if t.name == "rope_freqs.weight").data
    model = AutoModelForCausalLM.from_pretrained(folder)
    scaled = model.model.rotary_emb.inv_freq.numpy()
    plain = 1.0 / 10000.0 ** (np.arange(0, 32, 2) / 32)
    np.testing.assert_allclose(plain / factors, scaled, rtol=1e-6)
    assert len({round(float(f), 3) for f in factors}) > 3


@pytest.mark.parametrize("outtype", ["auto", "bf16", "f16", "q8_0"])
def test_every_type_is_within_its_rounding(outtype: str, tmp_path: Path) -> None:
    folder = tiny_families.save("llama", tmp_path / "model")
    (tmp_path / "out").mkdir()
    exported = write_gguf(Trained("tiny", folder), tmp_path / "out", outtype)
    file = exported.files[0]
    assert file.name == f"tiny-{'f32' if outtype == 'auto' else outtype}.gguf"
    assert any("rounds them" in note for note in exported.notes) is (outtype in ("bf16", "f16"))
    source = _read(folder)["model.layers.0.mlp.down_proj.weight"].astype(np.float64)
    stored = next(t for t in gguf.GGUFReader(file).tensors if t.name == "blk.0.ffn_down.weight")
    found = gguf.quants.dequantize(stored.data, stored.tensor_type).astype(np.float64)
    relative = {"auto": 0.0, "bf16": 2.0**-8, "f16": 2.0**-11}
    if outtype in relative:
        assert (np.abs(found - source) <= np.abs(source) * relative[outtype] + 2.0**-25).all()
    else:
        blocks = source.reshape(-1, 32)
        step = np.abs(blocks).max(1, keepdims=True) / 127
        assert (np.abs(found.reshape(-1, 32) - blocks) <= step * (0.5 + 127 * 2.0**-11)).all()
        norm = next(t for t in gguf.GGUFReader(file).tensors if t.name == "output_norm.weight")
        assert norm.tensor_type.name == "F32"


def test_the_chat_template_and_the_special_tokens_travel(tmp_path: Path) -> None:
    folder = tiny_families.save("qwen3", tmp_path / "model")
    (tmp_path / "out").mkdir()
    file = write_gguf(Trained("tiny", folder), tmp_path / "out", "f16").files[0]
    reader = gguf.GGUFReader(file)
    template = reader.get_field("tokenizer.chat_template").contents()
    assert "generation %}" not in template
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    messages = [{"role": "user", "content": "sum"}, {"role": "assistant", "content": "return"}]
    assert tokenizer.apply_chat_template(
        messages, tokenize=False, chat_template=template
    ) == tokenizer.apply_chat_template(messages, tokenize=False)
    assert reader.get_field("tokenizer.ggml.eos_token_id").contents() == tokenizer.eos_token_id
    kinds = reader.get_field("tokenizer.ggml.token_type").contents()
    assert kinds[:6] == [3, 3, 3, 3, 3, 1]


def test_generation_marks_keep_their_control_of_whitespace() -> None:
    assert (
        without_generation_marks("a {%- generation -%} b {% endgeneration %} {% if x %}")
        == "a {%- if true -%} b {% endif %} {% if x %}"
    )


def test_a_row_of_the_vocabulary_without_a_token_is_unused(tmp_path: Path) -> None:
    folder = tiny_families.save("llama", tmp_path / "model", vocab_size=520)
    (tmp_path / "out").mkdir()
    file = write_gguf(Trained("tiny", folder), tmp_path / "out", "f32").files[0]
    reader = gguf.GGUFReader(file)
    num_tokens = len(reader.get_field("tokenizer.ggml.tokens").contents())
    kinds = reader.get_field("tokenizer.ggml.token_type").contents()
    assert num_tokens == 520
    assert kinds[-1] == 5


@pytest.mark.parametrize("lowercase", [True, False])
def test_bert_is_written_for_embeddings_and_says_what_it_lost(
    tmp_path: Path, lowercase: bool
) -> None:
    folder = tiny_families.save_bert(
        tmp_path / "model", lowercase=lowercase, architecture="BertForPreTraining"
    )
    (tmp_path / "out").mkdir()
    exported = write_gguf(Trained("tiny", folder), tmp_path / "out", "f32")
    assert exported.proofs[1].measured == 0.0
    assert "heads" in exported.notes[0]
    reader = gguf.GGUFReader(exported.files[0])
    stored = {tensor.name: tensor.data for tensor in reader.tensors}
    weights = _read(folder)
    np.testing.assert_array_equal(
        stored["blk.1.ffn_up.weight"], weights["bert.encoder.layer.1.intermediate.dense.weight"]
    )
    np.testing.assert_array_equal(
        stored["token_embd_norm.bias"], weights["bert.embeddings.LayerNorm.bias"]
    )
    assert reader.get_field("bert.attention.causal").contents() is False
    # GGUF has no cls of its own: a loader puts bos first
    assert reader.get_field("tokenizer.ggml.bos_token_id").contents() == 2
    assert reader.get_field("tokenizer.ggml.normalizer.lowercase").contents() is lowercase


def test_the_contract_of_an_exporter_holds(tmp_path: Path) -> None:
    folder = tiny_families.save("llama", tmp_path / "model")
    (tmp_path / "out").mkdir()
    trained = Trained("a name/with: odd parts", folder, texts=SENTENCES)
    exported = check_exporter(Gguf, {"outtype": "q8_0"}, trained, tmp_path / "out")
    assert exported.files[0].name == "a-name-with-odd-parts-q8_0.gguf"


@pytest.mark.parametrize(
    ("family", "config", "complaint"),
    [
        ("llama", {"hidden_act": "gelu"}, "the activation 'gelu'"),
        ("gemma2", {"query_pre_attn_scalar": 100}, "query_pre_attn_scalar 100"),
        ("gemma3", {"layer_types": ["full_attention"] * 7}, "one full_attention in 6"),
        ("gemma", {"tie_word_embeddings": False}, "not tied"),
        ("gpt2", {"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse"),
        ("qwen3", {"use_sliding_window": True, "max_window_layers": 0, "sliding_window": 8},
         "use_sliding_window"),
    ],
)  # fmt: skip
def test_what_the_loader_would_compute_otherwise_is_refused(
    family: str, config: dict, complaint: str, tmp_path: Path
) -> None:
    folder = tiny_families.save(family, tmp_path / "model", **config)
    out = tmp_path / "out"
    out.mkdir()
    with pytest.raises(ArtefactError, match=complaint) as caught:
        Gguf(GgufOptions("f32")).export(Trained("tiny", folder), out)
    assert caught.value.hint
    assert list(out.iterdir()) == []


def test_an_architecture_out_of_reach_is_refused_with_the_ones_within(tmp_path: Path) -> None:
    import transformers

    config = transformers.MixtralConfig(
        vocab_size=512, hidden_size=32, intermediate_size=32, num_hidden_layers=1,
        num_attention_heads=2, num_key_value_heads=2, num_local_experts=2, eos_token_id=0,
    )  # fmt: skip
    transformers.MixtralForCausalLM(config).save_pretrained(tmp_path / "model")
    tiny.tiny_tokenizer(tmp_path / "model")
    with pytest.raises(ArtefactError, match="'mixtral'") as caught:
        write_gguf(Trained("tiny", tmp_path / "model"), tmp_path, "f32")
    assert "qwen3" in str(caught.value.hint)


def test_numbers_beyond_float16_are_refused(tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    folder = tiny_families.save("llama", tmp_path / "model")
    weights = _read(folder)
    weights["model.layers.0.mlp.up_proj.weight"][3, 3] = 7e4
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    (tmp_path / "out").mkdir()
    with pytest.raises(ArtefactError, match="beyond float16"):
        write_gguf(Trained("tiny", folder), tmp_path / "out", "f16")


def test_a_layer_no_multiple_of_32_wide_stays_f16_and_is_named(tmp_path: Path) -> None:
    folder = tiny_families.save("llama", tmp_path / "model", intermediate_size=80)
    (tmp_path / "out").mkdir()
    exported = write_gguf(Trained("tiny", folder), tmp_path / "out", "q8_0")
    assert "model.layers.0.mlp.down_proj.weight" in exported.notes[0]


def test_the_config_may_say_a_dtype_that_gguf_has_not(tmp_path: Path) -> None:
    folder = tiny_families.save("llama", tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    config["dtype"] = "float64"
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ArtefactError, match="float64"):
        write_gguf(Trained("tiny", folder), tmp_path, "auto")
