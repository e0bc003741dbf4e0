"""From an opened adapter to the tensors and the configuration of the merged model."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from peftkit.errors import ArtefactError
from peftkit.merging.adapter import OpenedAdapter
from peftkit.merging.folder import text_config
from peftkit.merging.heads import find_new_head, labels_of
from peftkit.merging.layout import Written, WrittenShard, lay_out
from peftkit.merging.meta_model import label_parameters, tied_parameters
from peftkit.merging.names import Names
from peftkit.merging.weights_io import FLOATS, Checkpoint, Tensor, read_into, reading


@dataclass(frozen=True)
class Plan:
    """Say what will be written, before any of it is."""

    shards: tuple[WrittenShard, ...]
    config: dict[str, Any]
    """The merged model's `config.json`."""
    changed: tuple[str, ...]
    notes: tuple[str, ...]


def plan_merge(adapter: OpenedAdapter, config: Mapping[str, Any]) -> Plan:
    """Decide what every tensor of the result is made of.

    Raises:
        ArtefactError: a changed tensor is quantized, or a new one has no place.
    """
    base = adapter.base
    draft = _Draft(adapter, copy.deepcopy(dict(config)), {}, {}, [])
    for name, tensor in base.tensors.items():
        draft.written[name] = Written(name, tensor, tensor.dtype)
    for name in adapter.targets:
        draft.put(name)
    if _may_be_tied(adapter, config):
        _settle_ties(draft, tied_parameters(base.folder, config))
    _follow_vocabulary(draft)
    _follow_tokens(draft)
    _follow_head(draft)
    new = [(draft.host_of(written), written) for written in draft.new.values()]
    changed = (*(n for n, w in draft.written.items() if n in adapter.targets and w), *draft.new)
    return Plan(lay_out(base, draft.written, new), draft.config, tuple(changed), tuple(draft.notes))


@dataclass
class _Draft:
    """Collect what is decided so far."""

    adapter: OpenedAdapter
    config: dict[str, Any]
    written: dict[str, Written]
    new: dict[str, Written]
    notes: list[str]

    def put(self, name: str, source: Tensor | None = None) -> None:
        """Write a target, from its own source or from another tensor."""
        adapter = self.adapter
        old = adapter.base.tensors.get(name)
        if source is None:
            source = adapter.replaced.get(name) or old
        if source is None:
            return  # a tied head: `_settle_ties` knows where it comes from
        dtype = old.dtype if old is not None else self._usual_dtype()
        for kind in (source.dtype, dtype):
            if kind not in FLOATS:
                raise ArtefactError(
                    f"{name} is stored as {kind}, which cannot be merged into",
                    hint="say which weights to merge onto: --onto dequantized, or --base FULL",
                )
        changes = adapter.changes.get(name, ())
        num_rows = max((change.num_rows for change in changes), default=0)
        shape = (num_rows, *source.shape[1:]) if num_rows > source.num_rows else None
        written = Written(name, source, dtype, changes, shape)
        (self.written if old is not None else self.new)[name] = written

    def host_of(self, written: Written) -> str:
        """Name the base tensor whose file takes a new tensor in."""
        if written.source.name in self.adapter.base.tensors:
            return written.source.name
        return list(self.adapter.base.tensors)[-1]

    def _usual_dtype(self) -> str:
        return next(t.dtype for t in self.adapter.base.tensors.values() if t.dtype in FLOATS)


def _may_be_tied(adapter: OpenedAdapter, config: Mapping[str, Any]) -> bool:
    """Tell whether the adapter touches an embedding or a head, so that ties matter."""
    vocabulary = text_config(config).get("vocab_size")
    for name in adapter.targets:
        old = adapter.base.tensors.get(name)
        if old is None or adapter.source(name).shape != old.shape:
            return True
        if len(old.shape) == 2 and vocabulary in old.shape:
            return True
    return False


def _settle_ties(draft: _Draft, ties: Mapping[str, str]) -> None:
    """Keep tied weights tied where the adapter treats them alike; untie them where it does not."""
    adapter = draft.adapter
    modules = [name.removesuffix(".weight") for name in ties.values()]
    names = Names.fit(adapter.base.tensors, modules)
    for head, embedding in ((names.name(h), names.name(e)) for h, e in ties.items()):
        touched = [name for name in (head, embedding) if name in adapter.targets]
        if not touched or embedding not in adapter.base.tensors:
            continue
        if head in adapter.base.tensors:
            _untie(draft, head)
        elif touched == [embedding]:
            if adapter.source(embedding).shape == adapter.base.tensors[embedding].shape and not (
                _keeps_tie(adapter)
            ):
                draft.new[head] = replace(
                    Written(head, adapter.base.tensors[embedding], draft.written[embedding].dtype)
                )
                _untie(draft, head)
        elif touched == [head]:
            draft.put(head, adapter.replaced.get(head) or adapter.base.tensors[embedding])
            _untie(draft, head)
        elif _is_same(adapter, head, embedding):
            draft.new.pop(head, None)
        else:
            draft.put(head, adapter.replaced.get(head) or adapter.base.tensors[embedding])
            _untie(draft, head)
    if draft.config.get("tie_word_embeddings") is False:
        _write_apart(draft, ties, names)


