"""Decode what transformers' `generate` prepared, without the work that no answer needs.

`generate` hands its batch to `decode` in place of its own loop. Prompts of like length are read in
groups, so that few positions are padding; keys and values lie where those of the whole answer have
room, so that a token copies none of those before it; and a finished row leaves the batch. The next
token is chosen for all rows at once, as in transformers' loop: processors and draws see the same.

Imported where something is generated, since it imports torch and transformers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import torch
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer
from transformers.generation import GenerationMode

from peftkit.plugins.native import accepted_inputs, native_model, num_virtual_tokens
from peftkit.scoring.at_once import tokens_at_once

if TYPE_CHECKING:
    from peft import PeftModel
    from torch import Tensor
    from transformers import GenerationConfig, LogitsProcessorList, PreTrainedModel
    from transformers.generation import StoppingCriteriaList

_UNKNOWN = (
    "stop_strings", "cache_implementation", "guidance_scale", "prefill_chunk_size",
)  # fmt: skip


def loop_for(model: PreTrainedModel | PeftModel, config: GenerationConfig) -> Mapping[str, Any]:
    """Return the options that make `generate` use `decode`, where it can answer."""
    return {} if why_not(model, config) else {"custom_generate": decode}


def why_not(model: PreTrainedModel | PeftModel, config: GenerationConfig) -> str:
    """Say what keeps `decode` from answering; empty where nothing does."""
    return next(_obstacles(model, config), "")


def _obstacles(model: PreTrainedModel | PeftModel, config: GenerationConfig) -> Iterator[str]:
    native = native_model(model)
    modes = (GenerationMode.GREEDY_SEARCH, GenerationMode.SAMPLE)
    if config.get_generation_mode() not in modes:
        yield "several answers are weighed at a time"
    yield from (f"it knows no {key}" for key in _UNKNOWN if getattr(config, key) is not None)
    if not config.use_cache:
        yield "use_cache is false"
    if native.config.is_encoder_decoder:
        yield "the model is an encoder-decoder"
    if num_virtual_tokens(model):
        yield "a soft prompt stands before each prompt"
    is_known = native._supports_default_dynamic_cache() and not native._is_stateful
    if not is_known or "past_key_values" not in accepted_inputs(native):
        yield "the model's cache is its own"
    elif any(type(layer) is not DynamicLayer for layer in _empty_cache(native).layers):
        yield "some layers keep other than the keys and values of all tokens"


def decode(
    model: PreTrainedModel,
    input_ids: Tensor,
    *,
    logits_processor: LogitsProcessorList,
    stopping_criteria: StoppingCriteriaList,
    generation_config: GenerationConfig,
    **inputs: Any,
) -> Tensor:
    """Return the prompts with their answers behind them, as transformers' `_sample` does.

    Args:
        inputs: of the model's forward; `generate` would withhold those that are named here.
    """
    num_new = generation_config.max_length - input_ids.shape[1]
    batch = _Batch(model, inputs, input_ids, num_new)
    logits = batch.read_prompts(input_ids)
    unfinished = torch.ones(len(input_ids), dtype=torch.bool, device=input_ids.device)
    with model._optimize_model_for_decode():  # of experts, as around `_sample`
        while True:
            scores = logits_processor(input_ids, batch.of_all_rows(logits))
            chosen = _choose(scores, generation_config)
            chosen = chosen.where(unfinished, generation_config.pad_token_id or 0)
            input_ids = torch.cat([input_ids, chosen[:, None]], dim=-1)
            unfinished = unfinished & ~stopping_criteria(input_ids, None)
            if not unfinished.any():
                return input_ids
            batch.keep(unfinished)
            logits = batch.read_last(input_ids)


def _choose(scores: Tensor, config: GenerationConfig) -> Tensor:
    if not config.do_sample:
        return scores.argmax(dim=-1)
    return torch.multinomial(scores.softmax(dim=-1), num_samples=1).squeeze(1)


def _empty_cache(model: PreTrainedModel) -> DynamicCache:
    return DynamicCache(config=model.config.get_text_config(decoder=True))


class Room(DynamicLayer):  # type: ignore[misc] # transformers is untyped
    """Hold a layer's keys and values where those of whole answers have room."""

    def __init__(self, num_rows: int, width: int, num_new: int) -> None:
        """Take the number of rows, and of tokens: of the longest prompt, and those to come."""
        super().__init__()
        self._num_rows, self._width, self._num_new = num_rows, width, num_new
        self._length = width
        self._all: tuple[Tensor, ...] = ()

    def put(self, start: int, layer: DynamicLayer) -> None:
        """Take what was read of some rows' prompts, which end where the longest one ends."""
        read, length = (layer.keys, layer.values), self._width + self._num_new
        if not self._all:
            shapes = [(self._num_rows, one.shape[1], length, one.shape[3]) for one in read]
            self._all = tuple(one.new_zeros(shape) for one, shape in zip(read, shapes, strict=True))
            self.lazy_initialization(*self._all)
        for whole, one in zip(self._all, read, strict=True):
            whole[start : start + len(one), :, self._width - one.shape[2] : self._width] = one
        self._show(self._num_rows)

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> Any:
        """Add the keys and values of tokens behind all others, and return all."""
        end = self._length + key_states.shape[2]
        for whole, one in zip(self._all, (key_states, value_states), strict=True):
            whole[: len(one), :, self._length : end] = one
        self._length = end
        self._show(len(key_states))
        return self.keys, self.values

    def move(self, sources: Tensor, holes: Tensor, num_rows: int) -> None:
        """Move rows from the end into the slots that others left; `num_rows` remain."""
        for whole in self._all:
            whole[holes] = whole[sources]
        self._show(num_rows)

    def _show(self, num_rows: int) -> None:
        self.keys, self.values = (whole[:num_rows, :, : self._length] for whole in self._all)


