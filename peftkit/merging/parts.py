"""An adapter's tensors, sorted by what they are for."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from peftkit.merging.names import Names
from peftkit.merging.weights_io import Checkpoint, Tensor
from peftkit.system.checkpoint_files import PEFT_PREFIX

_PARAMETERS = (
    r"lora_(?:A|B)\.(?:weight|bias)|lora_embedding_[AB]|lora_magnitude_vector(?:\.weight)?"
    r"|vera_lambda_[bd]|hada_(?:w[12]_[ab]|t[12])|lokr_(?:w[12](?:_[ab])?|t2)|ia3_l|miss_block|hra_u"
    r"|oft_R\.weight"
)
_KEY = re.compile(rf"(?P<module>.+?)\.(?P<parameter>{_PARAMETERS})")
_TOKENS = re.compile(r"(?P<module>.+?)\.(?:token_adapter\.)?trainable_tokens_delta")
_LAYER_NORM = re.compile(r"\.ln_tuning_layers\.")
_SHARED = ("vera_A", "vera_B")


@dataclass(frozen=True)
class Parts:
    """Sort an adapter's tensors by what they are for."""

    names: Names
    layers: Mapping[str, Mapping[str, Tensor]]
    """Module -> parameter -> tensor, for keys that a formula knows."""
    plain: Mapping[str, Tensor]
    """Whole parameters of the model -> tensor."""
    tokens: Mapping[str, Tensor]
    """Embedding -> the rows of its trained tokens."""
    shared: Mapping[str, Tensor]
    unknown: Mapping[str, Tensor]
    """Everything else: peft knows."""

    @property
    def of_layers(self) -> dict[str, Tensor]:
        """Return the tensors of tuner layers, by their whole keys."""
        inside = [tensor for some in self.layers.values() for tensor in some.values()]
        return {t.name: t for t in (*inside, *self.shared.values(), *self.unknown.values())}

    @property
    def has_strangers(self) -> bool:
        """Tell whether a module's weight is not in the checkpoint under any prefix."""
        return any(self.weight(module) is None for module in (*self.layers, *self.tokens))

    def weight(self, module: str) -> Tensor | None:
        """Return the weight that a module's changes start from."""
        parameter = f"{module}.weight"
        return self.plain.get(parameter) or self.names.find(parameter)


def group(
    tensors: Mapping[str, Tensor],
    base: Checkpoint,
    config: Mapping[str, Any],
    names: Names | None = None,
) -> Parts:
    """Sort an adapter's keys.

    Args:
        names: how the model's names are found in the checkpoint; by the best prefix when None.
    """
    layers: dict[str, dict[str, Tensor]] = {}
    tokens: dict[str, Tensor] = {}
    shared: dict[str, Tensor] = {}
    rest: dict[str, Tensor] = {}
    for key, tensor in tensors.items():
        inner = key.removeprefix(PEFT_PREFIX)
        last = key.removeprefix("base_model.")
        if last in _SHARED:
            shared[last] = tensor
        elif match := _TOKENS.fullmatch(inner):
            tokens[match["module"]] = tensor
        elif match := _KEY.fullmatch(inner):
            layers.setdefault(match["module"], {})[match["parameter"]] = tensor
        else:
            rest[_LAYER_NORM.sub(".", inner.replace(".base_layer.", "."))] = tensor
    names = names or Names.fit(
        base.tensors, (*layers, *tokens, *(n.rpartition(".")[0] for n in rest))
    )
    saved = tuple(config.get("modules_to_save") or ())
    plain = {
        name: tensor
        for name, tensor in rest.items()
        if names.find(name) is not None or _is_inside(name, saved) or name == "lm_head.weight"
    }
    unknown = {name: tensor for name, tensor in rest.items() if name not in plain}
    return Parts(names, layers, plain, tokens, shared, unknown)


def _is_inside(parameter: str, saved: tuple[str, ...]) -> bool:
    """Tell whether a parameter lies in a module of `modules_to_save`, whose names are endings."""
    while "." in parameter:
        parameter = parameter.rpartition(".")[0]
        if parameter.endswith(saved):
            return True
    return False
