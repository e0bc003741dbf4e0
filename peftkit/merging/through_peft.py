"""Methods with no closed formula here: peft merges one layer at a time, in float64.

The model is built with parameters that have shapes but no memory (one zero, repeated); the adapter
is attached to it as usual. A layer gets its real weights when its turn comes, is merged by peft's
own `merge`, and loses them again.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peftkit.adapters.continued import read_peft_config
from peftkit.adapters.lora_starts import moved_by
from peftkit.errors import ArtefactError, first_line
from peftkit.merging.changes import Change, Matrix, Rows, read_float64
from peftkit.merging.names import Names
from peftkit.merging.parts import Parts
from peftkit.merging.weights_io import Checkpoint, Tensor
from peftkit.system.checkpoint_files import PEFT_PREFIX, read_json

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray
    from peft import PeftModel

_CONFIG = "adapter_config.json"
_FAILURES = (
    ValueError, TypeError, KeyError, AttributeError, RuntimeError, NotImplementedError, IndexError,
)  # fmt: skip
"""What peft raises for what it cannot attach, load or merge."""
_DECOMPOSE_EACH = ("OSF", "PSOFT")
"""Methods that decompose each layer's own weight when they are attached."""
_DECOMPOSE_ALL = ("FROD",)
"""Methods that decompose many layers' weights together, and need all of them in memory."""


def layer_changes(
    folder: Path,
    base: Checkpoint,
    model_config: Mapping[str, Any],
    parts: Parts,
) -> dict[str, Change]:
    """Return what peft does to each base tensor.

    Args:
        parts: the adapter's tensors, of which peft gets those of tuner layers; whole parameters
            (`modules_to_save`, trained tokens, biases) are merged without it.

    Raises:
        ArtefactError: peft cannot attach or load the adapter on this base.
    """
    with _quietly():
        config = read_peft_config(folder, is_trainable=False)
    weights = parts.of_layers
    bare = _Bare(folder, base, model_config, parts.names)
    if _starts_from_base(config):
        return _one_at_a_time(bare, weights)
    needs_all = config.peft_type.value in _DECOMPOSE_ALL
    attached = bare.attach(weights, real=list(base.tensors) if needs_all else ())
    found: dict[str, Change] = {}
    left = tuple(weights)
    for path, module in _tuner_layers(attached):
        places = bare.places(path, module)
        merging = _Merging(folder, path, module, places)
        for name in places:
            found[bare.names.name(f"{path}.{name}")] = Change(left, merging.loader(name))
            left = ()
    return found


def _starts_from_base(config: Any) -> bool:
    """Tell whether attaching reads each layer's own weight, and perhaps moves it."""
    if config.peft_type.value in _DECOMPOSE_EACH:
        return True
    return config.peft_type.value == "LORA" and moved_by(vars(config)) is not None


def _one_at_a_time(bare: _Bare, weights: Mapping[str, Tensor]) -> dict[str, Change]:
    """Attach the adapter to one layer at a time, which has its real weight from the start on."""
    layers: dict[str, dict[str, Tensor]] = {}
    for key, tensor in weights.items():
        layers.setdefault(bare.module_of(key), {})[key] = tensor

    def change(path: str, mine: Mapping[str, Tensor], parameter: str) -> Change:
        def load(_: Matrix) -> Rows:
            attached = bare.attach(mine, real=[f"{path}.weight", f"{path}.bias"], only=path)
            (found,) = _tuner_layers(attached)
            attached.to(_float64())
            merged = _Merging(bare.folder, *found, bare.places(*found)).merge(give=False)[parameter]
            attached.unload()
            return lambda rows, start: merged[start : start + len(rows)]

        return Change(tuple(mine) if parameter == "weight" else (), load)

    found = {}
    for path, mine in layers.items():
        has_bias = any(key.endswith("lora_B.bias") for key in mine)
        for parameter in ("weight", "bias") if has_bias else ("weight",):
            found[bare.names.name(f"{path}.{parameter}")] = change(path, mine, parameter)
    return found


