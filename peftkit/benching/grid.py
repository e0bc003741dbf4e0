"""A grid of benchmarks: models x methods x lengths x rows x GPU sizes, and the cells it makes."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from peftkit.errors import RecipeError
from peftkit.memory import catalogue
from peftkit.plugins import Conversation, Text, find, plugin_names
from peftkit.recipe.kinds import show
from peftkit.recipe.signatures import signature_of
from peftkit.recipe.strict import Gate
from peftkit.recipe.yaml_file import dump_yaml, join, read_yaml

SECTIONS = ("model", "adapter", "method")
"""What a method of a grid says, each as in a recipe."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,60}")


@dataclass(frozen=True)
class Grid:
    """Say what is measured: every combination of the lists is one cell."""

    models: Mapping[str, Any]
    """Name -> a Hub id of the catalogue, or the fields of a `config.json` as a mapping."""
    methods: Mapping[str, Mapping[str, Any]]
    """Name -> a recipe's sections `adapter`, `method` and, beside the path, `model`."""
    lengths: list[int] = field(default_factory=lambda: [512])
    """Tokens a row; rows are full."""
    micro_batches: list[int] = field(default_factory=lambda: [1])
    """Rows of one forward."""
    gpus: list[float] = field(default_factory=list)
    """GPU sizes in GiB, each really enforced on a larger one; none: the device that is here."""
    edges: list[float] = field(default_factory=list)
    """Instead of the lengths themselves: shares of the longest length that is planned to fit each
    GPU, e.g. `[0.99, 1.01]`: the first must fit, the second must not."""
    num_steps: int = 3
    """Steps that are measured, after one that warms up."""
    seed: int = 0
    """Of the weights and the rows."""


@dataclass(frozen=True)
class Cell:
    """Hold one measurement to make."""

    grid: str
    model: str
    method: str
    config: Mapping[str, Any]
    """The model's `config.json`."""
    sections: Mapping[str, Mapping[str, Any]]
    length: int
    micro_batch: int
    gpu_gib: float | None
    edge: float | None
    """Share of the longest planned length that replaces `length`."""
    num_steps: int
    seed: int

    @property
    def name(self) -> str:
        """Name the cell's files."""
        size = "" if self.gpu_gib is None else f"_{self.gpu_gib:g}gib"
        length = str(self.length) if self.edge is None else f"edge{self.edge:g}"
        return f"{self.model}_{self.method}_{length}x{self.micro_batch}{size}"

    def to_json(self) -> dict[str, Any]:
        """Return plain data that `from_json` reads."""
        return asdict(self)

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Cell:
        """Undo `to_json`."""
        return cls(**content)

    def recipe_text(self, model_folder: Path) -> str:
        """Write the recipe of this cell; its data section only stands in for random rows.

        Args:
            model_folder: holds the model's `config.json`.
        """
        method, options = next(iter(self.sections["method"].items()))
        sized = {
            **options,
            "per_device_train_batch_size": self.micro_batch,
            "max_steps": self.num_steps + 1,
            "seed": self.seed,
            "report_to": "none",
            "save_strategy": "no",
            "logging_strategy": "no",
        }
        length_option = find("methods", method).length_option
        if length_option in options_of(method):
            sized[length_option] = self.length
        recipe = {
            "name": "cell",
            "model": {"path": str(model_folder), **self.sections.get("model", {})},
            "data": {
                "source": {"embedded": {"name": "docstring-summaries"}},
                "task": _task_for(method),
            },
            "adapter": self.sections["adapter"],
            "method": {method: sized},
        }
        return dump_yaml(recipe)


def read_grid(file: Path) -> Grid:
    """Read and check a grid.

    Raises:
        RecipeError: with every problem and its line.
    """
    document = read_yaml(file)
    gate = Gate(document.file, document.lines)
    data = gate.check_options("", document.data, signature_of(Grid))
    if not gate.problems:
        _check_models(gate, data["models"])
        _check_methods(gate, data["methods"])
        for name in ("lengths", "micro_batches", "gpus", "edges"):
            may_be_empty = name in ("gpus", "edges")
            _check_positive(gate, name, data.get(name, [1]), may_be_empty=may_be_empty)
        _check_positive(gate, "num_steps", [data.get("num_steps", 1)])
    if gate.problems:
        raise RecipeError(document.file, gate.sorted_problems())
    return Grid(**data)


