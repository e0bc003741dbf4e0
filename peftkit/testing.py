"""Conformance checks that a plugin's author calls from a test, one for each group.

Each raises AssertionError with what is wrong; none needs the network. A passing plugin behaves
as the run expects: it is cheap to import, strict about its options, and does the same thing twice.
"""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peftkit.errors import DataError, PeftkitError
from peftkit.plugins import (
    CAUSAL_LM,
    Adapter,
    Example,
    Method,
    Source,
    Task,
    Work,
    problem_of,
)
from peftkit.plugins.combined import Compression
from peftkit.plugins.exported import Exported, Trained
from peftkit.plugins.quantizer import Quantizer
from peftkit.recipe.build import construct
from peftkit.recipe.docstrings import field_docs
from peftkit.recipe.signatures import signature_of
from peftkit.recipe.strict import Gate
from peftkit.reporting.score_table import LOWER_IS_BETTER
from peftkit.system.checkpoint_files import PEFT_PREFIX

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

HEAVY = ("torch", "transformers", "datasets", "peft", "trl")
"""What importing a plugin's module must not import: `peftkit check` imports it."""


def check_source(
    cls: type[Source], options: Mapping[str, Any], *, columns: Sequence[str] = ()
) -> dict[str, Dataset]:
    """Check a source: what it declares, loads, refuses, and that it loads the same rows twice.

    Args:
        options: as a recipe has them, of a configuration with at least one row.
        columns: columns that every split must have.

    Returns: the rows of every split.
    """
    _check_class(cls, "sources", options)
    first, second = (cls(_config(cls, options)) for _ in range(2))
    splits = list(first.splits())
    _require(bool(splits), f"{cls.__name__}.splits() is empty")
    _require(len(set(splits)) == len(splits), f"{cls.__name__}.splits() repeats {splits}")
    loaded = {}
    for split in splits:
        rows, again = first.load(split), second.load(split)
        _require(len(rows) > 0, f"split {split!r} has no row")
        _require(rows.to_list() == again.to_list(), f"split {split!r} differs when loaded twice")
        missing = [column for column in columns if column not in rows.column_names]
        _require(not missing, f"split {split!r} lacks {missing}; it has {rows.column_names}")
        loaded[split] = rows
    _refuses(DataError, lambda: first.load("no such split"), "load() of an unknown split")
    return loaded


def check_task(
    cls: type[Task], options: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]
) -> dict[str, float]:
    """Check a task: its examples, its refusals, its metrics and its baselines.

    Args:
        rows: at least two usable rows with different references.

    Returns: the score of the references against themselves.
    """
    _check_class(cls, "tasks", options)
    _require(len(rows) >= 2, "check_task needs two rows or more")
    task = cls(_config(cls, options))
    _require(_are_classes(cls.makes), f"makes is {cls.makes!r}, not a tuple of classes")
    examples = [task.example(row) for row in rows]
    _require(examples == [task.example(row) for row in rows], "example() differs when called twice")
    for row, example in zip(rows, examples, strict=True):
        _check_example(example, row)
        kind = type(example).__name__
        _require(isinstance(example, cls.makes), f"example() made a {kind}, which makes lacks")
    for column in task.columns:
        _require(all(column in row for row in rows), f"a row lacks the column {column!r}")
        without = {name: value for name, value in rows[0].items() if name != column}
        for state, broken in (("null", {**without, column: None}), ("missing", without)):
            what = f"example() of a row whose {column!r} is {state}"
            _refuses(DataError, partial(task.example, broken), what)
    references = [example.reference for example in examples if example.reference]
    if not references:
        _require(task.headline == "", "a task without answers has an empty headline")
        return {}
    return _check_scores(task, references, rows)


def _are_classes(kinds: object) -> bool:
    """Tell whether kinds of examples are declared as the gate compares them."""
    return isinstance(kinds, tuple) and bool(kinds) and all(isinstance(k, type) for k in kinds)


