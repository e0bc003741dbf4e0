"""List the recipes that ship with peftkit, and copy one to start from."""

from __future__ import annotations

import difflib
import re
from dataclasses import asdict, dataclass
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peftkit.errors import UsageError

if TYPE_CHECKING:
    from rich.table import Table

_FACT = re.compile(r"(Needs|Takes|Reaches):\s*(.*?)\s*(?=(?:Needs|Takes|Reaches):|$)")


@dataclass(frozen=True)
class ShippedRecipe:
    """Describe a shipped recipe by the comment lines that open it."""

    name: str
    """Path below the recipes folder without its suffix, e.g. `hub/qwen3-0.6b-lora`."""
    purpose: str
    needs: str
    takes: str
    reaches: str
    file: Path


def shipped_recipes() -> list[ShippedRecipe]:
    """Read the headers of all shipped recipes, sorted by name."""
    root = Path(str(files("peftkit.embedded"))) / "recipes"
    found = [_describe(file, root) for file in root.rglob("*.yaml")]
    return sorted(found, key=lambda recipe: recipe.name)


def copy_recipe(name: str, folder: str | Path = ".") -> Path:
    """Copy a shipped recipe into a folder and return the file; an equal one there is enough.

    Raises:
        UsageError: no recipe has this name, or another file of its name is there.
    """
    known = {recipe.name: recipe for recipe in shipped_recipes()}
    if name not in known:
        close = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {close[0]}?" if close else "peftkit recipes lists them"
        raise UsageError(f"no shipped recipe is called {name!r}", hint=hint)
    folder = Path(folder)
    target = folder / known[name].file.name
    folder.mkdir(parents=True, exist_ok=True)
    content = known[name].file.read_bytes()
    try:
        with target.open("xb") as stream:
            stream.write(content)
    except FileExistsError:
        if not target.is_file() or target.read_bytes() != content:
            raise UsageError(
                f"{target} exists already, and is another recipe",
                hint=f"peftkit recipes {name} --to another-folder",
            ) from None
    return target


def to_json(recipes: list[ShippedRecipe]) -> list[dict[str, Any]]:
    """Return the recipes as plain data."""
    return [{**asdict(recipe), "file": str(recipe.file)} for recipe in recipes]


def render_recipes(recipes: list[ShippedRecipe]) -> Table:
    """Lay the recipes out as a table: the name, and what it does above what is known of it."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, show_header=False, padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for recipe in sorted(recipes, key=lambda recipe: "/" in recipe.name):
        facts = [
            f"{label} {value}"
            for label in ("needs", "takes", "reaches")
            if (value := getattr(recipe, label)) not in ("", "-", "not measured")
        ]
        about = Text(recipe.purpose)
        about.append("".join(f"\n{fact}" for fact in facts), "dim")
        table.add_row(Text(recipe.name, "bold"), about)
    return table


def _describe(file: Path, root: Path) -> ShippedRecipe:
    header = []
    for line in file.read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            break
        header.append(line.lstrip("# ").rstrip())
    facts = dict(_FACT.findall(" ".join(header[1:])))
    return ShippedRecipe(
        name=file.relative_to(root).with_suffix("").as_posix(),
        purpose=header[0].rstrip(".") if header else "",
        needs=facts.get("Needs", "").rstrip("."),
        takes=facts.get("Takes", "").rstrip("."),
        reaches=facts.get("Reaches", "").rstrip("."),
        file=file,
    )
