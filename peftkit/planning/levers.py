"""What may be changed in a recipe so that it fits: each lever, its keys, and who holds it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from peftkit.errors import UsageError
from peftkit.memory.settings import checkpoints_activations, method_settings
from peftkit.plugins import find, plugin_names
from peftkit.recipe.signatures import signature_of

if TYPE_CHECKING:
    from peftkit.plugins import Machine
    from peftkit.recipe.schema import Recipe

OPTIMIZERS = ("adamw_torch_fused", "adamw_8bit")
"""AdamW with 8 bytes of state a parameter, and with 2."""

_FLASH = ("flash_attention", "flex_attention", "varlen")


@dataclass(frozen=True)
class Lever:
    """Name one thing that may be changed, and to what."""

    name: str
    keys: tuple[str, ...]
    """The recipe's keys that say it."""
    choices: tuple[Mapping[str, Any], ...] = ()
    """Dotted key -> value each, beside what the recipe has now."""
    slow: tuple[bool, ...] = (False,)
    """Whether what the recipe has now costs speed, and then whether each choice does."""
    pinned_by: tuple[str, ...] = ()
    """Keys that stand in the recipe and hold it; empty when it is open."""

    def options(self) -> Iterator[tuple[Mapping[str, Any], bool]]:
        """Give what may stand, as it is first, and whether that costs speed."""
        return zip(({}, *self.choices), self.slow, strict=True)

    @property
    def saver(self) -> Mapping[str, Any] | None:
        """Return the choice that takes less memory than what the recipe has, for its speed."""
        if self.slow[0]:
            return None
        return next((choice for choice, is_slow in self.options() if is_slow), None)


@dataclass(frozen=True)
class Levers:
    """Hold every lever of a recipe, and how its rows are batched now."""

    levers: tuple[Lever, ...]
    """All but the micro-batch, in the order in which they are explained."""
    batching: Lever
    """Rows of one forward; its choices follow from the plan."""
    scoring: Lever
    """Prompts that are scored at once after training; the same holds."""
    micro_batch: int
    accumulation: int

    @property
    def rows_of_a_step(self) -> int:
        """Return the global batch on one device."""
        return self.micro_batch * self.accumulation

    def batching_at(self, micro_batch: int, accumulation: int | None = None) -> dict[str, Any]:
        """Return the settings of a micro-batch that keep a step's rows; none where it is so now."""
        accumulation = accumulation or self.rows_of_a_step // micro_batch
        if (micro_batch, accumulation) == (self.micro_batch, self.accumulation):
            return {}
        return dict(zip(self.batching.keys, (micro_batch, accumulation), strict=True))

    def savers(self) -> dict[str, Mapping[str, Any]]:
        """Return for each lever the choice that takes less memory than what the recipe has."""
        return {lever.name: lever.saver for lever in self.levers if lever.saver is not None}

    def open(self) -> tuple[Lever, ...]:
        """Return those that may be moved."""
        return tuple(lever for lever in self.levers if lever.choices and not lever.pinned_by)

    def pinned(self) -> tuple[str, ...]:
        """Return the keys that stand in the recipe and hold a lever."""
        every = (*self.levers, self.batching, self.scoring)
        return tuple(key for lever in every for key in lever.pinned_by)

    def releasable(self) -> tuple[str, ...]:
        """Return those of the pinned keys whose release would give more room."""
        movable = [lever for lever in self.levers if lever.saver is not None]
        movable += [self.batching] if self.micro_batch > 1 else []
        return tuple(key for lever in movable for key in lever.pinned_by)


@dataclass(frozen=True)
class _Reader:
    """Read which of a recipe's keys stand in it."""

    recipe: Recipe
    free: frozenset[str]
    settings: Mapping[str, Any]
    known: frozenset[str] = field(default_factory=frozenset)

    def at(self, option: str) -> str:
        """Return the dotted key of a method's option."""
        return f"method.{self.recipe.method.name}.{option}"

    def holds(self, *keys: str) -> tuple[str, ...]:
        """Return those of these keys that are stated and not released."""
        stated = {o.partition("=")[0].strip() for o in self.recipe.overrides}
        stated.update(self.recipe.lines)
        return tuple(
            key
            for key in keys
            if key not in self.free and any(_is_same_or_below(s, key) for s in stated)
        )


