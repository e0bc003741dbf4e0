"""The house rules, as tests: file length, names, layers, imports, docstrings, plugins."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterable
from graphlib import CycleError, TopologicalSorter
from importlib.metadata import entry_points
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "peftkit"
MODULES = sorted(p for p in PACKAGE.rglob("*.py") if "__pycache__" not in p.parts)
BANNED = {"utils", "util", "common", "helpers", "helper", "misc", "core"}
HEAVY = ("torch", "transformers", "peft", "trl", "datasets", "accelerate", "bitsandbytes")

# Rooms of the house: folders, and the verbs, which are one module each. A room imports itself and
# those of lower floors, at the top of a file and inside functions.
FLOORS = [
    {"errors", "kernels"},
    {"embedded", "plugins", "recipes"},
    {"merges", "system"},
    {"recipe", "sources"},
    {"check", "explain", "models", "preprocessing", "rundir", "tasks"},
    {"adapters", "importers", "runs", "scoring"},
    {"init", "methods"},
    {"memory", "merging"},
    {"exporters", "launching", "merge", "planning", "quantizers", "reporting"},
    {"benching", "export", "fit", "launch", "plan", "push", "report", "training"},
    {"bench", "data", "doctor", "evaluate", "generate", "testing"},
    {"run"},
    {"cli"},
    {"__main__"},
]

# Modules that define subclasses of the stack's classes import it at their top, and are therefore
# imported by others inside functions only.
SUBCLASSES = {
    "peftkit.plugins.batch_mean_trainer",
    "peftkit.training.callbacks",
    "peftkit.memory.assumed",
    "peftkit.memory.batch",
    "peftkit.memory.cuda_kernels",
    "peftkit.memory.fused_head",
    "peftkit.memory.offload",
    "peftkit.memory.tracker",
    "peftkit.scoring.decoding",
    "peftkit.kernels.adapted_linear",
    "peftkit.kernels.fused_lora",
    "peftkit.kernels.head_loss",
}


# Who speaks of processes: the one that asks, plans for several, a tracker of tensors that are cut
# over them, a callback that the trainer tells, and what starts them and tells their launcher.
SPEAK_OF_PROCESSES = {
    "system/apart.py",
    "system/process.py",
    "memory/sharded.py",
    "adapters/extra_state.py",
    "launching/arguments.py",
    "launching/processes.py",
    "plugins/scheduled.py",
    "system/launcher.py",
    "training/processes.py",
    "training/shards.py",
}


def room_of(module: str) -> str:
    """Return the room that a dotted module lies in: the name behind `peftkit.`."""
    return module.split(".")[1]


def floor_of(room: str) -> int:
    """Return a room's floor, the lowest one 0."""
    floor = next((at for at, rooms in enumerate(FLOORS) if room in rooms), None)
    assert floor is not None, f"{room} has no place in FLOORS"
    return floor


def name_of(file: Path) -> str:
    """Return a file's dotted module name."""
    return ".".join(("peftkit", *file.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(
        ".__init__"
    )


KNOWN = {name_of(file) for file in MODULES}


def imported_by(body: Iterable[ast.AST]) -> set[str]:
    """Name the modules of ours that these nodes import."""
    found = set()
    for node in body:
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "peftkit":
            full = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name if name in KNOWN else str(node.module) for name in full}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names if alias.name in KNOWN}
    return found


