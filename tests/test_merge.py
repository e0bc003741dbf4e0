"""Merging is exact: every element is the float64 result of plain peft, rounded once."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import merge_combinations
import merge_fixture
import numpy as np
import peft
import pytest
import torch

from peftkit.errors import ArtefactError, UsageError
from peftkit.merge import merge

COMBINATIONS = [
    pytest.param(made, id=made.name, marks=pytest.mark.slow if made.is_swept else ())
    for made in merge_combinations.combinations()
]

pytestmark = [pytest.mark.filterwarnings(f"ignore:{n}") for n in merge_fixture.NOTICES]


@pytest.fixture(scope="module")
def base_of(tmp_path_factory):
    """Return a function that makes each tiny base once."""
    made: dict[tuple[str, str], Path] = {}

    def make(kind: str, dtype: str = "bfloat16") -> Path:
        if (kind, dtype) not in made:
            folder = tmp_path_factory.mktemp(f"{kind}-{dtype}")
            made[kind, dtype] = merge_fixture.make_base(kind, folder, dtype=dtype)
        return made[kind, dtype]

    return make


@pytest.mark.parametrize("combination", COMBINATIONS)
def test_every_element_is_plain_pefts_float64_result_rounded_once(
    combination, base_of, tmp_path
) -> None:
    base = base_of(combination.base, combination.dtype)
    adapter = merge_fixture.make_adapter(
        base, tmp_path / "adapter", combination.config(), dtype=combination.adapter_dtype
    )
    exact = merge_fixture.tensors(
        merge_fixture.reference(
            base, adapter, tmp_path / "reference", dtype=combination.reference_dtype
        )
    )
    result = merge(adapter, out=tmp_path / "out", base=str(base), verify=False)
    merged, before = merge_fixture.tensors(tmp_path / "out"), merge_fixture.tensors(base)
    assert set(merged) == set(exact)
    assert result.changed
    for name, tensor in merged.items():
        if not tensor.is_floating_point():
            assert torch.equal(tensor, exact[name])
            continue
        found, wanted = tensor.double().numpy(), exact[name].double().numpy()
        assert tensor.dtype == getattr(torch, combination.dtype)
        if combination.dtype == "float32":
            unit = np.abs(wanted).max() * 2.0**-23
            assert np.abs(found - wanted).max() <= 4 * unit, name
        else:
            rounded = merge_fixture.nearest(wanted, combination.dtype)
            assert np.array_equal(found, rounded), name
        if name not in result.changed:
            assert torch.equal(tensor.view(torch.uint8), before[name].view(torch.uint8)), name


TIED = {
    "head": {"target_modules": ["lm_head", "q_proj"]},
    "embedding": {"target_modules": ["embed_tokens", "q_proj"]},
    "both": {"target_modules": ["embed_tokens", "lm_head"]},
    "both-dora": {"target_modules": ["embed_tokens", "lm_head"], "use_dora": True},
    "alike": {"target_modules": ["embed_tokens"], "ensure_weight_tying": True},
    "saved-head": {"target_modules": ["q_proj"], "modules_to_save": ["lm_head"]},
    "saved-embedding": {"target_modules": ["q_proj"], "modules_to_save": ["embed_tokens"]},
    "saved-both": {"target_modules": ["q_proj"], "modules_to_save": ["lm_head", "embed_tokens"]},
    "tokens-apart": {
        "target_modules": ["q_proj"],
        "trainable_token_indices": {"embed_tokens": [1, 4], "lm_head": [2, 7]},
    },
}
STAYS_TIED = {"alike"}


@pytest.mark.parametrize("kind", TIED)
def test_tied_weights_come_out_as_base_and_adapter_compute(kind, base_of, tmp_path) -> None:
    # plain peft's merge adds an embedding's delta to the head that shares its storage (peft#2018),
    # so that its forward, which does not, is the reference
    base = base_of("llama-tied", "float32")
    config = merge_combinations.lora(**TIED[kind])()
    adapter = merge_fixture.make_adapter(base, tmp_path / "adapter", config)
    merge(adapter, out=tmp_path / "out", base=str(base), verify=False)
    attached = peft.PeftModel.from_pretrained(merge_fixture.load(base, "float64"), adapter).double()
    ids = torch.arange(2, 30)[None]
    with torch.no_grad():
        wanted = attached(ids).logits
        found = merge_fixture.load(tmp_path / "out", "float64")(ids).logits
    assert float((found - wanted).abs().max()) < 1e-6 * float(wanted.abs().max())
    is_tied = json.loads((tmp_path / "out/config.json").read_text())["tie_word_embeddings"]
    assert is_tied is (kind in STAYS_TIED)


def test_a_resized_vocabulary_brings_its_embedding_and_its_size(base_of, tmp_path) -> None:
    base = base_of("llama-tied", "float32")
    model = merge_fixture.load(base, "float32")
    model.resize_token_embeddings(53, mean_resizing=False)
    attached = peft.get_peft_model(model, merge_combinations.lora(target_modules=["q_proj"])())
    for parameter in attached.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data + 0.01
    attached.save_pretrained(tmp_path / "adapter", save_embedding_layers=True)
    result = merge(tmp_path / "adapter", out=tmp_path / "out", base=str(base), verify=True)
    merged = merge_fixture.load(tmp_path / "out", "float32")
    assert merged.config.vocab_size == 53
    ids = torch.arange(40, 53)[None]
    with torch.no_grad():
        difference = (merged(ids).logits - attached.eval()(ids).logits).abs().max()
    assert float(difference) < 1e-4
    assert "grew from 48 to 53" in " ".join(result.notes)


def test_a_classifier_trained_on_a_language_model_becomes_one(base_of, tmp_path) -> None:
    from transformers import LlamaForSequenceClassification

    base = base_of("llama", "float32")
    model = LlamaForSequenceClassification.from_pretrained(base, num_labels=3)
    config = merge_combinations.lora(target_modules=["q_proj"], task_type="SEQ_CLS")()
    attached = peft.get_peft_model(model, config)
    for parameter in attached.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data + 0.01 * torch.randn_like(parameter)
    attached.eval().save_pretrained(tmp_path / "adapter")
    merge(tmp_path / "adapter", out=tmp_path / "out", base=str(base), verify=True)
    merged = LlamaForSequenceClassification.from_pretrained(tmp_path / "out").eval()
    ids = torch.arange(2, 30)[None]
    with torch.no_grad():
        assert torch.allclose(merged(ids).logits, attached(ids).logits, atol=1e-5)


def test_a_whole_model_is_copied_byte_for_byte(base_of, tmp_path) -> None:
    base = base_of("llama")
    result = merge(base, out=tmp_path / "out", verify=True)
    assert result.method == "full" and result.changed == ()
    assert result.verification is not None and result.verification.max_difference == 0
    for name in ("model.safetensors", "config.json"):
        assert (tmp_path / "out" / name).read_bytes() == (base / name).read_bytes()


def test_an_untrained_adapter_does_not_verify(base_of, tmp_path) -> None:
    base = base_of("llama")
    config = merge_combinations.lora()()
    peft.get_peft_model(merge_fixture.load(base, "float32"), config).save_pretrained(tmp_path / "a")
    with pytest.raises(ArtefactError, match="changed no number"):
        merge(tmp_path / "a", out=tmp_path / "out", base=str(base))
    result = merge(tmp_path / "a", out=tmp_path / "out", base=str(base), verify=False)
    assert result.changed == ()


@pytest.fixture
def sharded(base_of, tmp_path):
    """Return (base of several shards, adapter)."""
    base = tmp_path / "sharded"
    model = merge_fixture.load(base_of("llama"), "bfloat16")
    model.save_pretrained(base, max_shard_size="20KB")
    assert len(list(base.glob("*.safetensors"))) >= 3
    config = merge_combinations.lora(target_modules=["q_proj", "down_proj"])()
    return base, merge_fixture.make_adapter(base, tmp_path / "adapter", config)


def test_shards_keep_their_names_and_the_index_counts_bytes(sharded, tmp_path) -> None:
    base, adapter = sharded
    merge(adapter, out=tmp_path / "out", base=str(base))
    old = json.loads((base / "model.safetensors.index.json").read_text())
    new = json.loads((tmp_path / "out/model.safetensors.index.json").read_text())
    assert new["weight_map"] == old["weight_map"]
    assert new["metadata"]["total_size"] == old["metadata"]["total_size"]
    assert merge_fixture.load(tmp_path / "out", "float32").num_parameters() > 0


def test_the_inputs_are_never_touched(sharded, tmp_path) -> None:
    base, adapter = sharded

    def state():
        files = sorted(f for folder in (base, adapter) for f in folder.rglob("*"))
        return [(f, f.stat().st_mtime_ns, f.stat().st_size, f.read_bytes()) for f in files]

    before = state()
    merge(adapter, out=tmp_path / "out", base=str(base))
    assert state() == before


def test_a_finished_merge_is_not_done_again_and_another_is_refused(sharded, tmp_path) -> None:
    base, adapter = sharded
    merge(adapter, out=tmp_path / "out", base=str(base))
    before = {f: f.stat().st_mtime_ns for f in (tmp_path / "out").iterdir()}
    merge(adapter, out=tmp_path / "out", base=str(base))
    assert {f: f.stat().st_mtime_ns for f in (tmp_path / "out").iterdir()} == before
    config = merge_combinations.lora(target_modules=["o_proj"])()
    other = merge_fixture.make_adapter(base, tmp_path / "other", config)
    with pytest.raises(ArtefactError, match="holds a finished merge of other inputs"):
        merge(other, out=tmp_path / "out", base=str(base))


def test_a_folder_of_something_else_is_refused(sharded, tmp_path) -> None:
    base, adapter = sharded
    (tmp_path / "out").mkdir()
    (tmp_path / "out/thesis.tex").write_text("")
    with pytest.raises(UsageError, match=r"holds something else: thesis\.tex"):
        merge(adapter, out=tmp_path / "out", base=str(base))
    for taken in (base, adapter, tmp_path):
        with pytest.raises(UsageError, match="which the merge reads"):
            merge(adapter, out=taken, base=str(base))


KILLED = """
import os, sys
from pathlib import Path
from peftkit.merging import workers, writer
from peftkit.merge import merge
writes, pwrite, fsync = 0, os.pwrite, os.fsync
limit, writer._SYNC_BYTES, workers._WORTH_A_FORK = map(int, sys.argv[4:7])

