"""A fake model shares, packs and counts what the real one does; what cannot be built says why."""

from __future__ import annotations

import pytest
import real_step
import torch
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.testing._internal.two_tensor import TwoTensor
from transformers import AutoConfig

from peftkit.adapters.peft_types import Lora, Shira
from peftkit.errors import UsageError
from peftkit.memory.fake import (
    PlanningError,
    build_skeleton,
    explained_operators,
    materialize,
)
from peftkit.plugins import CAUSAL_LM, SEQ_2_SEQ_LM
from peftkit.plugins.quantizer import Quantizer, Storage
from peftkit.quantizers.bitsandbytes import BitsAndBytes
from peftkit.recipe.schema import ModelSection


def _config(**changes):
    options = {**real_step.LLAMA, **changes}
    return AutoConfig.for_model(options.pop("model_type"), **options)


def _skeleton(config, adapter=None, kind=CAUSAL_LM, quantizer=None):
    return build_skeleton(
        config,
        ModelSection(path="x", dtype="bfloat16"),
        kind=kind,
        quantizer=quantizer,
        adapter=adapter,
    )


def test_tensors_are_fake_and_tied_weights_stay_tied() -> None:
    from peft import LoraConfig

    skeleton = _skeleton(_config(tie_word_embeddings=True), Lora(LoraConfig(r=4)))
    fake = materialize(skeleton, FakeTensorMode())
    model = fake.model.get_base_model()
    assert all(isinstance(p, FakeTensor) for p in fake.model.parameters())
    assert model.lm_head.weight is model.model.embed_tokens.weight
    trained = {id(p) for p in fake.model.parameters() if p.requires_grad}
    assert trained == {id(t) for t in fake.terms["adapter"]}
    base = sum(p.numel() for p in fake.terms["base"] if isinstance(p, torch.nn.Parameter))
    assert base == sum(p.numel() for p in model.parameters() if not p.requires_grad)


def test_a_four_bit_base_keeps_its_layout_when_it_is_scored(monkeypatch) -> None:
    from bitsandbytes.nn import modules
    from transformers import BitsAndBytesConfig

    # What a processor with AVX512-BF16 says, where the first forward in evaluation would repack
    monkeypatch.setattr(modules, "has_avx512bf16", lambda: True)
    nf4 = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4")
    model = _skeleton(_config(), quantizer=BitsAndBytes(nf4)).model
    layers = [m for m in model.modules() if isinstance(m, modules.Linear4bit)]
    assert layers
    assert not any(layer.support_avx512bf16_for_cpu for layer in layers)


class Wraps(Storage):
    """Hold the last norm's weight as two tensors in one."""

    def convert(self, model) -> None:
        parts = (torch.empty(64, device="meta") for _ in range(2))
        model.model.norm.weight = torch.nn.Parameter(TwoTensor(*parts), requires_grad=False)


class Wrapped(Quantizer):
    """Wrap a weight."""

    Config = None
    storage = Wraps()


def test_a_weight_that_wraps_tensors_wraps_fake_ones() -> None:
    fake = materialize(_skeleton(_config(), quantizer=Wrapped(None)), FakeTensorMode())
    weight = fake.model.model.norm.weight
    assert (type(weight), weight.requires_grad) == (TwoTensor, False)
    storages = [part.untyped_storage()._cdata for part in fake.terms["base"]]
    for part in (weight.a, weight.b):
        assert type(part) is FakeTensor
        assert storages.count(part.untyped_storage()._cdata) == 1
    assert not any(type(part) is TwoTensor for part in fake.terms["base"])


def test_a_quantization_that_nobody_can_simulate_is_unknown() -> None:
    from transformers import QuantoConfig

    from peftkit.quantizers.native import Quanto

    with pytest.raises(PlanningError, match="how Quanto packs weights is not known") as caught:
        _skeleton(_config(), quantizer=Quanto(QuantoConfig("int8")))
    assert caught.value.exit_code == 5


def test_an_architecture_that_is_not_there_is_named() -> None:
    with pytest.raises(UsageError, match="cannot build 'x' as AutoModelForSeq2SeqLM"):
        _skeleton(_config(), kind=SEQ_2_SEQ_LM)


def test_an_adapter_that_reads_weights_is_named() -> None:
    from peft import ShiraConfig

    with pytest.raises(PlanningError, match="Shira reads the weights' values") as caught:
        _skeleton(_config(), Shira(ShiraConfig(target_modules=["q_proj"])))
    assert caught.value.exit_code == 5


def test_an_operator_that_needs_values_is_named() -> None:
    with (
        FakeTensorMode(),
        pytest.raises(PlanningError, match=r"aten\.nonzero\.default"),
        explained_operators(),
    ):
        torch.empty(4).nonzero()


def test_a_model_that_fails_is_said_to_be_unplanned() -> None:
    with (
        pytest.raises(PlanningError, match="KeyError: 'a'") as caught,
        explained_operators(),
    ):
        {}["a"]
    assert caught.value.exit_code == 5