def _check_example(example: Example, row: Mapping[str, Any]) -> None:
    _require(isinstance(example, Example), f"{row} gave a {type(example).__name__}, no Example")
    problem = example.problem()
    _require(not problem, f"{row} gave a {type(example).__name__} that {problem}")


def _check_scores(
    task: Task, references: Sequence[str], rows: Sequence[Mapping[str, Any]]
) -> dict[str, float]:
    best = task.score(references, references)
    _require(bool(best), "score() names no metric")
    _require(task.headline in best, f"headline {task.headline!r} is not among {sorted(best)}")
    worse = task.score(["" for _ in references], references)
    turned = [*references[1:], references[0]]
    others = {"empty answers": worse, "another row's answers": task.score(turned, references)}
    backwards = task.score(list(reversed(references)), list(reversed(references)))
    for name, value in best.items():
        _require(
            isinstance(value, float) and math.isfinite(value), f"{name} is {value!r}, not a number"
        )
        for what, scores in others.items():
            _require(scores.keys() == best.keys(), f"score() of {what} names other metrics")
            is_worse = scores[name] >= value if name in LOWER_IS_BETTER else scores[name] <= value
            _require(is_worse, f"{name} of {what} is better than that of the references")
        close = math.isclose(backwards[name], value, rel_tol=1e-9, abs_tol=1e-12)
        _require(close, f"{name} depends on the order of the rows")
    if len(set(references)) > 1:
        _require(worse[task.headline] < best[task.headline], "the headline does not see answers")
    for name, answers in task.baselines(rows).items():
        _require(len(answers) == len(rows), f"baseline {name!r} has {len(answers)} answers")
        _require(all(isinstance(a, str) for a in answers), f"baseline {name!r} is not all text")
    return best


def check_adapter(
    cls: type[Adapter], options: Mapping[str, Any], make_model: Callable[[], PreTrainedModel]
) -> None:
    """Check an adapter: it attaches, trains its own parameters alone, and keeps the base as it was.

    Args:
        make_model: returns the same small model, bit for bit, each time it is called.
    """
    import torch

    _check_class(cls, "adapters", options)
    untouched = {name: value.clone() for name, value in make_model().state_dict().items()}
    model = cls(_config(cls, options)).attach(make_model())
    trainable = {name for name, p in model.named_parameters() if p.requires_grad}
    _require(bool(trainable), "attach() leaves nothing to train")
    if cls.Config is not None:
        kept = {id(p) for p in model.parameters() if not p.requires_grad}
        _require(bool(kept), "attach() trains every parameter of the base")
        base = {
            name.replace(".base_layer", "").replace(PEFT_PREFIX, ""): value
            for name, value in model.state_dict().items()
        }
        changed = [
            name
            for name, value in untouched.items()
            if name in base and not torch.equal(base[name], value)
        ]
        _require(not changed, f"attach() changes the base: {changed[:3]}")


def check_method(
    cls: type[Method],
    options: Mapping[str, Any],
    tokenizer: PreTrainedTokenizerBase,
    examples: Sequence[Example],
) -> None:
    """Check a method: what it declares and decides, its rows, and what the planner asks of it.

    Args:
        options: as a recipe has them, under which every example keeps a trained token.
        examples: of each kind that it trains on.
    """
    from peftkit.methods import conformance

    _check_class(cls, "methods", options)
    config: Any = cls.Config
    _require_none(conformance.class_problems(cls, config))
    stated = {**conformance.decided_options(cls), **options, "output_dir": "unused"}
    method = cls(construct(config, stated))
    taken = [example for example in examples if method.takes(example)]
    _require(bool(taken), f"check_method needs examples of {cls.examples}")
    _require_none(conformance.row_problems(method, taken, tokenizer))
    _require_none(conformance.planning_problems(method))