def count(*arguments):
    global writes
    writes += 1
    if writes > limit:
        os._exit(9)

def counted(call):
    def run(*arguments):
        count()
        return call(*arguments)
    return run

os.pwrite, os.fsync = counted(pwrite), counted(fsync)
os.rename = counted(os.rename)
merge(Path(sys.argv[1]), out=Path(sys.argv[2]), base=sys.argv[3], verify=False)
print("finished")
"""


@pytest.mark.parametrize(
    ("sync_bytes", "worth_a_fork"),
    [
        pytest.param(1, 1 << 30, id="journal-every-tensor"),
        pytest.param(1 << 28, 1 << 30, id="journal-every-shard", marks=pytest.mark.slow),
        pytest.param(1, 0, id="worker-processes", marks=pytest.mark.slow),
    ],
)
def test_stopped_anywhere_the_folder_is_whole_or_recognisably_not_and_goes_on(
    sharded, tmp_path, sync_bytes, worth_a_fork
) -> None:
    base, adapter = sharded
    merge(adapter, out=tmp_path / "whole", base=str(base), verify=False)
    whole = merge_fixture.tensors(tmp_path / "whole")
    out, limit, num_stops = tmp_path / "out", 1, 0
    while True:
        command = [sys.executable, "-c", KILLED, str(adapter), str(out), str(base)]
        command += [str(limit), str(sync_bytes), str(worth_a_fork)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if "finished" in done.stdout:
            break
        # With workers, one of them may be the first to reach the limit.
        is_worker = worth_a_fork == 0 and "a worker process was killed" in done.stderr
        assert done.returncode == 9 or is_worker, done.stderr
        num_stops += 1
        assert not (out / "merge.json").exists()
        limit += 3
    assert num_stops >= 3
    found = merge_fixture.tensors(out)
    assert all(torch.equal(found[name], tensor) for name, tensor in whole.items())
    assert set(found) == set(whole)
    assert {f.name for f in out.iterdir()} == {f.name for f in (tmp_path / "whole").iterdir()}
    wanted = json.loads((tmp_path / "whole/merge.json").read_text())
    assert json.loads((out / "merge.json").read_text())["changed"] == wanted["changed"]


def test_nothing_heavy_is_imported_to_stream(sharded, tmp_path) -> None:
    base, adapter = sharded
    script = (
        "import sys; from pathlib import Path; from peftkit.merge import merge\n"
        f"merge(Path({str(adapter)!r}), out=Path({str(tmp_path / 'out')!r}), base={str(base)!r},"
        " verify=False)\n"
        "print([m for m in ('torch', 'transformers', 'peft') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert done.stdout.strip() == "[]", done.stderr


def test_a_base_with_a_row_that_is_no_number_is_never_verified(
    tmp_path: Path, tiny_model: Path, tiny_run: Path
) -> None:
    from safetensors.torch import load_file, save_file

    base = Path(shutil.copytree(tiny_model, tmp_path / "base"))
    weights = load_file(base / "model.safetensors")
    weights["model.embed_tokens.weight"][511] = float("nan")  # a token that no text has
    save_file(weights, base / "model.safetensors", {"format": "pt"})
    with pytest.raises(ArtefactError, match=r"embed_tokens\.weight.* hold NaN or infinity"):
        merge(tiny_run, out=tmp_path / "out", base=str(base), verify=True, allow_other_base=True)
