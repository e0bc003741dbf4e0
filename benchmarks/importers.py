"""Measure how much of other tools' configs `peftkit init` says as a recipe.

    python benchmarks/importers.py FOLDER [OUT.json NAME]

FOLDER holds a folder for each importer (`axolotl/`, `llamafactory/` ...) with configs of real users
anywhere below it. For each one: is it recognised, does its recipe pass `check` (what is missing on
this machine aside: files of rows, folders of models, packages), are the values that matter equal to
those that an own, simple reading of the config finds, and is nothing `not supported`. The result,
written into OUT under NAME beside those of other sets, holds counts alone, nothing of the configs.
"""

from __future__ import annotations

import json
import os
import re
import sys
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from peftkit.errors import PeftkitError
from peftkit.importers.writing import Written, import_config
from peftkit.plugins import Fate, find

SUFFIXES = (".yaml", ".yml", ".sh", ".json")
MISSING = ("no such", "there is no file", "not found", "needs the package", "is not installed",
           "does not exist", "which is missing", "matches no file", "not installed")  # fmt: skip
HERE = ("model.path", "adapter.from", "data.source")
SAME: Mapping[str, Mapping[str, str]] = {
    "axolotl": {
        "learning_rate": "learning_rate", "num_epochs": "num_train_epochs",
        "max_steps": "max_steps", "micro_batch_size": "per_device_train_batch_size",
        "gradient_accumulation_steps": "gradient_accumulation_steps", "lora_r": "r",
        "lora_alpha": "lora_alpha", "lora_dropout": "lora_dropout", "sequence_len": "max_length",
        "lr_scheduler": "lr_scheduler_type", "warmup_steps": "warmup_steps", "seed": "seed",
        "load_in_4bit": "load_in_4bit", "load_in_8bit": "load_in_8bit", "optimizer": "optim",
        "weight_decay": "weight_decay",
    },
    "mlx": {
        "learning_rate": "learning_rate", "iters": "max_steps",
        "batch_size": "per_device_train_batch_size", "max_seq_length": "max_length",
        "grad_accumulation_steps": "gradient_accumulation_steps", "seed": "seed",
    },
    "torchtune": {
        "batch_size": "per_device_train_batch_size", "seed": "seed",
        "gradient_accumulation_steps": "gradient_accumulation_steps", "epochs": "num_train_epochs",
    },
}  # fmt: skip
_HF = {
    name: name
    for name in ("learning_rate", "num_train_epochs", "max_steps", "per_device_train_batch_size",
                 "gradient_accumulation_steps", "lr_scheduler_type", "warmup_steps", "seed",
                 "lora_alpha", "lora_dropout", "load_in_4bit", "load_in_8bit", "weight_decay")
}  # fmt: skip
ALIKE = {
    "llamafactory": {**_HF, "lora_rank": "r", "cutoff_len": "max_length",
                     "warmup_ratio": "warmup_steps"},
    "trl": {**_HF, "lora_r": "r", "max_seq_length": "max_length", "max_length": "max_length",
            "warmup_ratio": "warmup_steps"},
    "ms_swift": {**_HF, "lora_rank": "r", "max_length": "max_length",
                 "warmup_ratio": "warmup_steps"},
}  # fmt: skip


def main(folder: Path, out: Path | None, name: str) -> None:
    """Measure every tool's folder and write the counts."""
    tools = {}
    for place in sorted(folder.iterdir()):
        if place.is_dir():
            tools[place.name] = measure(place)
    total: Counter[str] = Counter()
    for counts in tools.values():
        total.update({k: v for k, v in counts.items() if isinstance(v, int)})
    result = {"all": _with_shares(dict(total)), "tools": tools}
    print(json.dumps(result, indent=2))
    if out:
        kept = json.loads(out.read_text(encoding="utf-8"))["sets"] if out.exists() else {}
        record = {
            "schema_version": 1,
            "command": "python benchmarks/importers.py FOLDER OUT.json NAME",
            "sets": {**kept, name: result},
        }
        out.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