def check_quantizer(cls: type[Quantizer], options: Mapping[str, Any]) -> None:
    """Check a quantizer: what it chooses, that a base of it trains here, and what is planned of it.

    Args:
        options: under which this machine's CPU can run it.
    """
    from peftkit.models.base import load_base
    from peftkit.quantizers.conformance import option_problems, problems_of_a_base
    from peftkit.recipe.schema import ModelSection
    from peftkit.training.trials import small_base, train_lora

    _check_class(cls, "quantizers", options)
    problems = option_problems(cls, options)
    _require(not problems, "; ".join(problems))
    quantizer = cls(_config(cls, options))
    with small_base("cpu") as bench:
        trial = train_lora(bench, cls.__name__, quantizer)
        _require(trial.works, f"a LoRA on it does not train: {trial.detail}")
        section = ModelSection(path=str(bench.folder), dtype="float32")
        plain = load_base(section, kind=CAUSAL_LM)
        problems = problems_of_a_base(quantizer, section, plain)
        _require(not problems, "; ".join(problems))


def check_merge(cls: type, options: Mapping[str, Any]) -> None:
    """Check a merge: shape kept, the same twice, parts left alone, and what it declares.

    Args:
        options: under which nothing is pruned, so that one part at weight 1 must come out as it is.
    """
    import numpy as np

    _check_class(cls, "merges", options)
    parts = list(np.random.default_rng(0).standard_normal((3, 6, 4)))
    before = [part.copy() for part in parts]
    merge: Any = cls(_config(cls, options))
    _require(merge.combines in ("deltas", "factors"), f"combines is {merge.combines!r}")
    _require(all(math.isfinite(w) for w in merge.weights), "weights are not all finite numbers")
    bound = merge.compression
    _require(bound is None or isinstance(bound, Compression), f"compression is {bound!r}")
    _require(bound is None or merge.combines == "deltas", "factors are not compressed")
    alone = merge.combine(parts[:1], [1.0], "a.weight")
    _require(np.allclose(alone, parts[0], atol=1e-6), "one part at weight 1 is not itself")
    weights = [0.5, 0.3, -0.2]
    both = [merge.combine(parts, weights, "a.weight") for _ in range(2)]
    _require(both[0].shape == parts[0].shape, f"combine() gives the shape {both[0].shape}")
    _require(np.array_equal(both[0], both[1]), "combine() differs when called twice")
    _require(np.array_equal(before, parts), "combine() writes into its parts")
    if merge.is_linear:
        total = sum(weight * part for weight, part in zip(weights, parts, strict=True))
        _require(np.allclose(both[0], total), "is_linear, but combine() is not the weighted sum")


def check_exporter(cls: type, options: Mapping[str, Any], trained: Trained, out: Path) -> Exported:
    """Check an exporter: it writes what it says, below `out`, proves it, and keeps what it read.

    Args:
        trained: of the kind that the exporter `reads`; not scratch.
        out: an empty folder.
    """
    _check_class(cls, "exporters", options)
    kind = cls.reads  # type: ignore[attr-defined]  # a member, checked above
    _require(kind in ("model", "adapter"), f"reads is {kind!r}, neither 'model' nor 'adapter'")
    before = _listing(trained.folder)
    exporter: Any = cls(_config(cls, options))
    exported: Exported = exporter.export(trained, out)
    _require(bool(exported.files), "export() wrote nothing")
    for file in exported.files:
        _require(file.is_file() and file.stat().st_size > 0, f"{file} is missing or empty")
        _require(file.resolve().is_relative_to(out.resolve()), f"{file} lies outside {out}")
    left = {name for name in _listing(out) if Path(name) not in exported.files}
    _require(not left, f"export() does not name what it wrote: {sorted(left)[:3]}")
    _require(_listing(trained.folder) == before, "export() changed what it read")
    _require(bool(exported.proofs), "export() proves nothing")
    for proof in exported.proofs:
        _require(proof.holds, f"{proof.what}: {proof.measured} is above {proof.tolerance}")
    return exported