def cells(grid: Grid, name: str) -> Iterator[Cell]:
    """Give every cell of a grid, the outermost list first.

    Args:
        name: of the grid, which its cells carry.
    """
    sizes: Sequence[float | None] = grid.gpus or [None]
    edges: Sequence[float | None] = grid.edges or [None]
    for model, method, length, edge, rows, gib in itertools.product(
        grid.models, grid.methods, grid.lengths, edges, grid.micro_batches, sizes
    ):
        yield Cell(
            grid=name,
            model=model,
            method=method,
            config=_config(grid.models[model]),
            sections=grid.methods[method],
            length=length,
            micro_batch=rows,
            gpu_gib=gib,
            edge=edge,
            num_steps=grid.num_steps,
            seed=grid.seed,
        )


def _task_for(method: str) -> dict[str, Any]:
    """Return a task that makes what the method trains on."""
    if Conversation in find("methods", method).examples:
        return {"summarize": {"document": "document", "summary": "summary"}}
    return {"text": {"text": "document"}}


def options_of(name: str) -> frozenset[str]:
    """Name the options of a training method."""
    return frozenset(signature_of(find("methods", name).Config).options)


def _config(model: Any) -> dict[str, Any]:
    found = dict(model) if isinstance(model, Mapping) else catalogue.find(str(model))
    if found is None:
        raise ValueError(f"{model!r} passed the gate but is not in the catalogue")
    return found


def _check_models(gate: Gate, models: Mapping[str, Any]) -> None:
    for name, model in models.items():
        key = join("models", name)
        _check_name(gate, key, name)
        if isinstance(model, Mapping):
            if "model_type" not in model:
                gate.refuse(key, "has no model_type", "e.g. model_type: llama")
        elif not isinstance(model, str) or catalogue.find(model) is None:
            gate.refuse(
                key,
                f"{show(model)} is not in the catalogue",
                "write its config.json here as a mapping",
            )


def _check_methods(gate: Gate, methods: Mapping[str, Any]) -> None:
    for name, sections in methods.items():
        key = join("methods", name)
        _check_name(gate, key, name)
        unknown = [section for section in sections if section not in SECTIONS]
        for section in unknown:
            gate.refuse(join(key, section), "a method of a grid has no such section", _WHICH)
        if not unknown:
            _check_sections(gate, key, sections)


_WHICH = "write adapter, method and, if need be, model"


def _check_sections(gate: Gate, key: str, sections: Mapping[str, Any]) -> None:
    for section in ("adapter", "method"):
        if section not in sections:
            gate.refuse(key, f"has no {section}", _WHICH)
    chosen = sections.get("method")
    if chosen is not None and not (isinstance(chosen, Mapping) and len(chosen) == 1):
        gate.refuse(join(key, "method"), "names no training method", "e.g. {sft: {}}")
    elif chosen is not None:
        _check_rows(gate, join(key, "method"), next(iter(chosen)))


def _check_rows(gate: Gate, key: str, name: str) -> None:
    """Refuse a method whose rows are more than tokens with labels, which cells are drawn of."""
    if name not in plugin_names("methods"):
        return  # said where its cell's recipe is read
    method = find("methods", name)
    if method.unplanned or not {Conversation, Text} & set(method.examples):
        gate.refuse(
            join(key, name),
            "trains on rows of its own, and a benchmark draws rows of tokens with labels",
            "plan it over its own rows: peftkit plan RECIPE",
        )


def _check_name(gate: Gate, key: str, name: str) -> None:
    if not _NAME.fullmatch(name):
        gate.refuse(key, f"{name!r} cannot name a file", "letters, digits, dots and dashes")


def _check_positive(
    gate: Gate, key: str, values: Sequence[float], *, may_be_empty: bool = False
) -> None:
    if not values and not may_be_empty:
        gate.refuse(key, "is empty", "give at least one number")
    for value in values:
        if value <= 0:
            gate.refuse(key, f"{value:g} is not above 0", "give numbers above 0")