def _write_apart(draft: _Draft, ties: Mapping[str, str], names: Names) -> None:
    """Give the other parameters that the base ties, and the result does not, what they shared."""
    kept = tied_parameters(draft.adapter.base.folder, draft.config, tie_word_embeddings=False)
    for parameter in ties.keys() - kept.keys():
        name, shared = names.name(parameter), draft.written.get(names.name(ties[parameter]))
        if shared is not None and name not in draft.written and name not in draft.new:
            draft.new[name] = replace(shared, name=name)


def _keeps_tie(adapter: OpenedAdapter) -> bool:
    """Tell whether training the embedding trained what is tied to it: trained tokens do."""
    if adapter.config.get("ensure_weight_tying"):
        return True
    has_tokens = adapter.method == "TRAINABLE_TOKENS" or bool(
        adapter.config.get("trainable_token_indices")
    )
    return has_tokens and not adapter.replaced


def _is_same(adapter: OpenedAdapter, head: str, embedding: str) -> bool:
    """Tell whether head and embedding become the same numbers."""
    if adapter.config.get("ensure_weight_tying"):
        return True
    if head in adapter.changes or embedding in adapter.changes:
        return False
    return same_bytes(adapter.replaced[head], adapter.replaced[embedding])


def same_bytes(one: Tensor, other: Tensor) -> bool:
    """Compare two stored tensors."""
    if (one.dtype, one.shape) != (other.dtype, other.shape):
        return False
    step = 1 << 24
    first, second = bytearray(step), bytearray(step)
    with reading(one.file) as left, reading(other.file) as right:
        for begin in range(0, one.num_bytes, step):
            num = min(step, one.num_bytes - begin)
            read_into(left, memoryview(first)[:num], one.offset + begin, one.file)
            read_into(right, memoryview(second)[:num], other.offset + begin, other.file)
            if first[:num] != second[:num]:
                return False
    return True


def _untie(draft: _Draft, head: str) -> None:
    """Record in the configuration that a head has weights of its own."""
    text = text_config(draft.config)
    text["tie_word_embeddings"] = False
    draft.config["tie_word_embeddings"] = False
    draft.notes.append(
        f"The base ties {head} to its embedding; after this merge they differ, so it is written"
        " apart and config.json says tie_word_embeddings: false."
    )


def _follow_vocabulary(draft: _Draft) -> None:
    """Adopt the number of tokens of a resized embedding."""
    text = text_config(draft.config)
    vocabulary = text.get("vocab_size")
    for name, tensor in draft.adapter.replaced.items():
        old = draft.adapter.base.tensors.get(name)
        if old is None or tensor.shape == old.shape:
            continue
        is_resized = len(old.shape) in (1, 2) and tensor.shape[1:] == old.shape[1:]
        if not is_resized or old.shape[0] != vocabulary:
            if is_resized and name in label_parameters(draft.adapter.base.folder, draft.config):
                continue  # a head for other labels
            raise ArtefactError(
                f"{name} is {list(tensor.shape)} in the adapter and {list(old.shape)} in the base",
                hint="name the base model that this adapter was trained on with --base",
            )
        if text["vocab_size"] != tensor.shape[0]:
            text["vocab_size"] = tensor.shape[0]
            draft.notes.append(
                f"The vocabulary grew from {vocabulary} to {tensor.shape[0]} tokens."
            )


def _follow_tokens(draft: _Draft) -> None:
    """Adopt the number of tokens that were added to an embedding."""
    text = text_config(draft.config)
    for written in draft.written.values():
        num = written.final_shape[0] if any(change.num_rows for change in written.changes) else 0
        if num > (text.get("vocab_size") or num):
            draft.notes.append(f"The vocabulary grew from {text['vocab_size']} to {num} tokens.")
            text["vocab_size"] = num


def _follow_head(draft: _Draft) -> None:
    """Name the class whose head the adapter brings, and its labels; forget what it does not use."""
    head = find_new_head(draft.adapter, draft.config, draft.new)
    if head is not None:
        draft.config["architectures"] = [head.architecture]
        for name in head.left_over:
            del draft.written[name]
    draft.config.update(labels_of(draft.adapter, draft.config))


def plan_copy(base: Checkpoint, config: Mapping[str, Any]) -> Plan:
    """Plan a whole model's copy: nothing changes."""
    written = {name: Written(name, tensor, tensor.dtype) for name, tensor in base.tensors.items()}
    return Plan(lay_out(base, written), dict(config), (), ())
