"""What a merge starts from: a run, an adapter or a whole model, and the base it belongs to."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from peftkit.adapters.continued import adapter_folder
from peftkit.errors import ArtefactError, NetworkError, UsageError
from peftkit.recipe.schema import Choice, ModelSection
from peftkit.rundir.base_record import check_base
from peftkit.rundir.paths import RunDir
from peftkit.rundir.trained_recipe import (
    check_base_is_there,
    load_trained_recipe,
    named_base,
    on_base,
)
from peftkit.rundir.whole import check_weights
from peftkit.system.weight_folders import check_base_folder
from peftkit.system.weights_digest import identify

_FILES = ("*.safetensors", "*.json", "*.jinja", "*.model", "*.txt", "*.md")
"""What is fetched of a base on the Hub; pickles and code are not."""


@dataclass(frozen=True)
class Inputs:
    """Name the folders of a merge."""

    source: Path
    """As it was given."""
    adapter: Path | None
    """The adapter's folder; None for a whole model."""
    base: Path
    """The folder of the weights that the adapter goes into, or the whole model's."""
    run_dir: RunDir | None
    quantize: Choice | None
    """How the base was quantized in training, as the run's recipe says; None when it was not, or
    when nobody knows."""
    other_base: str = ""
    """What to say of a base whose weights are others than in training, if that was allowed."""


def find_inputs(
    source: Path, base: str | None, *, use: str = "merge", allow_other_base: bool = False
) -> Inputs:
    """Find the adapter and its base, whose weights are those that it was trained on.

    Args:
        base: overrides the base that the run or the adapter names.
        use: what they are found for, as a record says it.
        allow_other_base: go on although the base's weights are other ones than in training.

    Raises:
        UsageError: the base's weights are other ones than in training.
        ArtefactError: there is no adapter and no model, or the base is not there any more.
        NetworkError: the base is on the Hub and cannot be fetched.
    """
    if not source.is_dir():
        raise ArtefactError(
            f"{source} is no folder", hint="name a run, an adapter folder or a model folder"
        )
    run_dir = RunDir(source) if (source / "resolved.yaml").is_file() else None
    folder = run_dir.trained if run_dir else source
    if run_dir:
        check_weights(run_dir)
    if not (folder / "adapter_config.json").is_file():
        if base is not None:
            raise UsageError(
                f"{source} is a whole model, so there is no base to merge it into",
                hint="leave --base out",
            )
        check_base_folder(folder)
        return Inputs(source, None, folder, run_dir, None)
    adapter_folder(folder)  # before a byte is digested: its weights may lead to a device
    return _hold_base(
        _with_base(source, folder, run_dir, base), use=use, allow_other_base=allow_other_base
    )


def _with_base(source: Path, folder: Path, run_dir: RunDir | None, base: str | None) -> Inputs:
    section = load_trained_recipe(run_dir, base=base).model if run_dir else None
    quantize = section.quantize if section else None
    if section is None or section.path is None:
        section = on_base(ModelSection(), base or named_base(folder))
    return Inputs(source, folder, find_base(section), run_dir, quantize)


def _hold_base(inputs: Inputs, *, use: str, allow_other_base: bool) -> Inputs:
    """Compare the base's weights with those that the run, or the adapter's folder, recorded."""
    if inputs.adapter is None:
        return inputs
    identity = identify(inputs.base)
    said = check_base(inputs.adapter, identity, use=use, allow_other=allow_other_base)
    return replace(inputs, other_base=said)


def find_base(section: ModelSection) -> Path:
    """Return the folder of the base that a model section names, fetched if need be.

    Raises:
        ArtefactError: it is not there, or no model.
        NetworkError: the Hub cannot be reached.
    """
    from peftkit.models.load import resolve

    check_base_is_there(str(section.path))
    found = resolve(section)
    root = Path(found.path_or_id) if found.is_local else _fetch(found.path_or_id, found.revision)
    return root / found.subfolder


def _fetch(name: str, revision: str | None) -> Path:
    """Return a Hub model's folder in the cache, fetched if need be."""
    from peftkit.system.hub_errors import explain_hub_error
    from peftkit.system.quiet import quiet_stack

    quiet_stack()
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HTTPError

    try:
        place = snapshot_download(name, revision=revision, allow_patterns=list(_FILES))
    except (HTTPError, OSError, ValueError) as error:
        if isinstance(error, NetworkError | ArtefactError):
            raise
        raise explain_hub_error(error, name) from error
    folder = Path(place)
    check_base_folder(folder)
    return folder
