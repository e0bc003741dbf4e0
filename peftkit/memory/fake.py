"""Build a recipe's model without weights: on meta, adapter attached, then as fake CPU tensors.

torch keeps no kernel for fake CUDA tensors in a build without CUDA, hence the CPU; where a GPU's
kernels allocate otherwise, `peftkit.memory.cuda_kernels` says so.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from peftkit.errors import PeftkitError, UsageError, first_line
from peftkit.memory.wrapped import parts_of, remake
from peftkit.plugins import ModelKind
from peftkit.plugins.quantizer import PLAIN, Storage

if TYPE_CHECKING:
    import torch
    from torch._subclasses.fake_tensor import FakeTensorMode
    from transformers import PretrainedConfig

    from peftkit.plugins import Adapter
    from peftkit.plugins.quantizer import Quantizer
    from peftkit.recipe.schema import ModelSection


@dataclass(frozen=True)
class Skeleton:
    """Hold a model on meta, and which of its tensors came with the base."""

    model: Any
    base_ids: frozenset[int]
    """Identities of the base's parameters and buffers."""
    storage: Storage = PLAIN
    """How the base's weights are packed."""

    def is_base(self, tensor: torch.Tensor) -> bool:
        """Tell a tensor of the base from one that the adapter brought."""
        return id(tensor) in self.base_ids


@dataclass
class FakeModel:
    """Hold a model of fake tensors with where each came from."""

    model: Any
    mode: FakeTensorMode
    storage: Storage = PLAIN
    terms: dict[str, list[torch.Tensor]] = field(default_factory=dict)
    """`base` and `adapter` -> their tensors."""


def build_skeleton(
    config: PretrainedConfig,
    section: ModelSection,
    *,
    kind: ModelKind,
    quantizer: Quantizer | None,
    adapter: Adapter | None,
) -> Skeleton:
    """Build the model on meta, quantized and adapted as a run would, but without any weight.

    Raises:
        UsageError: transformers cannot build this architecture without its weights.
        PlanningError: the adapter reads the weights to set itself up, or nobody knows how the
            quantization packs them.
    """
    import torch

    storage = storage_of(quantizer)

    def build(where: AbstractContextManager[Any]) -> Skeleton:
        with torch.device("meta"):
            model = _build_base(copy.deepcopy(config), section, kind)
            storage.convert(model)
        base_ids = frozenset(id(tensor) for tensor in (*model.parameters(), *model.buffers()))
        with where:
            return Skeleton(_attach(adapter, model), base_ids, storage)

    try:
        return build(torch.device("meta"))
    except PlanningError:
        # Some adapters compute small tables of their own first, which must have values.
        return build(nullcontext())


def materialize(skeleton: Skeleton, mode: FakeTensorMode) -> FakeModel:
    """Replace every tensor of a meta model by a fake CPU tensor, in place.

    Shared tensors stay shared; quantized weights become their packed storage with its scales.
    """
    import torch
    from torch import nn

    fake = FakeModel(skeleton.model, mode, skeleton.storage, {"base": [], "adapter": []})
    made: dict[int, torch.Tensor] = {}

    def empty(tensor: torch.Tensor) -> torch.Tensor:
        with mode:
            return torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype)

    def replace(tensor: torch.Tensor) -> torch.Tensor:
        if id(tensor) not in made:
            new = remake(tensor, empty)
            if isinstance(tensor, nn.Parameter):
                new = nn.Parameter(new, requires_grad=tensor.requires_grad)
            made[id(tensor)] = new
            fake.terms["base" if skeleton.is_base(tensor) else "adapter"] += parts_of(new)
        return made[id(tensor)]

    for module in skeleton.model.modules():
        fake.terms["base"] += skeleton.storage.pack(module, mode)
        for table in _tables(module):
            for name, tensor in list(table.items()):
                if isinstance(tensor, torch.Tensor) and not _is_fake(tensor):
                    table[name] = replace(tensor)
    return fake