def lines_of_code(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Count a function's lines, its docstring apart."""
    first = function.body[0]
    docstring = first.end_lineno - first.lineno + 1 if ast.get_docstring(function) else 0
    return function.end_lineno - function.lineno + 1 - docstring


def behaves(file: Path) -> bool:
    """Tell whether a module does anything: one that only holds dataclasses has nothing to test."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    return any(isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) for node in ast.walk(tree))


@pytest.mark.parametrize("file", MODULES, ids=lambda f: f.relative_to(PACKAGE).as_posix())
def test_file_keeps_the_house_rules(file: Path) -> None:
    text = file.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 400
    assert file.stem not in BANNED
    tree = ast.parse(text)
    assert ast.get_docstring(tree), "a module says what it is for"
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert lines_of_code(node) <= 45, f"{node.name} is long"
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            in_class = any(
                node in getattr(parent, "body", [])
                for parent in ast.walk(tree)
                if isinstance(parent, ast.Module | ast.ClassDef)
            )
            if in_class:
                assert ast.get_docstring(node), f"{node.name} is public and has no docstring"


@pytest.mark.parametrize("file", MODULES, ids=lambda f: f.relative_to(PACKAGE).as_posix())
def test_imports_point_down(file: Path) -> None:
    name = name_of(file)
    if name == "peftkit":
        return
    own = room_of(name)
    for other in imported_by(ast.walk(ast.parse(file.read_text(encoding="utf-8")))) - {"peftkit"}:
        room = room_of(other)
        assert room == own or floor_of(room) < floor_of(own), f"{name} imports {other}"


def test_the_house_stays_small() -> None:
    entries = [e for e in PACKAGE.iterdir() if e.name != "__pycache__"]
    assert len(entries) <= 47
    assert {e.stem for e in entries if e.is_dir()} <= set.union(*FLOORS)
    assert len(FLOORS) <= 14


# `testing` says whether what a plugin gives is what its contract names.
PLUGINS = {
    "plugins",
    "adapters",
    "exporters",
    "importers",
    "launching",
    "merges",
    "methods",
    "quantizers",
    "sources",
    "tasks",
    "testing",
}
NOUNS = {"adapter", "answerer", "evaluator", "example", "exporter", "importer", "merge", "method",
         "plugin", "quantizer", "source", "task"}  # fmt: skip


def contracts_of(tree: ast.AST) -> set[str]:
    """Name the base classes and kinds of examples that a module imports from our contracts."""
    return {
        alias.asname or alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("peftkit.plugins")
        for alias in node.names
        if alias.name[0].isupper()
    }


def probes_of(tree: ast.AST) -> list[str]:
    """List the calls that ask a plugin or an example what it is, instead of asking its contract."""
    contracts, found = contracts_of(tree), []
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name) or not node.args:
            continue
        subject = ast.unparse(node.args[0]).rpartition(".")[2]
        kinds = {part.id for part in ast.walk(node.args[-1]) if isinstance(part, ast.Name)}
        asks = node.func.id in ("getattr", "hasattr", "isinstance") and len(node.args) > 1
        compares = node.func.id in ("isinstance", "issubclass") and kinds & contracts
        if (asks and subject in NOUNS) or compares:
            found.append(ast.unparse(node))
    return found


def test_no_plugin_and_no_example_is_probed_outside_its_folder() -> None:
    found = {
        name_of(file): probes
        for file in MODULES
        if room_of(name_of(file) + ".") not in PLUGINS
        and (probes := probes_of(ast.parse(file.read_text(encoding="utf-8"))))
    }
    assert found == {}


# Where the stack loads what somebody brought otherwise: with an explanation of its own, or a folder
# that peftkit wrote or ships.
LOADED_OTHERWISE = {
    "peftkit.benching.trial",
    "peftkit.exporters.adapter_folder",
    "peftkit.init",
    "peftkit.memory.planned_config",
    "peftkit.merging.quantized",
    "peftkit.models.new_model",
}


def unexplained_loads(tree: ast.AST) -> list[str]:
    """List the calls of the stack's loaders that do not stand in `load_explained`."""
    explained = {
        id(call)
        for node in ast.walk(tree)
        if isinstance(node, ast.With)
        and any(ast.unparse(item.context_expr).startswith("load_explained(") for item in node.items)
        for call in ast.walk(node)
    }
    return [
        ast.unparse(node)
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in ("from_pretrained", "for_model", "from_file")
        and id(node) not in explained
    ]


def test_whatever_the_stack_raises_of_a_folder_is_explained() -> None:
    found = {
        name_of(file): calls
        for file in MODULES
        if (calls := unexplained_loads(ast.parse(file.read_text(encoding="utf-8"))))
    }
    assert set(found) <= LOADED_OTHERWISE, found


def test_no_module_imports_itself_in_the_end() -> None:
    graph = {
        name_of(file): imported_by(ast.walk(ast.parse(file.read_text(encoding="utf-8"))))
        - {name_of(file)}
        for file in MODULES
    }
    try:
        order = list(TopologicalSorter(graph).static_order())
    except CycleError as error:
        pytest.fail(" <- ".join(error.args[1]))
    assert set(graph) <= set(order)


def test_importing_any_module_imports_nothing_heavy() -> None:
    names = [name for file in MODULES if (name := name_of(file)) not in SUBCLASSES]
    script = (
        "import sys, importlib\n"
        f"for name in {names!r}:\n"
        "    importlib.import_module(name)\n"
        f"    found = [m for m in {(*HEAVY, *SUBCLASSES)!r} if m in sys.modules]\n"
        "    if found: sys.exit(f'{name} imports {found}')"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert done.stderr == ""


@pytest.mark.parametrize("name", sorted(SUBCLASSES))
def test_only_subclasses_of_the_stack_are_excused(name: str) -> None:
    tree = ast.parse((ROOT / Path(*name.split("."))).with_suffix(".py").read_text("utf-8"))
    theirs = {
        (alias.asname or alias.name).split(".")[0]
        for node in tree.body
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
        if (getattr(node, "module", None) or alias.name).split(".")[0] in HEAVY
    }
    bases = {ast.unparse(b) for n in tree.body if isinstance(n, ast.ClassDef) for b in n.bases}
    assert any(base.split(".")[0] in theirs for base in bases)


def test_one_module_asks_which_process_this_is() -> None:
    asks = re.compile(
        r"torch\.distributed|torch import distributed|PartialState|\bRANK\b|WORLD_SIZE"
        r"|process_index|main_process|process_zero"
    )
    found = {
        file.relative_to(PACKAGE).as_posix()
        for file in MODULES
        if asks.search(file.read_text(encoding="utf-8"))
    }
    assert found == SPEAK_OF_PROCESSES


def test_every_module_has_a_test_file() -> None:
    missing = []
    for file in MODULES:
        relative = file.relative_to(PACKAGE)
        if relative.name == "__init__.py" or not behaves(file):
            continue
        test = ROOT / "tests" / relative.with_name(f"test_{relative.name}")
        if not test.exists():
            missing.append(relative.as_posix())
    assert missing == []


def test_every_entry_point_of_ours_resolves_to_its_protocol() -> None:
    from peftkit import plugins
    from peftkit.plugins.quantizer import Quantizer

    checked = 0
    for group in plugins.GROUPS:
        protocol = {
            "sources": plugins.Source, "tasks": plugins.Task, "adapters": plugins.Adapter,
            "methods": plugins.Method, "quantizers": Quantizer, "merges": plugins.Merge,
            "exporters": plugins.Exporter, "rewards": plugins.Reward,
            "importers": plugins.Importer, "schedulers": plugins.Scheduler,
        }[group]  # fmt: skip
        members = [m for m in dir(protocol) if not m.startswith("_")]
        for point in entry_points(group=f"peftkit.{group}"):
            if point.dist is not None and point.dist.name == "peftkit":
                plugin = point.load()
                lacking = [m for m in members if not hasattr(plugin, m)]
                assert lacking == [], f"{point.value} lacks {lacking}"
                checked += 1
    assert checked >= 55


def test_a_quantization_is_known_to_its_own_files_alone() -> None:
    elsewhere = {
        "cli/words.py": "how other tools' command lines ask for it",
        "exporters/quantized.py": "writes that format, by the quantizer",
        "memory/simulate.py": "its optimizers page their states",
        "models/versions.py": "the stack",
        "recipe/optimizers.py": "optimizers that live in the same packages",
        "recipe/schema.py": "an example",
        "recipe/tables.py": "hints of its native config that are wrong",
        "system/imports.py": "what it has compiled on import",
        "system/quiet.py": "the stack's chatter",
    }
    names = re.compile(r"bitsandbytes|bnb_|load_in_[48]bit|Params4bit|torchao", re.IGNORECASE)
    found = {
        file.relative_to(PACKAGE).as_posix()
        for file in MODULES
        if file.parent.name not in ("quantizers", "importers")  # which read other tools' words
        and names.search(file.read_text(encoding="utf-8"))
    }
    assert found == set(elsewhere)


def test_no_path_of_one_machine_and_nothing_unfinished_in_the_tree() -> None:
    pattern = r"(\.pyen[v]|/home/[a-z]+/|/ro[o]t/|TO[D]O|FIX[M]E|raise NotImpl[e]mented)"
    places = ["peftkit/*.py", "tests/*.py", "docs", "examples", "README.md", "recipes"]
    done = subprocess.run(
        ["git", "grep", "-nIE", pattern, "--", *places],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.stdout == ""


def test_types_and_style_hold_in_package_and_benchmarks() -> None:
    """As CONTRIBUTING asks: no test calls every stage of a benchmark, and mypy reads each."""
    for command in (["mypy"], ["ruff", "check", "."], ["ruff", "format", "--check", "."]):
        done = subprocess.run(
            [sys.executable, "-m", *command], cwd=ROOT, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