def measure(place: Path) -> dict[str, Any]:
    """Count what became of one tool's configs."""
    counts: Counter[str] = Counter()
    why: dict[str, Counter[str]] = defaultdict(Counter)
    files = [f for f in sorted(place.rglob("*")) if f.suffix in SUFFIXES and f.is_file()
             and f.name != "dataset_info.json"]  # fmt: skip
    for file in files:
        counts["configs"] += 1
        written, problem = _import(file)
        if written is None:
            why["failed"][problem] += 1
            print(f"{file}: {problem}", file=sys.stderr)
            continue
        tool = next(n for n in _names() if find("importers", n).title == written.title)
        counts["recognised"] += tool == place.name
        left = [str(p.key) + " " + str(p) for p in written.problems if not _is_missing_here(p)]
        counts["passes_check"] += not left
        wrong = list(_differences(file, tool, written))
        counts["values_equal"] += not wrong
        counts["passes_check_and_values_equal"] += not left and not wrong
        unsaid = [one for one in written.fates if one.fate is Fate.UNSUPPORTED]
        counts["nothing_unsupported"] += not unsaid
        why["unsupported"].update({_named(one.key) for one in unsaid})
        for text in (*left, *wrong, *(f"{o.key}: {o.value} -> {o.how}" for o in unsaid)):
            print(f"{file}: {text}", file=sys.stderr)
    found: dict[str, Any] = _with_shares(dict(counts))
    found["unsupported_keys"] = dict(why["unsupported"].most_common(12))
    return found


def _named(key: str) -> str:
    """Name a key without what a user named in it."""
    return re.sub(r"^((?:eval_)?dataset)\.[^.]+", r"\1", re.sub(r"\.\d+", "", key))


def _names() -> list[str]:
    from peftkit.plugins import plugin_names

    return plugin_names("importers")


def _import(file: Path) -> tuple[Written | None, str]:
    with tempfile.TemporaryDirectory() as folder:
        try:
            written = import_config(file, out=Path(folder) / "recipe.yaml")
        except PeftkitError as error:
            return None, error.message.splitlines()[0]
        except Exception as error:
            return None, f"{type(error).__name__}: {error}"
    return written, "" if written else "not recognised"


def _is_missing_here(problem: Any) -> bool:
    text = str(problem)
    return problem.key.startswith(HERE) or any(word in text for word in MISSING)


def _differences(file: Path, tool: str, written: Written) -> Iterator[str]:
    """Compare the values that matter with what stands in the config."""
    stated = _values(file)
    recipe = yaml.safe_load(written.text)
    flat = dict(_leaves(recipe))
    accounted = {one.key: one for one in written.fates}
    for key, name in {**SAME.get(tool, {}), **ALIKE.get(tool, {})}.items():
        value = stated.get(key)
        if value in (None, "", False) or "$" in str(value):
            continue
        fate = accounted.get(key)
        if fate is not None and fate.fate in (Fate.IMPLIED, Fate.NO_EFFECT, Fate.UNSUPPORTED):
            continue
        if name not in flat or not _equal(flat[name], value):
            yield f"{key} is {value!r}, but {name} is {flat.get(name)!r}"


def _values(file: Path) -> dict[str, Any]:
    text = file.read_text(encoding="utf-8")
    if file.suffix == ".sh":  # literal values alone, of the options wherever they stand
        commandless = re.sub(r"(?m)^\s*#.*$", "", text)
        found = re.findall(r"(?<=\s)--(\w+)[ =]([\w.+-]+)(?=\s|$)", commandless)
        return {key: yaml.safe_load(value) for key, value in reversed(found)}
    return yaml.safe_load(text) or {}


def _leaves(node: Any) -> Iterator[tuple[str, Any]]:
    for key, value in node.items() if isinstance(node, dict) else ():
        if isinstance(value, dict):
            yield from _leaves(value)
        else:
            yield key, value


def _equal(one: Any, other: Any) -> bool:
    try:
        return abs(float(one) - float(other)) <= 1e-12 * abs(float(other))
    except (TypeError, ValueError):
        return str(one).lower() == str(other).lower()


def _with_shares(counts: dict[str, Any]) -> dict[str, Any]:
    configs = counts.get("configs", 0)
    shares = {f"{name}_percent": round(100 * n / configs, 1) for name, n in counts.items()
              if name != "configs" and configs}  # fmt: skip
    return {**counts, **shares}


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    folder, *rest = sys.argv[1:]
    main(Path(folder), Path(rest[0]) if rest else None, rest[1] if len(rest) > 1 else "all")
