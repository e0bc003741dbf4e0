"""What is wrong with a quantizer, in words: for `peftkit.testing.check_quantizer`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from peftkit.plugins import CAUSAL_LM, Chosen
from peftkit.recipe.signatures import signature_of
from peftkit.recipe.strict import Gate

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

    from peftkit.plugins.quantizer import Quantizer, Storage
    from peftkit.recipe.schema import ModelSection


def option_problems(cls: type[Quantizer], options: Mapping[str, Any]) -> list[str]:
    """Look at what a quantizer says of options before any object of it is made."""
    config: Any = cls.Config
    known = signature_of(config).options
    found = [f"conflicts() finds {conflict}" for conflict in cls.conflicts(options)]
    if cls.keeps_modules is not None and cls.keeps_modules not in known:
        found.append(f"keeps_modules is {cls.keeps_modules!r}, which is no option")
    for one in cls.decide(options, dtype="float32", kept_modules=("head",)):
        if not isinstance(one, Chosen):
            found.append(f"decide() returned {one!r}")
        elif one.option not in known:
            found.append(f"decide() sets {one.option!r}, which is no option")
        elif not one.reason:
            found.append(f"decide() gives no reason for {one.option}")
    chosen = [("proposals()", proposed) for proposed in cls.proposals(dtype="bfloat16")]
    chosen += [("trials()", tried) for tried in cls.trials().values()]
    for member, some in chosen:
        gate = Gate("recipe.yaml", {})
        gate.check_options("quantizers", dict(some), signature_of(config))
        found += [f"{member}: {problem.key} {problem}" for problem in gate.problems]
    return found


def problems_of_a_base(
    quantizer: Quantizer, section: ModelSection, plain: PreTrainedModel
) -> list[str]:
    """Load a small base with a quantizer, and compare it with the plain one and with its plan."""
    from peftkit.adapters.base import count_parameters
    from peftkit.models.base import load_base

    found = []
    if quantizer.bits is not None and quantizer.bits not in range(1, 17):
        found.append(f"bits is {quantizer.bits!r}, no number of a weight's bits")
    base = load_base(section, kind=CAUSAL_LM, quantizer=quantizer)
    total = sum(parameter.numel() for parameter in plain.parameters())
    counted = count_parameters(base, quantizer)[1]
    if counted != total:
        found.append(f"num_weights() counts {counted} parameters of {total}")
    weight: torch.Tensor = plain.get_submodule("model.layers.0.mlp.down_proj").weight.data
    back = quantizer.there_and_back(weight)
    if back is not None and back.shape != weight.shape:
        found.append(f"there_and_back() makes {tuple(back.shape)} of {tuple(weight.shape)}")
    return [*found, *_storage_problems(quantizer, section, base)]


def _storage_problems(
    quantizer: Quantizer, section: ModelSection, base: PreTrainedModel
) -> list[str]:
    """Compare what the planner packs with what loading brings, module by module."""
    from torch._subclasses.fake_tensor import FakeTensorMode

    from peftkit.memory.fake import build_skeleton, materialize
    from peftkit.models.load import load_config

    storage = quantizer.storage
    if storage is None:
        return []
    skeleton = build_skeleton(
        load_config(section), section, kind=CAUSAL_LM, quantizer=quantizer, adapter=None
    )
    fake = dict(materialize(skeleton, FakeTensorMode()).model.named_modules())
    sizes = {
        name: (_held_bytes(module, storage), _held_bytes(fake[name], storage))
        for name, module in base.named_modules()
    }
    return [
        f"{name} holds {real} bytes, and {planned} are planned"
        for name, (real, planned) in sizes.items()
        if real != planned
    ]


def _held_bytes(module: torch.nn.Module, storage: Storage) -> int:
    """Add up a module's own tensors, each storage once."""
    from peftkit.memory.wrapped import parts_of

    registered = (*module._parameters.values(), *module._buffers.values())
    held = (*registered, *storage.side_tensors(module))
    parts = [part for tensor in held if tensor is not None for part in parts_of(tensor)]
    storages = [part.untyped_storage() for part in parts]
    return sum({storage._cdata: storage.nbytes() for storage in storages}.values())
