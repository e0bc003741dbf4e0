"""Where each parameter of a model lies in its checkpoint, as transformers loads it.

Since version 5 transformers renames tensors on loading and joins experts into stacks; the files
keep one tensor an expert.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from peftkit.errors import ArtefactError
from peftkit.merging.weights_io import Checkpoint, Tensor

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class Piece:
    """Name a tensor of the checkpoint that is part of a parameter."""

    tensor: Tensor
    expert: int | None = None
    """Index along the parameter's first axis; None when the tensor is the whole parameter."""
    start: int = 0
    """First row within the expert's matrix."""


@dataclass(frozen=True)
class Origins:
    """Map a model's parameters to the checkpoint's tensors."""

    model: PreTrainedModel
    """Without weights."""
    pieces: Mapping[str, tuple[Piece, ...]]
    unclear: Mapping[str, str]
    """Parameter -> the operation that makes it of tensors, which peftkit does not know."""
    left_over: frozenset[str] = frozenset()
    """Tensors of the checkpoint that the model has no place for."""

    @property
    def aliases(self) -> dict[str, str]:
        """Return the parameters that are one whole tensor each -> its name."""
        return {
            name: some[0].tensor.name
            for name, some in self.pieces.items()
            if len(some) == 1 and some[0].expert is None
        }

    def of(self, parameter: str) -> tuple[Piece, ...]:
        """Return the tensors that a parameter is made of.

        Raises:
            ArtefactError: there are none, or an operation is not known here.
        """
        if parameter in self.unclear:
            raise ArtefactError(
                f"{parameter} is made of the checkpoint's tensors by {self.unclear[parameter]},"
                " which peftkit cannot merge through",
                hint="save the base once with transformers' save_pretrained(..., "
                "save_original_format=False) and name that folder with --base",
            )
        if parameter not in self.pieces:
            raise ArtefactError(
                f"the base has no {parameter}",
                hint="name the base model that this adapter was trained on with --base",
            )
        return self.pieces[parameter]


def find_origins(model: PreTrainedModel, base: Checkpoint) -> Origins:
    """Follow transformers' own conversion of names and stacks, on names alone."""
    from transformers.conversion_mapping import get_model_conversion_mapping
    from transformers.core_model_loading import (
        WeightConverter,
        WeightRenaming,
        dot_natural_key,
        rename_source_key,
    )

    mapping = get_model_conversion_mapping(model)
    renamings = [entry for entry in mapping if isinstance(entry, WeightRenaming)]
    converters = [entry for entry in mapping if isinstance(entry, WeightConverter)]
    by_pattern = {pattern: c for c in converters for pattern in c.source_patterns}
    known = model.state_dict()
    sources: dict[str, dict[str, list[Tensor]]] = {}
    whole: dict[str, tuple[Piece, ...]] = {}
    left_over = set()
    for name in sorted(base.tensors, key=dot_natural_key):
        prefix = model.base_model_prefix
        found, pattern = rename_source_key(name, renamings, converters, prefix, known)
        if found not in known:
            found, pattern = rename_source_key(name, [], [], prefix, known)
        if found not in known:
            left_over.add(name)
        if pattern is None:
            whole[found] = (Piece(base.tensors[name]),)
        else:
            sources.setdefault(found, {}).setdefault(pattern, []).append(base.tensors[name])
    pieces, unclear = dict(whole), {}
    for parameter, patterns in sources.items():
        converter = by_pattern[next(iter(patterns))]
        parts = _stacked(converter, patterns)
        if parts is None:
            unclear[parameter] = " + ".join(type(op).__name__ for op in converter.operations)
        else:
            pieces[parameter] = parts
    return Origins(model, pieces, unclear, frozenset(left_over))


def _stacked(converter: Any, patterns: Mapping[str, list[Tensor]]) -> tuple[Piece, ...] | None:
    """Lay out a stack of experts, each one matrix or several above each other."""
    kinds = [(type(op).__name__, getattr(op, "dim", None)) for op in converter.operations]
    if kinds not in ([("MergeModulelist", 0)], [("MergeModulelist", 0), ("Concatenate", 1)]):
        return None
    pieces, start = [], 0
    for pattern in converter.source_patterns:
        tensors = patterns.get(pattern, [])
        pieces += [Piece(tensor, expert, start) for expert, tensor in enumerate(tensors)]
        start += tensors[0].shape[0] if tensors else 0
    return tuple(pieces)
