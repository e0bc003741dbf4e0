"""The proof: a right merge passes, a wrong one fails, on rows that are named."""

from __future__ import annotations

import merge_combinations
import merge_fixture
import numpy as np
import peft
import pytest
import tiny
import tiny_families
import torch
from safetensors.torch import load_file, save_file

from peftkit.errors import ArtefactError
from peftkit.merge import merge
from peftkit.merging.folder import model_config
from peftkit.merging.inputs import find_inputs
from peftkit.merging.verify import pick_rows, verify_merge

pytestmark = [pytest.mark.filterwarnings(f"ignore:{n}") for n in merge_fixture.NOTICES]


DTYPES = {"bfloat16": "BF16", "float16": "F16"}


@pytest.fixture(scope="module")
def merged(tmp_path_factory):
    """Return (base, adapter, merged folder) of the tiny Llama with a tokenizer, in bfloat16."""
    folder = tmp_path_factory.mktemp("verify")
    model = merge_fixture.load(tiny.tiny_llama(folder / "float32"), "bfloat16")
    model.save_pretrained(folder / "base")
    tiny.tiny_tokenizer(folder / "base")
    adapter = merge_fixture.make_adapter(
        folder / "base", folder / "adapter", merge_combinations.lora()()
    )
    merge(adapter, out=folder / "out", base=str(folder / "base"), verify=False)
    return folder / "base", adapter, folder / "out"


def prove(merged):
    base, adapter, out = merged
    return verify_merge(out, find_inputs(adapter, str(base)), model_config(base), dtypes=["BF16"])


def test_a_right_merge_is_within_rounding_on_real_rows(merged) -> None:
    proof = prove(merged)
    assert 0 < proof.max_difference <= proof.tolerance
    assert proof.rows == "the embedded docstring-summaries, validation"
    assert (proof.num_rows, proof.num_tokens) == (4, 4 * 128)
    assert proof.num_agreeing > 0.95 * proof.num_tokens


@pytest.mark.parametrize("fault", ["left out", "doubled", "swapped", "nan"])
def test_a_wrong_merge_fails(fault, merged) -> None:
    base, _, out = merged
    right = load_file(out / "model.safetensors")
    before = load_file(base / "model.safetensors")
    wrong = {name: tensor.clone() for name, tensor in right.items()}
    name = "model.layers.1.mlp.down_proj.weight"
    if fault == "left out":
        wrong[name] = before[name]
    elif fault == "doubled":
        wrong[name] = (2 * right[name].float() - before[name].float()).bfloat16()
    elif fault == "swapped":
        other = "model.layers.0.mlp.down_proj.weight"
        wrong[name], wrong[other] = right[other], right[name]
    else:
        wrong[name][0, 0] = float("nan")
    save_file(wrong, out / "model.safetensors", metadata={"format": "pt"})
    try:
        with pytest.raises(
            ArtefactError, match=r"logits differ from base \+ adapter by up to|hold NaN or infinity"
        ):
            prove(merged)
    finally:
        save_file(right, out / "model.safetensors", metadata={"format": "pt"})


@pytest.fixture(scope="module", params=["bfloat16", "float16"])
def grown(request, tmp_path_factory):
    """Return (base, adapter, dtype) of a GPT-2 whose RandLora makes weights 15 times larger."""
    folder = tmp_path_factory.mktemp("grown")
    base = tiny_families.save("gpt2", folder / "float32")
    merge_fixture.load(base, request.param).save_pretrained(folder / "base")
    tiny.tiny_tokenizer(folder / "base")
    config = peft.RandLoraConfig(target_modules=["c_attn", "c_proj", "c_fc"])
    adapter = merge_fixture.make_adapter(folder / "base", folder / "adapter", config)
    return folder / "base", adapter, request.param


