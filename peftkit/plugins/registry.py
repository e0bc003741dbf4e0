"""What a plugin is, where plugins are found, and how one is picked by name.

Six entry-point groups, one small Protocol each. A plugin is a class constructed with its own
`Config`; the gate (`peftkit.recipe.strict`) checks a recipe's options against that `Config`
before the plugin is constructed. Built-ins come through peftkit's own entry points.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import asdict, dataclass
from functools import cache
from importlib import metadata
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, runtime_checkable

from peftkit.errors import UsageError
from peftkit.plugins.examples import Example

if TYPE_CHECKING:
    from pathlib import Path

    from datasets import Dataset
    from numpy.typing import NDArray
    from peft import PeftModel
    from transformers import PreTrainedModel, PreTrainedTokenizerBase, Trainer, TrainerCallback

    from peftkit.plugins.combined import Compression
    from peftkit.plugins.exported import Exported, Trained

GROUPS = ("sources", "tasks", "adapters", "methods", "merges", "exporters")


@dataclass(frozen=True)
class Decision:
    """Record one native option that peftkit chose because the recipe is silent."""

    key: str
    """Dotted recipe key, e.g. `method.sft.bf16`."""
    value: Any
    reason: str


@dataclass(frozen=True)
class Machine:
    """Describe the device a run will use, as far as decisions depend on it."""

    device: str
    """`cpu`, `cuda`, `mps` or `xpu`."""
    supports_bfloat16: bool
    total_bytes: int
    """Device memory, or resident memory on a CPU."""
    free_bytes: int
    name: str


@runtime_checkable
class Source(Protocol):
    """Bring rows from somewhere."""

    Config: ClassVar[type | str]
    """A frozen dataclass, or `module:Class` of a native one that is imported only when needed."""

    def __init__(self, config: Any) -> None: ...

    def splits(self) -> Sequence[str]:
        """Name the splits that exist natively; a single file or table has `train` only."""

    def load(self, split: str) -> Dataset:
        """Read one native split.

        Raises:
            DataError: a file, column or row is missing or malformed; names it.
        """


@runtime_checkable
class Task(Protocol):
    """Turn rows into examples, and score answers."""

    Config: ClassVar[type | str]
    headline: ClassVar[str]
    """The metric that a one-line summary shows, e.g. `rougeL`; empty when nothing is generated."""
    makes: ClassVar[tuple[type, ...]]
    """Which of `Conversation`, `Text` and `Labeled` its examples are."""

    def __init__(self, config: Any) -> None: ...

    @property
    def columns(self) -> Sequence[str]:
        """Name the columns that every row needs."""

    def example(self, row: Mapping[str, Any]) -> Example:
        """Make one example of one row.

        Raises:
            DataError: this row cannot be used; the audit counts it under the message.
        """

    def score(self, predictions: Sequence[str], references: Sequence[str]) -> dict[str, float]:
        """Score answers against references, metric by metric."""

    def baselines(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, list[str]]:
        """Give trivial answers to compare with, by name, e.g. the document's first sentence."""


@runtime_checkable
class Adapter(Protocol):
    """Attach trainable parameters to a base model."""

    Config: ClassVar[type | str | None]
    """The native PEFT config (`peft:LoraConfig`); None for full fine-tuning."""

    def __init__(self, config: Any) -> None: ...

    def attach(self, model: PreTrainedModel) -> PreTrainedModel | PeftModel:
        """Return the model with exactly this adapter's parameters trainable.

        Raises:
            UsageError: a target matches nothing in this model, in whole or in part; the message
                begins with its recipe key.
        """


