"""The house rules, as tests: file length, names, layers, imports, docstrings, plugins."""

from __future__ import annotations

import ast
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "peftkit"
MODULES = sorted(p for p in PACKAGE.rglob("*.py") if "__pycache__" not in p.parts)
BANNED = {"utils", "util", "common", "helpers", "helper", "misc", "core"}
HEAVY = ("torch", "transformers", "peft", "trl", "datasets", "accelerate", "bitsandbytes")

# Each layer may import only those before it; modules on one line do not know each other's layer.
LAYERS = [
    {"errors"},
    {"plugins"},
    {"recipe", "run_dir"},
    {"sources", "tasks", "adapters", "methods", "embedded", "masks", "machine", "model", "data",
     "recipes", "allocator", "progress", "card", "checkpoints", "resume"},
    {"run", "evaluate", "generate", "report", "runs", "doctor", "init", "audit_view", "testing"},
    {"cli"},
]  # fmt: skip


def layer_of(module: str) -> int | None:
    for depth, names in enumerate(LAYERS):
        if module in names:
            return depth
    return None


def imports_at_top(tree: ast.Module) -> set[str]:
    """Names imported when the module is: not inside functions or `if TYPE_CHECKING`."""
    found: set[str] = set()
    for node in tree.body:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


@pytest.mark.parametrize("file", MODULES, ids=lambda f: f.relative_to(PACKAGE).as_posix())
def test_file_keeps_the_house_rules(file: Path) -> None:
    text = file.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 400
    assert file.stem not in BANNED
    tree = ast.parse(text)
    assert ast.get_docstring(tree), "a module says what it is for"
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno - node.lineno < 60, f"{node.name} is long"
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            in_class = any(
                node in getattr(parent, "body", [])
                for parent in ast.walk(tree)
                if isinstance(parent, ast.Module | ast.ClassDef)
            )
            if in_class:
                assert ast.get_docstring(node), f"{node.name} is public and has no docstring"


@pytest.mark.parametrize("file", MODULES, ids=lambda f: f.relative_to(PACKAGE).as_posix())
def test_layers_point_one_way(file: Path) -> None:
    parts = file.relative_to(PACKAGE).with_suffix("").parts
    own = layer_of(parts[0])
    if parts[0] == "__init__":
        return
    assert own is not None, f"{parts[0]} has no place in LAYERS"
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("peftkit."):
            other = node.module.split(".")[1]
            depth = layer_of(other)
            assert depth is not None and depth <= own, f"{parts} imports {node.module}"


def test_importing_any_module_imports_nothing_heavy() -> None:
    names = [
        ".".join(("peftkit", *file.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(
            ".__init__"
        )
        for file in MODULES
    ]
    script = (
        "import sys, importlib\n"
        f"for name in {names!r}: importlib.import_module(name)\n"
        f"print([m for m in {HEAVY!r} if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_every_module_has_a_test_file() -> None:
    missing = []
    for file in MODULES:
        relative = file.relative_to(PACKAGE)
        if relative.name == "__init__.py":
            continue
        test = ROOT / "tests" / relative.with_name(f"test_{relative.name}")
        if not test.exists():
            missing.append(relative.as_posix())
    assert missing == []


def test_every_entry_point_of_ours_resolves_to_its_protocol() -> None:
    from peftkit import plugins

    checked = 0
    for group in plugins.GROUPS:
        protocol = {
            "sources": plugins.Source, "tasks": plugins.Task, "adapters": plugins.Adapter,
            "methods": plugins.Method, "merges": plugins.Merge, "exporters": plugins.Exporter,
        }[group]  # fmt: skip
        members = [m for m in dir(protocol) if not m.startswith("_")]
        for point in entry_points(group=f"peftkit.{group}"):
            if point.dist is not None and point.dist.name == "peftkit":
                plugin = point.load()
                lacking = [m for m in members if not hasattr(plugin, m)]
                assert lacking == [], f"{point.value} lacks {lacking}"
                checked += 1
    assert checked >= 55


def test_no_path_of_one_machine_and_nothing_unfinished_in_the_tree() -> None:
    done = subprocess.run(
        ["git", "grep", "-nIE", r"(\.pyenv|/home/[a-z]+/|/ro[o]t/|TO[D]O|FIX[M]E|NotImplemented)",
         "--", "peftkit/*.py", "tests/*.py", "docs", "README.md", "recipes"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.stdout == ""