def check_scheduler(cls: type, options: Mapping[str, Any]) -> None:
    """Check a scheduler: the command stands in its file, whole, and the same one at each start."""
    _check_class(cls, "schedulers", options)
    scheduler: Any = cls(_config(cls, options))
    most = scheduler.most_machines
    _require(most is None or most >= 1, f"most_machines is {most!r}")
    launcher = ("--launch", "accelerate")
    for num_machines in (1,) if most == 1 else (1, 2):
        work = Work("check", ("peftkit", "run", "recipe.yaml"), launcher, num_machines, 4)
        rendered = [scheduler.render(work) for _ in range(2)]
        _require(rendered[0] == rendered[1], "render() differs when called twice")
        start = f"peftkit run recipe.yaml --launch accelerate -- --num_processes {4 * num_machines}"
        _require(start in rendered[0].text, f"render() leaves out `{start}`")
        _require("FILE" in rendered[0].submitted_by, "submitted_by does not name FILE")


def _listing(folder: Path) -> dict[str, tuple[int, int]]:
    files = (file for file in folder.rglob("*") if file.is_file())
    return {str(file): (file.stat().st_size, file.stat().st_mtime_ns) for file in files}


def _check_class(cls: type, group: str, options: Mapping[str, Any]) -> None:
    """Check what every plugin shares: members, documentation, import cost, strict options."""
    problem = problem_of(cls, group)
    _require(not problem, f"{cls.__name__} {problem}: docs/plugins.md says what {group} need")
    _require(bool(cls.__doc__), f"{cls.__name__} has no docstring, which `peftkit explain` shows")
    config: Any = cls.Config  # type: ignore[attr-defined]  # a member, checked above
    if isinstance(config, type):
        _check_config(config)
    if config is not None:
        gate = Gate("recipe.yaml", {})
        signature = signature_of(config)
        gate.check_options(group, dict(options), signature)
        _require(not gate.problems, f"the gate refuses the options: {gate.problems}")
        gate.check_options(group, {**options, "no_such_key": 1}, signature)
        _require(len(gate.problems) == 1, "the gate takes an unknown key")
    _check_import(cls.__module__)


def _check_config(config: type) -> None:
    _require(is_dataclass(config), f"{config.__qualname__} is not a dataclass")
    parameters = getattr(config, "__dataclass_params__", None)
    frozen = bool(getattr(parameters, "frozen", False))
    _require(frozen, f"{config.__qualname__} is not frozen: @dataclass(frozen=True)")
    docs = field_docs(config)
    silent = [item.name for item in fields(config) if item.name not in docs]
    _require(not silent, f"no docstring stands below the fields {silent}")


def _check_import(module: str) -> None:
    if module == "__main__" or module.partition(".")[0].startswith("test"):
        return
    code = f"import sys, {module}; print(*[m for m in {HEAVY!r} if m in sys.modules])"
    done = subprocess.run(  # noqa: S603 - our own interpreter on a module that is imported already
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    _require(
        done.returncode == 0, f"import {module} fails in a fresh process: {done.stderr[-400:]}"
    )
    imported = done.stdout.split()
    _require(
        not imported, f"import {module} imports {', '.join(imported)}; import inside functions"
    )


def _config(cls: type, options: Mapping[str, Any]) -> Any:
    config: Any = cls.Config  # type: ignore[attr-defined]  # a member, checked by _check_class
    return None if config is None else construct(config, options)


def _refuses(error: type[PeftkitError], act: Callable[[], Any], what: str) -> None:
    try:
        act()
    except error as raised:
        _require(bool(raised.message), f"{what} is refused without a message")
    except Exception as raised:
        name = f"{type(raised).__name__}: {raised}"
        raise AssertionError(f"{what} raises {name}, not {error.__name__}") from raised
    else:
        raise AssertionError(f"{what} is not refused with {error.__name__}")


def _require_none(problems: Iterator[str]) -> None:
    """Fail with the first problem; what would crash because of it is not tried."""
    problem = next(problems, "")
    _require(not problem, problem)


def _require(holds: bool, message: str) -> None:
    if not holds:
        raise AssertionError(message)
