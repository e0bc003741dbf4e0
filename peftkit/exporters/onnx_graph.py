"""Trace a model into an ONNX graph: a decoder with its cache coming and going, or an encoder."""

from __future__ import annotations

import inspect
import logging
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peftkit.errors import ArtefactError
from peftkit.models.logit_parity import heads_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor
    from torch.nn import Module
    from transformers import PreTrainedModel

_BATCH, _LENGTH, _PAST = 2, 3, 5
"""Sizes of the traced example; none is 0 or 1, which a tracer would take for a constant."""


@dataclass(frozen=True)
class Graph:
    """Say what a traced model takes and gives."""

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    num_layers: int = 0
    """Layers with a cache; 0 for an encoder."""
    cache_shape: tuple[int, int] = (0, 0)
    """(key-value heads, head size)"""


def is_decoder(model: PreTrainedModel) -> bool:
    """Tell whether a model generates token by token; refuse what does it in another way.

    Raises:
        ArtefactError: an encoder-decoder, or a decoder without keys and values to keep.
    """
    if getattr(model.config, "is_encoder_decoder", False):
        raise ArtefactError(
            f"{type(model).__name__}: onnx export has no encoder-decoders",
            hint="export with --to safetensors",
        )
    return bool(model.can_generate()) and not hasattr(model, "bert")


def write_decoder(model: PreTrainedModel, file: Path) -> Graph:
    """Write logits and cache as a function of tokens and cache.

    `input_ids` and `position_ids` are [batch, sequence], `attention_mask` [batch, past +
    sequence], each `past_key_values.N.key|value` [batch, heads, past, head size] with a past
    that may be 0; `logits` are [batch, sequence, vocabulary], `present.N.key|value` the longer
    cache.
    """
    import torch

    num_layers, cache_shape = _cache_of(model)
    heads, size = cache_shape
    kinds = [f"{i}.{part}" for i in range(num_layers) for part in ("key", "value")]
    graph = Graph(
        ("input_ids", "attention_mask", "position_ids", *(f"past_key_values.{k}" for k in kinds)),
        ("logits", *(f"present.{kind}" for kind in kinds)),
        num_layers,
        cache_shape,
    )
    total = _PAST + _LENGTH
    past = [
        (torch.randn(_BATCH, heads, _PAST, size), torch.randn(_BATCH, heads, _PAST, size))
        for _ in range(num_layers)
    ]
    positions = torch.arange(_PAST, total)[None].repeat(_BATCH, 1)
    example = (_tokens(model), torch.ones(_BATCH, total, dtype=torch.long), positions, past)
    free = torch.export.Dim.AUTO
    cache_axes = {0: free, 2: free}
    axes = ({0: free, 1: free},) * 3 + ([(cache_axes, cache_axes)] * num_layers,)
    named: dict[str, Sequence[str | None]] = {
        **dict.fromkeys(graph.inputs[3:], ("batch", None, "past", None)),
        "input_ids": ("batch", "sequence"),
        "attention_mask": ("batch", "total"),
    }
    _write(_decoder_step(model), example, axes, graph, named, file)
    return graph


def write_encoder(model: PreTrainedModel, file: Path) -> Graph:
    """Write what an encoder's heads say (logits, or hidden states) as a function of its tokens."""
    import torch

    takes = inspect.signature(model.forward).parameters
    inputs = ["input_ids", "attention_mask"]
    if "token_type_ids" in takes and getattr(model.config, "type_vocab_size", 0) > 1:
        inputs.append("token_type_ids")
    tokens = _tokens(model)
    extra = {"attention_mask": torch.ones_like(tokens), "token_type_ids": torch.zeros_like(tokens)}
    example = (tokens, *(extra[name] for name in inputs[1:]))
    with torch.no_grad():
        outputs = heads_of(model(**dict(zip(inputs, example, strict=True))))
    graph = Graph(tuple(inputs), outputs)
    free = torch.export.Dim.AUTO
    axes = ({0: free, 1: free},) * len(inputs)
    _write(
        _encoder_step(model, graph), example, axes, graph, {"input_ids": ("batch", "sequence")},
        file,
    )  # fmt: skip
    return graph


def _tokens(model: PreTrainedModel) -> Tensor:
    import torch

    highest = int(model.get_input_embeddings().num_embeddings)
    tokens: Tensor = torch.arange(_BATCH * _LENGTH).reshape(_BATCH, _LENGTH) % highest
    return tokens


