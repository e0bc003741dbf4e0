"""The recipe of a run that has trained, for verbs that read less of it than a training does.

A run is trained on one machine and used on another, where its data, or its base under that name,
may be gone. Only what a verb needs has to be there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from peftkit.errors import ArtefactError
from peftkit.recipe.load import load_recipe
from peftkit.rundir.paths import RunDir
from peftkit.system.checkpoint_files import read_json

if TYPE_CHECKING:
    from peftkit.recipe.schema import ModelSection, Recipe


def load_trained_recipe(
    run_dir: RunDir,
    overrides: Sequence[str] = (),
    *,
    base: str | None = None,
    with_data: bool = False,
) -> Recipe:
    """Load the resolved recipe of a run whose files may have moved.

    Args:
        base: where the base lies now: a folder, `embedded:NAME`, or a Hub id with `@REVISION`;
            where the run says when absent.
        with_data: whether the data is read, so that its files have to be there.

    Raises:
        RecipeError: an override is wrong, or data that is read is not there.
        ArtefactError: `base` is not there.
    """
    unneeded = ("model", "adapter") if with_data else ("model", "adapter", "data")
    run_dir.read_resolved()  # which is held against its seal
    recipe = load_recipe(run_dir.resolved, overrides, unneeded=unneeded)
    model = recipe.model if base is None else on_base(recipe.model, base)
    template = run_dir.trained / "chat_template.jinja"
    is_file = model.chat_template is not None and Path(model.chat_template).is_absolute()
    if is_file and not Path(str(model.chat_template)).is_file() and template.is_file():
        model = replace(model, chat_template=str(template.resolve()))
    return replace(recipe, model=model)


def on_base(model: ModelSection, base: str) -> ModelSection:
    """Return a model section with its base at another place.

    Raises:
        ArtefactError: it is not there.
    """
    folder = Path(base).expanduser()
    if base.startswith("embedded:"):
        return replace(model, path=base, revision=None, subfolder=None)
    if folder.is_dir():
        return replace(model, path=str(folder.resolve()), revision=None, subfolder=None)
    check_base_is_there(base)
    name, _, revision = base.partition("@")
    return replace(model, path=name, revision=revision or None, subfolder=None)


def named_base(adapter: Path) -> str:
    """Return the base that an adapter's config names, with its revision.

    Raises:
        ArtefactError: it names none.
    """
    file = adapter / "adapter_config.json"
    config = read_json(file)
    base, revision = config.get("base_model_name_or_path"), config.get("revision")
    if not isinstance(base, str) or not base:
        raise ArtefactError(f"{file} names no base model", hint="name it with --base")
    if isinstance(revision, str) and revision and not Path(base).is_dir():
        return f"{base}@{revision}"
    return base


def check_base_is_there(base: str) -> None:
    """Refuse a folder that is gone, before anything is asked of the Hub under its name.

    Raises:
        ArtefactError: says how to name another place.
    """
    folder = Path(base).expanduser()
    looks_local = folder.is_absolute() or base.startswith((".", "~")) or base.count("/") > 1
    if looks_local and not folder.is_dir():
        raise ArtefactError(
            f"the base model {base} is not there", hint="say where it is with --base FOLDER"
        )