class _Batch:
    """Hold the rows that are not yet finished, each in a slot of the cache."""

    def __init__(
        self, model: PreTrainedModel, inputs: dict[str, Any], input_ids: Tensor, num_new: int
    ) -> None:
        self._model, self._num_new = model, num_new
        self._num_rows, self._width = input_ids.shape
        mask, self._positions = inputs.pop("attention_mask", None), inputs.pop("position_ids", None)
        self._mask = mask if mask is None else torch.nn.functional.pad(mask, (0, num_new), value=1)
        self._cache = inputs.pop("past_key_values")
        self._inputs = inputs
        self._rows = torch.arange(self._num_rows, device=input_ids.device)
        """The row in each slot."""

    def read_prompts(self, input_ids: Tensor) -> Tensor:
        """Return the logits behind each prompt, and keep its keys and values."""
        rooms = [Room(self._num_rows, self._width, self._num_new - 1) for _ in self._cache.layers]
        found = [self._read_group(input_ids, rooms, *group) for group in self._groups(input_ids)]
        self._cache.layers = rooms
        return torch.cat(found)

    def _read_group(self, input_ids: Tensor, rooms: list[Room], rows: slice, first: int) -> Tensor:
        read, mask, positions = _empty_cache(self._model), self._mask, self._positions
        logits = self._logits(
            input_ids[rows, first:],
            read,
            None if mask is None else mask[rows, first : self._width],
            None if positions is None else positions[..., rows, first:],
            is_first_iteration=True,
        )
        for room, layer in zip(rooms, read.layers, strict=True):
            room.put(rows.start, layer)
        return logits

    def _groups(self, input_ids: Tensor) -> Iterator[tuple[slice, int]]:
        """Give rows that follow each other, and where the longest of their prompts begins."""
        firsts = [0] * self._num_rows
        if self._mask is not None:
            firsts = (self._width - self._mask[:, : self._width].sum(dim=-1)).tolist()
        at_once, start = tokens_at_once(input_ids.device.type), 0
        for stop in range(1, self._num_rows + 1):
            longest = self._width - min(firsts[start : stop + 1])
            is_full = at_once is not None and (stop + 1 - start) * longest > at_once
            if stop == self._num_rows or is_full:
                yield slice(start, stop), min(firsts[start:stop])
                start = stop

    def of_all_rows(self, logits: Tensor) -> Tensor:
        """Return logits of every row: of those that are finished zeros, which nobody reads."""
        if len(logits) == self._num_rows:  # none was finished, so that each is in its own slot
            return logits
        scores = logits.new_zeros((self._num_rows, logits.shape[1]))
        scores[self._rows] = logits
        return scores

    def keep(self, unfinished: Tensor) -> None:
        """Let finished rows go; the last ones move into their slots."""
        is_kept = unfinished[self._rows]
        num_kept = int(is_kept.sum())
        if num_kept == len(self._rows):
            return
        holes = (~is_kept[:num_kept]).nonzero().squeeze(1)
        sources = is_kept[num_kept:].nonzero().squeeze(1) + num_kept
        self._rows[holes] = self._rows[sources]
        self._rows = self._rows[:num_kept]
        for room in self._cache.layers:
            room.move(sources, holes, num_kept)

    def read_last(self, input_ids: Tensor) -> Tensor:
        """Return the logits behind the last token of each row that is kept."""
        length, mask, positions = input_ids.shape[1], self._mask, self._positions
        if positions is not None:
            positions = positions[..., self._rows, -1:] + (length - self._width)
        return self._logits(
            input_ids[self._rows],
            self._cache,
            None if mask is None else mask[self._rows, :length],
            positions,
            next_sequence_length=1,
        )

    def _logits(
        self,
        input_ids: Tensor,
        cache: DynamicCache,
        mask: Tensor | None,
        positions: Tensor | None,
        **how: Any,
    ) -> Tensor:
        if mask is not None and bool(mask.all()):
            mask = None  # which lets attention do without one
        given = self._inputs if positions is None else {**self._inputs, "position_ids": positions}
        inputs = self._model.prepare_inputs_for_generation(
            input_ids, past_key_values=cache, attention_mask=mask, **how, **given
        )
        logits: Tensor = self._model(**inputs, return_dict=True).logits[:, -1]
        return logits.to(copy=True, dtype=torch.float32)