def _cache_of(model: PreTrainedModel) -> tuple[int, tuple[int, int]]:
    """Find by use how many layers keep keys and values, and of which shape."""
    import torch

    with torch.no_grad():
        cache = model(input_ids=_tokens(model), use_cache=True).past_key_values
    layers = getattr(cache, "layers", None) or []
    shapes = {tuple(getattr(layer, "keys", torch.empty(0)).shape) for layer in layers}
    values = {tuple(getattr(layer, "values", torch.empty(0)).shape) for layer in layers}
    shape = next(iter(shapes), ())
    if len(shapes) != 1 or shapes != values or len(shape) != 4 or shape[2] != _LENGTH:
        raise ArtefactError(
            f"{type(model).__name__}: its cache is not one of keys and values alone, which the"
            " graph could take and give",
            hint="export with --to safetensors",
        )
    return len(layers), (shape[1], shape[3])


def _decoder_step(model: PreTrainedModel) -> Module:
    """Wrap a decoder as a function of tensors."""
    import torch
    from transformers import DynamicCache

    make_mask = _mask_maker(model)

    class Step(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(
            self,
            input_ids: Tensor,
            attention_mask: Tensor,
            position_ids: Tensor,
            past: list[tuple[Tensor, Tensor]],
        ) -> tuple[Tensor, list[tuple[Tensor, Tensor]]]:
            """Return the logits and the longer cache."""
            cache = DynamicCache()
            for index, (keys, values) in enumerate(past):
                cache.update(keys, values, index)
            output = self.model(
                input_ids=input_ids,
                attention_mask=make_mask(attention_mask, input_ids.shape[1]),
                position_ids=position_ids,
                past_key_values=cache,
                use_cache=True,
            )
            layers = output.past_key_values.layers
            return output.logits, [(layer.keys, layer.values) for layer in layers]

    return Step().eval()


def _mask_maker(model: PreTrainedModel) -> Callable[[Tensor, int], Any]:
    """Make the additive masks of a decoder, of its sliding layers too, from 0 and 1 per token.

    The model's own masks are made by functions that a tracer cannot follow.
    """
    import torch

    config = model.config
    window = getattr(config, "sliding_window", None)
    kinds = set(getattr(config, "layer_types", None) or ())

    def mask(attention_mask: Tensor, length: int, reach: int | None) -> Tensor:
        total = attention_mask.shape[1]
        queries = (torch.arange(length) + (total - length))[:, None]
        keys = torch.arange(total)[None, :]
        allowed = keys <= queries
        if reach is not None:
            allowed = allowed & (queries - keys < reach)
        seen = allowed[None] & (attention_mask[:, None, :] > 0)
        return torch.where(seen[:, None], 0.0, torch.finfo(torch.float32).min)

    if "sliding_attention" in kinds:
        return lambda attention_mask, length: {
            kind: mask(attention_mask, length, window if kind == "sliding_attention" else None)
            for kind in sorted(kinds)
        }
    slides = window is not None and not kinds and config.model_type == "mistral"
    return lambda attention_mask, length: mask(attention_mask, length, window if slides else None)


def _encoder_step(model: PreTrainedModel, graph: Graph) -> Module:
    """Wrap an encoder as a function of tensors."""
    import torch

    class Step(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
            """Return the outputs in the graph's order."""
            found = self.model(**dict(zip(graph.inputs, tensors, strict=True)))
            return tuple(found[name] for name in graph.outputs)

    return Step().eval()


def _write(  # noqa: PLR0913, PLR0917 - a traced module is all of this
    step: Module,
    example: Sequence[Any],
    axes: Sequence[Any],
    graph: Graph,
    named: Mapping[str, Sequence[str | None]],
    file: Path,
) -> None:
    """Trace, translate, name the free axes, and save."""
    import torch

    is_variadic = len(example) == len(graph.inputs)
    with _quiet(), torch.no_grad():
        # Two steps: given a module, torch.onnx tries other ways to trace first, for a minute.
        program = torch.export.export(
            step, tuple(example), dynamic_shapes=(axes,) if is_variadic else tuple(axes),
            strict=False,
        )  # fmt: skip
        written = torch.onnx.export(
            program, dynamo=True, input_names=list(graph.inputs),
            output_names=list(graph.outputs), verbose=False,
        )  # fmt: skip
        if written is None:
            raise ArtefactError("torch.onnx gave no program")
        _name_axes(written.model, named)
        written.save(file)


def _name_axes(model: Any, named: Mapping[str, Sequence[str | None]]) -> None:
    """Give the free axes names that say what they are, wherever they occur."""
    names: dict[str, str] = {}
    for value in model.graph.inputs:
        for axis, name in zip(value.shape, named.get(value.name, ()), strict=False):
            if name is not None and not isinstance(axis, int):
                names.setdefault(str(axis.value), name)
    values = [*model.graph.inputs, *(out for node in model.graph for out in node.outputs)]
    for value in values:
        for index, axis in enumerate(value.shape or ()):
            if not isinstance(axis, int) and str(axis.value) in names:
                value.shape[index] = names[str(axis.value)]


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the tracer's talk of packages that are not needed, and its own deprecations, away."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
