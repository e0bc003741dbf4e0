"""The reference is what peft says; it is not built where it could not be right."""

from __future__ import annotations

from pathlib import Path

import peft
import pytest
from combined_fixture import as_method, two_loras, weighted_by_peft
from merge_fixture import NOTICES, load, make_adapter, make_base, tensors

from peftkit.errors import ArtefactError
from peftkit.merging.combine import combine

pytestmark = [pytest.mark.filterwarnings(f"ignore:{notice}") for notice in NOTICES]


@pytest.mark.parametrize("family", ["llama", "gpt2"])
@pytest.mark.parametrize("kind", ["linear", "ties", "ties_svd", "cat"])
def test_the_reference_is_the_base_with_peft_s_combination(tmp_path, family, kind: str) -> None:
    from peftkit.merging.adapter import open_adapter
    from peftkit.merging.combination import without_copies
    from peftkit.merging.combined_reference import load_reference
    from peftkit.merging.folder import model_config
    from peftkit.merging.inputs import find_inputs
    from peftkit.merging.method import read_method
    from peftkit.merging.weights_io import open_checkpoint

    base, one, other = two_loras(family, tmp_path)
    options = {"density": 0.5} if "ties" in kind else {}
    merge = read_method(as_method(kind, [0.6, -0.3], **options))[2]
    inputs = [find_inputs(source, None) for source in (one, other)]
    config, checkpoint = model_config(base), open_checkpoint(base)
    opened = [
        without_copies(open_adapter(a, checkpoint, model_config=config)) for a in (one, other)
    ]
    model = load_reference(inputs, opened, merge, config)
    whole = {"svd_rank": 32} if kind.endswith("svd") else {}
    deltas = weighted_by_peft(base, [one, other], [0.6, -0.3], kind, **options, **whole)
    for name, parameter in load(base).named_parameters():
        wanted = parameter.detach().numpy() + deltas.get(name.removesuffix(".weight"), 0.0)
        off = abs(model.get_parameter(name).detach().double().numpy() - wanted).max()
        assert off < 1e-6, name


def test_a_wrong_result_fails_the_comparison_and_leaves_no_doubt(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    _, one, other = two_loras("llama", tmp_path)
    method = as_method("svd", [1.0, 1.0])
    combine([one, other], method=method, out=tmp_path / "out", verify=False)
    file = tmp_path / "out" / "model.safetensors"
    broken = tensors(tmp_path / "out")
    broken["model.layers.0.self_attn.q_proj.weight"] *= 1.5
    save_file(broken, file, {"format": "pt"})
    with pytest.raises(ArtefactError, match="logits differ"):
        combine([one, other], method=method, out=tmp_path / "out")


def test_where_there_is_no_reference_it_is_said(tmp_path: Path) -> None:
    base = make_base("llama-tied", tmp_path / "base", dtype="float32")
    config = peft.LoraConfig(r=2, target_modules=["embed_tokens"])
    adapters = [make_adapter(base, tmp_path / str(s), config, seed=s) for s in (1, 2)]
    result = combine(adapters, method=as_method("svd", [1, 1]), out=tmp_path / "out")
    assert result.verification is None
    assert result.notes[-1].startswith("Logits were not compared: an adapter changes a weight")


def test_adapters_that_change_nothing_are_no_merge(tmp_path: Path) -> None:
    base = make_base("llama", tmp_path / "base", dtype="float32")
    untrained = []
    for name in ("q_proj", "k_proj"):
        model = peft.get_peft_model(load(base, "float32"), peft.LoraConfig(target_modules=[name]))
        model.save_pretrained(tmp_path / name)
        untrained.append(tmp_path / name)
    with pytest.raises(ArtefactError, match="the combination changed no number"):
        combine(untrained, method=as_method("svd", [1, 1]), out=tmp_path / "out")
