"""Run other tools' configs by the tool and by peftkit: the same tokens, the same losses.

    python benchmarks/same_tokens/compare.py [axolotl=PYTHON] [llamafactory=PYTHON] [trl=PYTHON]

Each `TOOL/NAME.y*ml` here is run by the tool in the environment of the Python that is named for it
(trl is in this one), then `peftkit init` makes a recipe of it, which peftkit runs. What the two
trainers are given is compared token by token, over the first steps, and their losses are compared
in size. Unequal tokens end the comparison (exit 1). Writes benchmarks/results/same_tokens.json.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import written

HERE = Path(__file__).resolve().parent
OUT = HERE.parent / "results" / "same_tokens.json"
SAMPLE = HERE.parents[1] / "peftkit" / "embedded" / "docstring-summaries" / "train.jsonl"
TOLERANCE = 1e-3
"""How far losses may lie apart, of their size."""
DIVIDED_BY: dict[str, tuple[int, int]] = {"llamafactory/pretrain": (256, 254)}
"""Config -> tokens that the tool divides a step's loss by, and those that its loss is of: the
first of each block of running text counts there, and nothing can predict it."""
IGNORED = -100


def compare(tool: str, python: str, config: Path, folder: Path) -> dict[str, Any]:
    """Run one config both ways.

    Raises:
        ValueError: tokens or losses differ, or nothing was recorded.
    """
    shutil.copy(config, folder)
    theirs = _record(python, folder, tool, [config.name])
    peftkit = [sys.executable, "-m", "peftkit"]
    recipe = f"{config.stem}.recipe.yaml"
    subprocess.run([*peftkit, "init", config.name, "--out", recipe], cwd=folder, check=True,
                   stdout=subprocess.DEVNULL)  # fmt: skip
    ours = _record(sys.executable, folder, "peftkit", ["run", recipe, "--out", "run"])
    name = f"{tool}/{config.stem}"
    for step, (wanted, found) in enumerate(zip(theirs["steps"], ours["steps"], strict=True)):
        if wanted != found:
            raise ValueError(f"{name}: step {step} trains other tokens")
    divided, trained = DIVIDED_BY.get(name, (1, 1))
    losses = [loss * divided / trained for loss in theirs["losses"]]
    apart = max(abs(a - b) / a for a, b in zip(losses, ours["losses"], strict=True))
    if apart > TOLERANCE or theirs["rates"] != ours["rates"]:
        raise ValueError(f"{name}: losses {losses} and {ours['losses']}, {apart:.2g} apart")
    rows = [row for step in theirs["steps"] for row in step]
    return {
        "config": name, "steps": len(losses), "compared_rows": len(rows),
        "compared_tokens": sum(len(ids) for ids, _ in rows),
        "trained_tokens": sum(label != IGNORED for _, labels in rows for label in labels),
        "num_trainable": ours["num_trainable"], "losses_there": losses,
        "losses_here": ours["losses"], "apart": apart,
    }  # fmt: skip


def _record(python: str, folder: Path, tool: str, arguments: list[str]) -> dict[str, Any]:
    """Run a tool with the recorder around it; only what it recorded counts, not how it ended."""
    out = folder / f"{tool}.json"
    empty = folder / "empty"
    empty.mkdir(exist_ok=True)
    (empty / "torchaudio.py").touch()  # LLaMA-Factory imports it, and uses it for sounds alone
    environment = {
        **os.environ, "HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": "",
        "DISABLE_VERSION_CHECK": "1", "AXOLOTL_DO_NOT_TRACK": "1",
        **({"PYTHONPATH": str(empty)} if tool == "llamafactory" else {}),
    }  # fmt: skip
    log = folder / f"{tool}.log"
    with log.open("w", encoding="utf-8") as stream:
        command = [python, str(HERE / "record.py"), str(out), tool, *arguments]
        subprocess.run(command, cwd=folder, env=environment, check=False, stdout=stream,
                       stderr=subprocess.STDOUT)  # fmt: skip
    found: dict[str, Any] = json.loads(out.read_text(encoding="utf-8")) if out.exists() else {}
    if not found.get("losses") or not found["steps"]:
        raise ValueError(f"{tool} trained nothing: {log.read_text(encoding='utf-8')[-1500:]}")
    return found


def main(pythons: dict[str, str]) -> None:
    """Compare every config of the tools that are named."""
    kept = json.loads(OUT.read_text(encoding="utf-8"))["configs"] if OUT.exists() else []
    found = {one["config"]: one for one in kept}
    for tool, python in pythons.items():
        for config in sorted((HERE / tool).glob("*.y*ml")):
            with tempfile.TemporaryDirectory() as folder:
                written.write(Path(folder), SAMPLE)
                one = compare(tool, python, config, Path(folder))
            name = one["config"]
            found[name] = one
            counted = f"{one['trained_tokens']:,} trained tokens of {one['compared_tokens']:,}"
            print(f"{name}: {counted} equal, losses {one['apart']:.1e} apart", flush=True)
            record = {
                "schema_version": 1, "command": "python benchmarks/same_tokens/compare.py",
                "python": platform.python_version(),
                "configs": [found[key] for key in sorted(found)],
            }  # fmt: skip
            OUT.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    named = dict(argument.split("=", 1) for argument in sys.argv[1:])
    main({"trl": sys.executable, **named})