@runtime_checkable
class Method(Protocol):
    """Train: pick the model class, encode examples, make the trainer."""

    Config: ClassVar[type | str]
    """The native arguments class, e.g. `trl:SFTConfig`."""
    auto_class: ClassVar[str]
    """The transformers class that loads the model, e.g. `AutoModelForCausalLM`."""
    examples: ClassVar[tuple[type, ...]]
    """Which of `Conversation`, `Text` and `Labeled` it can train on."""
    owned: ClassVar[Mapping[str, str]]
    """Native keys that peftkit sets itself -> what to use instead."""

    def __init__(self, config: Any) -> None: ...

    @staticmethod
    def decide(options: Mapping[str, Any], *, dtype: str, machine: Machine) -> Sequence[Decision]:
        """Choose the native options that depend on the machine and stand nowhere in the recipe."""

    def encode(self, example: Any, tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
        """Return `input_ids` and `labels` (-100 where not trained), not yet truncated.

        Args:
            example: of one of the kinds in `examples`.
        """

    def arrange(self, rows: Dataset, tokenizer: PreTrainedTokenizerBase) -> Dataset:
        """Truncate, pack or cut encoded rows into what the trainer takes, in a fixed order."""

    def trainer(  # noqa: PLR0913 - the parts of a training
        self,
        model: PreTrainedModel | PeftModel,
        tokenizer: PreTrainedTokenizerBase,
        train: Dataset,
        validation: Dataset | None,
        callbacks: Sequence[TrainerCallback],
        *,
        output_dir: Path,
    ) -> Trainer:
        """Make the trainer that will train these rows in this order.

        Args:
            output_dir: where it writes checkpoints; the native config does not know it.
        """


@runtime_checkable
class Merge(Protocol):
    """Combine several adapters into one."""

    Config: ClassVar[type | str]
    combines: ClassVar[str]
    """`deltas` (changes of whole weights), or `factors` (LoRA's A and B, each by itself)."""
    is_linear: ClassVar[bool]
    """Whether `combine` is the weighted sum, which need not see a whole weight at once."""

    def __init__(self, config: Any) -> None: ...
    @property
    def weights(self) -> Sequence[float]:
        """Return one weight for each adapter."""

    @property
    def compression(self) -> Compression | None:
        """Say how deltas become a new LoRA; None where all their ranks are kept."""

    def combine(
        self, parts: Sequence[NDArray[Any]], weights: Sequence[float], name: str
    ) -> NDArray[Any]:
        """Combine one tensor of those adapters that have it.

        Args:
            parts: float64, all of one shape; not to be written into.
            weights: one for each part; with LoRA's own scale in them for factors.
            name: of the tensor, for chance to be drawn from.
        """


@runtime_checkable
class Exporter(Protocol):
    """Write a trained model in another program's format."""

    Config: ClassVar[type | str]
    reads: ClassVar[str]
    """`model` (an adapter is merged into its base first) or `adapter`."""

    def __init__(self, config: Any) -> None: ...

    def export(self, trained: Trained, out: Path) -> Exported:
        """Write into an empty folder and measure it; ArtefactError for what cannot be written."""


@dataclass(frozen=True)
class PluginInfo:
    """Describe a plugin by what its distribution's metadata says; nothing is imported."""

    name: str
    group: str
    distribution: str
    version: str
    value: str
    """`module:Class`"""
    problem: str | None = None
    """Why it cannot be picked: another plugin has its name."""

    def to_json(self) -> dict[str, str | None]:
        """Return plain data."""
        return asdict(self)


_MEMBERS = {
    "sources": ("Config", "splits", "load"),
    "tasks": ("Config", "headline", "makes", "columns", "example", "score", "baselines"),
    "adapters": ("Config", "attach"),
    "methods": ("Config", "auto_class", "examples", "owned", "decide", "encode", "arrange",
                "trainer"),
    "merges": ("Config", "combines", "is_linear", "weights", "compression", "combine"),
    "exporters": ("Config", "reads", "export"),
}  # fmt: skip
_BUILTINS_ONLY: ContextVar[bool] = ContextVar("builtins_only", default=False)
_OURS = "peftkit"


@contextmanager
def only_builtins() -> Iterator[None]:
    """Leave every plugin that peftkit does not ship out of sight (`--no-plugins`)."""
    token = _BUILTINS_ONLY.set(True)
    try:
        yield
    finally:
        _BUILTINS_ONLY.reset(token)


def available(group: str) -> list[PluginInfo]:
    """List a group's plugins by name from metadata alone, unusable ones with their problem."""
    entries = _entries(group)
    owners: dict[str, list[str]] = {}
    for entry in entries:
        owners.setdefault(entry.name, []).append(_owner(entry))
    return [
        PluginInfo(
            name=entry.name,
            group=group,
            distribution=_owner(entry),
            version=entry.dist.version if entry.dist else "",
            value=entry.value,
            problem=_clash(entry, owners[entry.name]),
        )
        for entry in sorted(entries, key=lambda entry: (entry.name, _owner(entry) != _OURS))
    ]


def all_plugins() -> list[PluginInfo]:
    """List the plugins of every group."""
    return [info for group in GROUPS for info in available(group)]


def plugin_names(group: str) -> list[str]:
    """Name a group's plugins, for suggestions."""
    return sorted({entry.name for entry in _entries(group)})


def find(group: str, name: str) -> Any:
    """Import and return the plugin class that a recipe names.

    A built-in wins over any other package's plugin of its name.

    Raises:
        UsageError: no plugin has the name, two packages claim it, its import fails or a member
            is missing; names the distribution.
    """
    found = [entry for entry in _entries(group) if entry.name == name]
    found = [entry for entry in found if _owner(entry) == _OURS] or found
    noun = group.removesuffix("s")
    if not found:
        raise UsageError(f"there is no {noun} {name!r}", hint=f"peftkit plugins lists the {group}")
    if len(found) > 1:
        owners = " and ".join(sorted(_owner(entry) for entry in found))
        raise UsageError(
            f"the {noun} {name!r} is claimed by {owners}",
            hint="uninstall one of them, or load built-ins only with --no-plugins",
        )
    return _load(found[0], group)


def _load(entry: metadata.EntryPoint, group: str) -> Any:
    where = f"the plugin {entry.name!r} ({entry.value}) of {_owner(entry)}"
    try:
        plugin = entry.load()
    except Exception as error:
        # Whatever a foreign module raises while it is imported, its owner is the one to name.
        raise UsageError(
            f"{where} cannot be imported: {type(error).__name__}: {error}",
            hint=f"update or uninstall {_owner(entry)}, or use --no-plugins",
        ) from error
    missing = missing_members(plugin, group)
    if not isinstance(plugin, type) or missing:
        lack = f"lacks {', '.join(missing)}" if missing else "is not a class"
        raise UsageError(f"{where} {lack}", hint=f"see peftkit.plugins for what {group} need")
    return plugin


def missing_members(plugin: Any, group: str) -> list[str]:
    """Name what a class lacks to be a plugin of a group."""
    return [member for member in _MEMBERS[group] if not hasattr(plugin, member)]


def _entries(group: str) -> list[metadata.EntryPoint]:
    if group not in GROUPS:
        raise ValueError(f"{group!r} is not one of {GROUPS}")
    entries = [e for e in _scan(tuple(sys.path)) if e.group == f"{_OURS}.{group}"]
    if _BUILTINS_ONLY.get():
        entries = [entry for entry in entries if _owner(entry) == _OURS]
    return entries


@cache
def _scan(path: tuple[str, ...]) -> tuple[metadata.EntryPoint, ...]:
    """Read the entry points of our groups from every distribution on a search path."""
    seen: set[str] = set()
    found: list[metadata.EntryPoint] = []
    for dist in metadata.distributions(path=list(path)):
        # Parsing every distribution's entry points takes ten times as long as looking for ours.
        text = dist.read_text("entry_points.txt")
        if text is None or f"[{_OURS}." not in text:
            continue
        # The first one of a name hides those further down the path, as for imports.
        name = _owner_name(dist)
        if name not in seen:
            seen.add(name)
            found.extend(
                entry for entry in dist.entry_points if entry.group.startswith(f"{_OURS}.")
            )
    return tuple(found)


@cache
def _owner_name(dist: metadata.Distribution) -> str:
    # Parsing all headers takes 20 times as long as finding the one that is wanted.
    match = re.search(r"^Name: (.+)$", dist.read_text("METADATA") or "", re.MULTILINE)
    return match[1].strip() if match else dist.metadata["Name"]


def _owner(entry: metadata.EntryPoint) -> str:
    return _owner_name(entry.dist) if entry.dist else "an unknown distribution"


def _clash(entry: metadata.EntryPoint, owners: Sequence[str]) -> str | None:
    others = [owner for owner in owners if owner != _owner(entry)]
    if not others or _owner(entry) == _OURS:
        return None
    if _OURS in others:
        return "peftkit's own plugin has this name and wins"
    return f"claimed by {' and '.join(others)} too"