@dataclass(frozen=True)
class _Merging:
    """Merge one tuner layer when one of its tensors is asked for."""

    folder: Path
    path: str
    module: Any
    places: Mapping[str, Tensor]
    """Parameter of the base layer -> its tensor in the base."""

    def loader(self, name: str) -> Any:
        """Give what reads one merged tensor's rows."""

        def load(_: Matrix) -> Rows:
            merged = self.merge()[name]

            def rows(base: NDArray[np.float64], start: int) -> NDArray[np.float64]:
                return merged[start : start + len(base)]

            return rows

        return load

    def merge(self, *, give: bool = True) -> dict[str, NDArray[np.float64]]:
        """Give the layer its weights, merge, take the result as matrices, take the weights away.

        Args:
            give: False where it has them already.
        """
        import torch

        layer = self.module.get_base_layer()
        stubs = {name: _stub(parameter) for name, parameter in layer.named_parameters()}
        if give:
            parameters = dict(layer.named_parameters())
            for name, tensor in self.places.items():
                parameters[name].data = torch.from_numpy(read_float64(tensor))
        try:
            with torch.no_grad(), _quietly():
                self.module.merge(safe_merge=False)
        except _FAILURES as error:
            raise ArtefactError(
                f"{self.folder}: peft cannot merge {self.path}: {first_line(error)}",
                hint="serve base and adapter together",
            ) from error
        after = dict(self.module.get_base_layer().named_parameters())
        result = {
            name: after[name].detach().double().reshape(tensor.row_shape).numpy().copy()
            for name, tensor in self.places.items()
        }
        self.module.merged_adapters.clear()
        for name, parameter in after.items():
            parameter.data = stubs[name]
        return result


class _Bare:
    """Hold the base without memory, to attach an adapter to."""

    def __init__(
        self,
        folder: Path,
        base: Checkpoint,
        model_config: Mapping[str, Any],
        names: Names,
    ) -> None:
        from peftkit.merging.meta_model import build_on_meta

        self.folder, self.base = folder, base
        self.model = build_on_meta(base.folder, model_config, adapter=read_json(folder / _CONFIG))
        self.names = names
        _give_storage(self.model)

    def attach(
        self, weights: Mapping[str, Tensor], *, real: Iterable[str], only: str | None = None
    ) -> PeftModel:
        """Load an adapter, or one layer's part of it, into the base.

        Args:
            real: parameters of the model that have their numbers meanwhile.
            only: the one module to adapt.
        """
        from peft import get_peft_model

        self._fill(real)
        config = self._config(only)
        try:
            with _quietly():
                attached = get_peft_model(self.model, config, autocast_adapter_dtype=False)
                _load(attached, weights, self.folder)
                attached.base_model._check_merge_allowed()
        except _FAILURES as error:
            if isinstance(error, ArtefactError):
                raise
            raise ArtefactError(
                f"{self.folder} does not fit {type(self.model).__name__}, or cannot be merged into"
                f" it: {first_line(error)}",
                hint="name the base model that this adapter was trained on with --base",
            ) from error
        return attached

    def places(self, path: str, module: Any) -> dict[str, Tensor]:
        """Return a layer's parameters -> their tensors in the base."""
        found = {
            name: tensor
            for name, _ in module.get_base_layer().named_parameters()
            if (tensor := self.names.find(f"{path}.{name}")) is not None
        }
        if not found:
            raise ArtefactError(
                f"{self.folder}: the base has no weights called {path}",
                hint="name the base model that this adapter was trained on with --base",
            )
        return found

    def module_of(self, key: str) -> str:
        """Return the module of the base that an adapter's key belongs to."""
        module = key.removeprefix(PEFT_PREFIX)
        while "." in module:
            module = module.rpartition(".")[0]
            if self.names.has(module):
                return module
        raise ArtefactError(
            f"{self.folder}: the base has nothing that {key} could belong to",
            hint="name the base model that this adapter was trained on with --base",
        )

    def _fill(self, real: Iterable[str]) -> None:
        """Give numbers to some parameters, in float32 as training had them; some inits insist."""
        import torch

        wanted = set(real)
        for name, parameter in self.model.named_parameters():
            tensor = self.names.find(name)
            if tensor is not None and (name in wanted or tensor.name in wanted):
                parameter.data = torch.from_numpy(read_float64(tensor)).float()

    def _config(self, only: str | None) -> Any:
        with _quietly():
            config = read_peft_config(self.folder, is_trainable=False)
        config.task_type = None  # its wrapper would train a head, which is merged without peft
        for option in ("modules_to_save", "trainable_token_indices"):
            if getattr(config, option, None):
                setattr(config, option, None)
        if hasattr(config, "bias"):
            config.bias = "none"
        if only is not None:
            config.target_modules = [only]
            config.exclude_modules = config.layers_to_transform = config.layers_pattern = None
        if getattr(config, "init_lora_weights", None) == "loftq":
            # not followed from a foreign config otherwise; here it decides what the base was
            config.loftq_config = read_json(self.folder / _CONFIG)["loftq_config"]
        return config