def _tables(module: torch.nn.Module) -> Iterator[dict[str, Any]]:
    """Give all that may hold a module's tensors: registered, a plain attribute, or in a dict."""
    attributes = vars(module)
    yield from (value for value in attributes.values() if type(value) is dict)
    yield attributes


_PROBES = "train for one step instead: the run probes its longest batch first"


@contextmanager
def explained_operators() -> Iterator[None]:
    """Turn an operator that fake tensors cannot run, or a model that fails, into an error.

    Raises:
        PlanningError: names the operator, or says what the model's own code raised.
    """
    from torch._subclasses import fake_tensor

    unsupported = (
        fake_tensor.UnsupportedFakeTensorException,
        fake_tensor.DynamicOutputShapeException,
        fake_tensor.DataDependentOutputException,
        NotImplementedError,
    )
    try:
        yield
    except unsupported as error:
        operator = getattr(error, "func", None) or first_line(error)
        raise PlanningError(
            f"the operator {operator} cannot run without values, so this step cannot be planned",
            hint=_PROBES,
        ) from error
    except (PeftkitError, MemoryError):
        raise
    except Exception as error:  # of code that is not ours, at sizes that it may not expect
        raise PlanningError(
            "the model fails where it is followed without values, so that this step cannot be"
            f" planned: {type(error).__name__}: {first_line(error)}",
            hint=_PROBES,
        ) from error


class PlanningError(PeftkitError, RuntimeError):
    """Raised when a step cannot be planned though it may well be run."""

    exit_code = 5


def _build_base(config: PretrainedConfig, section: ModelSection, kind: ModelKind) -> Any:
    import transformers

    try:
        auto_class = getattr(transformers, kind.auto_class)
        return auto_class.from_config(config, **_keywords(config, section))
    except (PeftkitError, MemoryError):
        raise
    except Exception as error:  # whatever a configuration's values lead to
        raise UsageError(
            f"transformers cannot build {section.path or config.model_type!r} as {kind.auto_class}"
            f" without its weights: {first_line(error)}",
            hint="plan a model of a known architecture; custom code cannot be planned",
        ) from error


def _keywords(config: PretrainedConfig, section: ModelSection) -> dict[str, Any]:
    """Return what `from_config` takes from the recipe's model section."""
    import torch

    dtype = section.dtype if section.dtype != "auto" else (config.dtype or "float32")
    keywords: dict[str, Any] = {"dtype": getattr(torch, dtype) if isinstance(dtype, str) else dtype}
    implementation = section.attn_implementation
    if implementation is not None:
        # A flash-attention package need not be installed to plan it: it allocates what SDPA's
        # flash kernel does, and takes no dense mask, which the batch leaves out then.
        keywords["attn_implementation"] = (
            "sdpa" if implementation.startswith("flash") else implementation
        )
    return keywords


def storage_of(quantizer: Quantizer | None) -> Storage:
    """Return how a base's weights are packed.

    Raises:
        PlanningError: nobody can say.
    """
    found = PLAIN if quantizer is None else quantizer.storage
    if found is None:
        raise PlanningError(
            f"how {type(quantizer).__name__} packs weights is not known, and so is what a step on"
            " them takes",
            hint="train for one step instead: the run probes its longest batch first",
        )
    return found


def _attach(adapter: Adapter | None, model: Any) -> Any:
    if adapter is None:
        return model
    try:
        return adapter.attach(model)
    except (PeftkitError, RuntimeError) as error:
        if any(sign in str(error) for sign in _NEEDS_VALUES):
            raise PlanningError(
                f"{type(adapter).__name__} reads the weights' values to set itself up, so its"
                f" memory cannot be planned without them: {first_line(error)}",
                hint="train for one step instead: the run probes its longest batch first",
            ) from error
        raise


_NEEDS_VALUES = ("meta tensors", "register_meta", "on meta", "meta device", "data-dependent")
"""Words of torch's errors where an operator would need values that a meta tensor has not."""


def _is_fake(tensor: Any) -> bool:
    from torch._subclasses.fake_tensor import FakeTensor

    # A parameter made of a fake tensor is one itself.
    return all(isinstance(part, FakeTensor) for part in parts_of(tensor))
