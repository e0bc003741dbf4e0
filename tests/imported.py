"""Import a config that a test writes, and hold what every import promises."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import yaml
from hypothesis import strategies as st

from peftkit.importers.writing import Written, import_config
from peftkit.plugins import Fate

HERE = ("model.path", "adapter.from", "data.source")
"""Keys about what lies on a machine: rows and models that are not there."""
MISSING = ("is not installed", "needs the package")


def imported(folder: Path, text: str, name: str = "config.yml", tool: str | None = None) -> Written:
    """Write a config into a folder and import it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(text, encoding="utf-8")
    out = folder / "out" / "recipe.yaml"
    out.unlink(missing_ok=True)
    written = import_config(folder / name, out=out, tool=tool)
    assert written is not None
    return written


def recipe_of(written: Written) -> dict[str, Any]:
    """Read the recipe that was written, as any other reader of YAML would."""
    found: dict[str, Any] = yaml.safe_load(written.text)
    return found


def fates(written: Written) -> dict[str, Fate]:
    """Say what became of each key."""
    return {one.key: one.fate for one in written.fates}


def refused(written: Written) -> list[str]:
    """Say what `check` refuses, what is missing on this machine aside."""
    return [
        f"{one.key} {one}"
        for one in written.problems
        if not one.key.startswith(HERE) and not any(word in str(one) for word in MISSING)
    ]


def flat(config: dict[str, Any], above: str = "") -> dict[str, Any]:
    """Write nested keys as dotted ones."""
    found: dict[str, Any] = {}
    for key, value in config.items():
        inside = isinstance(value, dict) and value
        found.update(flat(value, f"{above}{key}.") if inside else {f"{above}{key}": value})
    return found


def unaccounted(written: Written, config: dict[str, Any]) -> list[str]:
    """Name keys with a value of which nothing, or more than one thing, is said."""
    said = Counter(one.key for one in written.fates)
    stated = [key for key, value in config.items() if value is not None]
    return [key for key in stated if said[key] != 1]


ANYTHING = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-2, 4000),
    st.floats(0, 1, allow_nan=False),
    st.sampled_from(["", "auto", "16", "2e-4", "no", "q_proj,v_proj", "a/b", "./x.jsonl"]),
    st.lists(st.sampled_from(["q_proj", "v_proj", "x.json", 3]), max_size=2),
    st.dictionaries(st.sampled_from(["path", "type", "x"]), st.sampled_from(["alpaca", 1, None])),
    st.lists(
        st.dictionaries(st.sampled_from(["path", "type", "split"]), st.sampled_from(["a.json", 7])),
        max_size=2,
    ),
)
"""Values as no schema has them: an importer says of each what became of it, and never stumbles."""