def read_levers(recipe: Recipe, machine: Machine, *, free: Sequence[str] = ()) -> Levers:
    """Find what may be changed: what the recipe leaves open, and what `free` releases.

    Raises:
        UsageError: `free` names a key that no lever has.
    """
    settings = method_settings(recipe, machine)
    known = frozenset(signature_of(find("methods", recipe.method.name).Config).options)
    reader = _Reader(recipe, frozenset(free), settings, known)
    levers = tuple(_levers(reader))
    batching, scoring = _batching(reader), _scoring(reader)
    keys = {key for lever in (*levers, batching, scoring) for key in lever.keys}
    unknown = [key for key in free if key not in keys]
    if unknown:
        raise UsageError(
            f"--free {unknown[0]}: fit never changes that", hint=f"it changes {', '.join(keys)}"
        )
    return Levers(
        levers,
        batching,
        scoring,
        micro_batch=int(settings.get("per_device_train_batch_size") or 1),
        accumulation=int(settings.get("gradient_accumulation_steps") or 1),
    )


def _levers(reader: _Reader) -> Iterator[Lever]:
    yield _quantization(reader)
    if "optim" in reader.known:
        yield _optimizer(reader)
    if "activation_checkpointing" in reader.known or "gradient_checkpointing" in reader.known:
        yield _checkpointing(reader)
    if "packing" in reader.known:
        yield _packing(reader)


def _quantization(reader: _Reader) -> Lever:
    key, recipe = "model.quantize", reader.recipe
    now = recipe.model.quantize
    choices: tuple[Mapping[str, Any], ...] = ()
    if now is not None:
        choices = ({key: None},)
    elif not recipe.adapter.is_full and recipe.model.config is None:
        choices = tuple({key: proposed} for proposed in _quantized(recipe.model.dtype))
    slow = (now is not None, *(now is None for _ in choices))
    return Lever("quantization", (key,), choices, slow, reader.holds(key))


def _quantized(dtype: str) -> Iterator[dict[str, Any]]:
    """Give what the quantizers propose; one that cannot be imported proposes nothing."""
    for name in plugin_names("quantizers"):
        try:
            plugin = find("quantizers", name)
        except UsageError:
            continue
        yield from ({name: dict(options)} for options in plugin.proposals(dtype=dtype))


def _optimizer(reader: _Reader) -> Lever:
    key = reader.at("optim")
    now = reader.settings.get("optim")
    names = [name for name in OPTIMIZERS if name != now]
    slow = tuple("8bit" in str(name) for name in (now, *names))
    return Lever("optimizer", (key,), tuple({key: n} for n in names), slow, reader.holds(key))


def _checkpointing(reader: _Reader) -> Lever:
    names = [n for n in ("activation_checkpointing", "gradient_checkpointing") if n in reader.known]
    keys = tuple(reader.at(name) for name in names)
    is_on = checkpoints_activations(dict(reader.settings))
    # The older name, where it stands, decides nothing once the newer one is set.
    choices = ({keys[0]: not is_on},)
    return Lever("checkpointing", keys, choices, (is_on, not is_on), reader.holds(*keys))


def _packing(reader: _Reader) -> Lever:
    key = reader.at("packing")
    attention = reader.recipe.model.attn_implementation or ""
    # Without a kernel that knows where rows end, packing builds a mask of length x length.
    is_worth_it = any(name in attention for name in _FLASH)
    choices = ({key: True},) if is_worth_it and not reader.settings.get("packing") else ()
    # Which of the two is faster, the rows' lengths decide.
    slow = (False,) * (1 + len(choices))
    return Lever("packing", (key,), choices, slow, reader.holds(key))


def _batching(reader: _Reader) -> Lever:
    keys = (reader.at("per_device_train_batch_size"), reader.at("gradient_accumulation_steps"))
    return Lever("micro-batch", keys, pinned_by=reader.holds(*keys))


def _scoring(reader: _Reader) -> Lever:
    key = "evaluate.batch_size"
    return Lever("scoring", (key,), pinned_by=reader.holds(key))


def _is_same_or_below(key: str, parent: str) -> bool:
    return key == parent or key.startswith(f"{parent}.")
