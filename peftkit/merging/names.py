"""From the names of modules in a model to the names of tensors in its checkpoint."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from peftkit.merging.weights_io import Tensor

CONV1D_TYPES = ("clvp", "decision_transformer", "gpt2", "imagegpt", "openai-gpt")
"""`model_type`s whose blocks hold transformers' Conv1D, which stores a weight as (in, out)."""
CONV1D_NAMES = ("c_attn", "c_fc", "c_proj", "q_attn")


@dataclass(frozen=True)
class Names:
    """Find a model's parameters in a checkpoint that may have another prefix.

    A checkpoint of a bare `BertModel` has `encoder.layer.0...` where the classifier around it
    has `bert.encoder.layer.0...`, and the other way round: one prefix is missing everywhere.
    """

    tensors: Mapping[str, Tensor]
    drop: str = ""
    """Prefix of the model's names that the checkpoint does not have."""
    add: str = ""
    """Prefix of the checkpoint's names that the model does not have."""
    aliases: Mapping[str, str] = field(default_factory=dict)
    """Parameters whose names differ in another way, as transformers loads them."""
    tied: Mapping[str, str] = field(default_factory=dict)
    """Parameters that share another one's weights -> that other one."""

    @classmethod
    def fit(cls, tensors: Mapping[str, Tensor], modules: Iterable[str]) -> Names:
        """Choose the prefix under which most of these modules have a weight in the checkpoint."""
        wanted = list(modules)
        firsts = {name.split(".", 1)[0] + "." for name in wanted}
        starts = {name.split(".", 1)[0] + "." for name in tensors}
        choices = [
            cls(tensors),
            *(cls(tensors, drop=first) for first in sorted(firsts)),
            *(cls(tensors, add=start) for start in sorted(starts)),
        ]
        return max(choices, key=lambda names: sum(names.has(module) for module in wanted))

    def has(self, module: str) -> bool:
        """Tell whether a module has a weight in the checkpoint."""
        return self.find(f"{module}.weight") is not None

    def find(self, parameter: str) -> Tensor | None:
        """Return a parameter's tensor, or that of what it is tied to; None when there is none."""
        own = self.tensors.get(self.name(parameter)) or self.tensors.get(parameter)
        if own is None and parameter in self.tied:
            return self.tensors.get(self.name(self.tied[parameter]))
        return own

    def name(self, parameter: str) -> str:
        """Return what a parameter is called in the checkpoint."""
        if parameter in self.aliases:
            return self.aliases[parameter]
        return self.add + parameter.removeprefix(self.drop)


def is_conv1d(module: str, model_type: str) -> bool:
    """Tell whether a module is a transformers Conv1D."""
    return model_type in CONV1D_TYPES and module.rsplit(".", 1)[-1] in CONV1D_NAMES