def test_where_rounding_moves_much_the_proof_is_peft_s_merge_rounded_alike(grown, tmp_path) -> None:
    base, adapter, dtype = grown
    result = merge(adapter, out=tmp_path / "out", base=str(base), verify=True)
    proof = result.verification
    assert proof.lost_to_rounding > proof.tolerance >= proof.max_difference
    # peft's forward and peft's merge agree in float64, and rounding that merge costs as much
    whole = merge_fixture.reference(base, adapter, tmp_path / "whole")
    rounded = merge_fixture.load(whole, dtype).double()
    attached = peft.PeftModel.from_pretrained(merge_fixture.load(base, "float64"), adapter).double()
    ids = torch.tensor(pick_rows(find_inputs(adapter, str(base)), base, model_config(base)).ids[0])
    with torch.no_grad():
        exact = attached(ids[None]).logits
        assert float((merge_fixture.load(whole)(ids[None]).logits - exact).abs().max()) < 1e-10
        ours = merge_fixture.load(tmp_path / "out")(ids[None]).logits
        assert float((ours - exact).abs().max()) > proof.tolerance
        assert float((ours - rounded(ids[None]).logits).abs().max()) < proof.tolerance
    for name, tensor in merge_fixture.tensors(tmp_path / "out").items():
        wanted = merge_fixture.tensors(whole)[name].numpy()
        assert np.array_equal(tensor.double().numpy(), merge_fixture.nearest(wanted, dtype)), name


def test_a_wrong_merge_fails_there_too(grown, tmp_path) -> None:
    base, adapter, dtype = grown
    out = tmp_path / "out"
    merge(adapter, out=out, base=str(base), verify=False)
    right, before = load_file(out / "model.safetensors"), load_file(base / "model.safetensors")
    inputs = find_inputs(adapter, str(base))
    name = "transformer.h.1.mlp.c_fc.weight"
    for wrong in (before[name], right[name] * 1.1):
        save_file({**right, name: wrong}, out / "model.safetensors", metadata={"format": "pt"})
        with pytest.raises(ArtefactError, match=r"logits differ from base \+ adapter by up to"):
            verify_merge(out, inputs, model_config(base), dtypes=[DTYPES[dtype]])


def test_a_missing_tensor_fails(merged) -> None:
    _, _, out = merged
    right = load_file(out / "model.safetensors")
    save_file({k: v for k, v in right.items() if "norm" not in k}, out / "model.safetensors",
              metadata={"format": "pt"})  # fmt: skip
    try:
        with pytest.raises(ArtefactError, match="missing"):
            prove(merged)
    finally:
        save_file(right, out / "model.safetensors", metadata={"format": "pt"})


def test_rows_are_the_runs_own_where_there_are_any(merged, tmp_path) -> None:
    import dataclasses
    import json

    from peftkit.rundir.paths import RunDir

    base, adapter, out = merged
    sample = {"prompt": [{"role": "user", "content": "sum of numbers"}], "reference": "a sum"}
    (tmp_path / "samples.jsonl").write_text(json.dumps(sample) + "\n")
    inputs = dataclasses.replace(find_inputs(adapter, str(base)), run_dir=RunDir(tmp_path))
    rows = pick_rows(inputs, out, model_config(base))
    assert rows.origin.endswith("samples.jsonl") and len(rows.ids) == 1


def test_a_model_that_takes_no_tokens_says_so(merged) -> None:
    base, adapter, out = merged
    with pytest.raises(ArtefactError, match="takes no token ids"):
        pick_rows(find_inputs(adapter, str(base)), out, {})


def test_encoder_decoders_are_compared_too(tmp_path) -> None:
    base = merge_fixture.make_base("t5", tmp_path / "t5", dtype="float32")
    config = merge_combinations.lora(target_modules=["q", "wo"], task_type="SEQ_2_SEQ_LM")()
    adapter = merge_fixture.make_adapter(base, tmp_path / "adapter", config)
    result = merge(adapter, out=tmp_path / "out", base=str(base), verify=True)
    assert result.verification.max_difference < 1e-5
    assert result.verification.rows.startswith("made-up token ids")
    assert torch.isfinite(torch.tensor(result.verification.rms_difference))