def _load(attached: PeftModel, weights: Mapping[str, Tensor], folder: Path) -> None:
    """Load every tensor, and refuse an adapter that has too many or too few."""
    from peft import get_peft_model_state_dict, set_peft_model_state_dict

    tensors = {name: _as_torch(tensor) for name, tensor in weights.items()}
    wanted = set(get_peft_model_state_dict(attached, save_embedding_layers=False))
    problems = [f"lacks {key}" for key in sorted(wanted - set(tensors))]
    problems += [
        f"has {key}, which the base has no place for" for key in sorted(set(tensors) - wanted)
    ]
    if problems:
        more = f"; and {len(problems) - 3} more" if len(problems) > 3 else ""
        raise ArtefactError(
            f"{folder} was made for another base: it {'; it '.join(problems[:3])}{more}",
            hint="name the base model that this adapter was trained on with --base",
        )
    set_peft_model_state_dict(attached, tensors)


def _tuner_layers(attached: PeftModel) -> Iterator[tuple[str, Any]]:
    """Give the outermost tuner layers with their paths in the base model."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    seen: list[str] = []
    for name, module in attached.named_modules():
        if isinstance(module, BaseTunerLayer) and not any(
            name.startswith(outer + ".") for outer in seen
        ):
            seen.append(name)
            yield name.removeprefix(PEFT_PREFIX), module


def _give_storage(model: Any) -> None:
    """Replace every parameter and buffer by zeros of its shape that share one number."""
    import torch

    for module in model.modules():
        for name, parameter in list(module._parameters.items()):
            if parameter is not None:
                stub = torch.nn.Parameter(_stub(parameter), requires_grad=False)
                module._parameters[name] = stub
        for name, buffer in list(module._buffers.items()):
            if buffer is not None:
                module._buffers[name] = torch.zeros((), dtype=buffer.dtype).expand(buffer.shape)


@contextmanager
def _quietly() -> Iterator[None]:
    """Leave out what peft says of an adapter's options: it was said when the adapter was made."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _stub(like: torch.Tensor) -> torch.Tensor:
    """Return zeros of a tensor's shape that take one number's memory."""
    import torch

    return torch.zeros((), dtype=torch.float64).expand(like.shape)


def _float64() -> torch.dtype:
    import torch

    return torch.float64


def _as_torch(tensor: Tensor) -> torch.Tensor:
    """Read one tensor as torch's: float64 where it is a float, else as it is."""
    from safetensors import safe_open

    with safe_open(tensor.file, framework="pt") as stream:
        value: torch.Tensor = stream.get_tensor(tensor.name)
    return value.double() if value.is_floating_point() else value
