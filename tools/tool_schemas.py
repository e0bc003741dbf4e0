"""Write peftkit/importers/schemas.json: the names of all keys that other tools' configs may have.

    python tools/tool_schemas.py FOLDER

FOLDER holds a checkout of each tool, named as in `TOOLS`. Only names are read, from the fields of
the classes that declare a tool's options; nothing of a tool is imported or run.
"""

from __future__ import annotations

import ast
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path

OUT = Path(__file__).resolve().parents[1] / "peftkit" / "importers" / "schemas.json"
TOOLS = {
    "axolotl": (
        "axolotl-ai-cloud+axolotl",
        ["src/axolotl/utils/schemas/*.py", "src/axolotl/integrations/*/args.py"],
        "VERSION",
    ),
    "llamafactory": (
        "hiyouga+LLaMA-Factory",
        ["src/llamafactory/hparams/*_args.py"],
        "src/llamafactory/extras/env.py",
    ),
    "litgpt": ("Lightning-AI+litgpt", ["litgpt/args.py"], "pyproject.toml"),
    "ms_swift": (
        "modelscope+ms-swift",
        [
            "swift/arguments/**/*.py",
            "swift/trainers/arguments.py",
            "swift/rlhf_trainers/arguments.py",
        ],
        "swift/version.py",
    ),
    "torchtune": ("pytorch+torchtune", [], "version.txt"),
    "mlx": ("ml-explore+mlx-lm", [], "mlx_lm/_version.py"),
}
NESTED = ("Dataset", "LrGroup", "Type", "SelectiveCheckpointing", "UserDefined", "FSDPConfig")
"""Words in the names of classes whose fields do not stand at a config's top."""
_VERSION = re.compile(r"^(?:\w+ = )?['\"]?(\d+\.\d+\.\d+[\w.]*)", re.MULTILINE)


def main(folder: Path) -> None:
    """Read every checkout and write the table."""
    found = {}
    for tool, (place, patterns, version_file) in TOOLS.items():
        root = folder / place
        version = _VERSION.search((root / version_file).read_text(encoding="utf-8"))
        keys = set(_extra_keys(tool, root))
        for pattern in patterns:
            for file in root.glob(pattern):
                keys.update(_fields(file))
        found[tool] = {"version": version[1] if version else "", "keys": sorted(keys)}
    lines = (f" {json.dumps(tool)}: {json.dumps(schema)}" for tool, schema in found.items())
    OUT.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")


def _fields(file: Path) -> Iterator[str]:
    tree = ast.parse(file.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef) and not any(word in node.name for word in NESTED):
            for line in node.body:
                if isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name):
                    yield line.target.id


def _extra_keys(tool: str, root: Path) -> Iterator[str]:
    """Give the keys of tools whose options stand in no class."""
    if tool == "torchtune":  # whatever a recipe reads from its config, as the shipped ones have it
        for file in root.glob("recipes/configs/**/*.yaml"):
            yield from re.findall(r"^(\w+):", file.read_text(encoding="utf-8"), re.MULTILINE)
        for file in root.glob("recipes/*.py"):
            text = file.read_text(encoding="utf-8")
            found = re.findall(r"\bcfg\.(?:get\(\s*\"(\w+)|(\w+))", text)
            yield from (one or other for one, other in found)
    elif tool == "mlx":
        for node in ast.walk(ast.parse((root / "mlx_lm/lora.py").read_text(encoding="utf-8"))):
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "CONFIG_DEFAULTS":
                yield from ast.literal_eval(node.value)
    elif tool == "litgpt":
        for file in root.glob("litgpt/finetune/*.py"):
            yield from _arguments(file, "setup")


def _arguments(file: Path, function: str) -> Iterator[str]:
    for node in ast.parse(file.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef) and node.name == function:
            yield from (argument.arg for argument in node.args.args)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
