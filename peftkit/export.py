"""Export what a run trained to another program's format: the verb."""

from __future__ import annotations

import dataclasses
import re
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peftkit.errors import (
    ArtefactError,
    PeftkitError,
    RecipeError,
    ResourceError,
    UsageError,
)
from peftkit.merge import merge
from peftkit.merging.inputs import Inputs, find_inputs
from peftkit.merging.result import MergeResult, Onto
from peftkit.models.versions import stack_versions
from peftkit.plugins import find
from peftkit.plugins.exported import Exported, Proof, Trained
from peftkit.recipe.build import UPSTREAM_ERRORS, construct
from peftkit.recipe.overrides import apply_overrides
from peftkit.recipe.signatures import signature_of
from peftkit.recipe.strict import Gate
from peftkit.recipe.yaml_file import join
from peftkit.rundir.checkpoints import sync_tree
from peftkit.rundir.paths import write_json
from peftkit.rundir.samples import read_samples, text_of
from peftkit.system.checkpoint_files import weight_files
from peftkit.system.quiet import quiet_stack
from peftkit.system.scratch import scratch_beside
from peftkit.system.units import gibibytes
from peftkit.system.weight_folders import describe_file

if TYPE_CHECKING:
    from rich.console import RenderableType

MANIFEST = "export.json"
"""Written last: a folder with it is a whole export."""
_NUM_TEXTS = 6


@dataclass(frozen=True)
class ExportResult:
    """Say what an export wrote and what was measured of it."""

    out: Path
    to: str
    name: str
    files: tuple[str, ...]
    """Names under `out`, without the manifest."""
    num_bytes: int
    proofs: tuple[Proof, ...]
    notes: tuple[str, ...]
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """Return plain data."""
        return {"schema_version": 1, **dataclasses.asdict(self), "out": str(self.out)}


def export(  # noqa: PLR0913 - the command's own options
    source: str | Path,
    to: str,
    *,
    out: str | Path | None = None,
    options: Sequence[str] = (),
    base: str | None = None,
    onto: Onto | None = None,
    allow_other_base: bool = False,
    progress: Callable[[str], None] | None = None,
) -> ExportResult:
    """Write a run, an adapter or a whole model in another format, whole or not at all.

    Args:
        source: a run directory, an adapter folder, or a whole model's folder.
        to: an exporter's name.
        out: a new or empty folder; `exports/NAME-TO` when None.
        options: the exporter's own, each `KEY=VALUE`.
        base: as for `merge`: the base that an adapter belongs to.
        onto: as for `merge`: which weights of a quantized base take the change.
        allow_other_base: export although the base's weights are other ones than in training.
        progress: called with a line now and then.

    Raises:
        ArtefactError: the format cannot express the model, or what was written is not the model.
        RecipeError: an option is unknown or wrong.
        ResourceError: a package or room on the disk is missing.
        UsageError: no such exporter, or `out` holds something.
    """
    started = time.monotonic()
    say = progress or (lambda _: None)
    quiet_stack()
    exporter_class = find("exporters", to)
    exporter = exporter_class(_read_options(to, exporter_class.Config, options))
    source = Path(source)
    inputs = find_inputs(source, base, use="export", allow_other_base=allow_other_base)
    name = _name_of(inputs)
    out = _choose_out(Path(out) if out else None, name, to)
    _make_parent(out)
    with scratch_beside(out) as scratch:
        partial, merged = scratch / "partial", scratch / "merged"
        partial.mkdir()
        with _named({merged: f"{source} (merged)", partial: str(out)}):
            trained, result = _prepare(inputs, exporter_class.reads, name, merged, onto, say)
            say(f"writing {to}")
            exported = _run(exporter, trained, partial)
        exported = _with_merge(exported, result)
        _refuse_unproven(exported.proofs, to)
        files = _seal(partial, to, source, options, exported)
        _put_in_place(partial, out)
    return ExportResult(
        out=out,
        to=to,
        name=name,
        files=tuple(files),
        num_bytes=sum(file["num_bytes"] for file in files.values()),
        proofs=exported.proofs,
        notes=exported.notes,
        seconds=round(time.monotonic() - started, 3),
    )


@contextmanager
def _named(folders: Mapping[Path, str]) -> Iterator[None]:
    """Have errors inside name what a person knows, and no folder that is gone when they read it."""
    try:
        yield
    except PeftkitError as error:
        message, hint = error.message, error.hint or ""
        for folder, name in folders.items():
            message = message.replace(str(folder), name)
            hint = hint.replace(str(folder), name)
        raise type(error)(message, hint=hint or None) from error


def _read_options(to: str, config: type | str, options: Sequence[str]) -> Any:
    """Read `KEY=VALUE`s through the gate, and construct the exporter's config."""
    where = f"--to {to}"
    read = apply_overrides(where, {}, options)
    gate = Gate(where, {}, {join(to, key) for key in read.keys})
    gate.problems.extend(read.problems)
    gate.check_options(to, read.data, signature_of(config))
    if gate.problems:
        raise RecipeError(where, gate.sorted_problems())
    try:
        return construct(config, read.data)
    except UPSTREAM_ERRORS as error:
        raise UsageError(f"{where}: {error}") from error


def _name_of(inputs: Inputs) -> str:
    """Return the run's name, or the folder's."""
    if inputs.run_dir is not None:
        from peftkit.rundir.trained_recipe import load_trained_recipe

        return load_trained_recipe(inputs.run_dir).name
    return inputs.source.resolve().name


def _choose_out(out: Path | None, name: str, to: str) -> Path:
    plain = re.sub(r"[^\w.-]+", "-", name)
    chosen = Path("exports") / f"{plain}-{to}" if out is None else out
    if chosen.exists() and (not chosen.is_dir() or any(chosen.iterdir())):
        raise UsageError(
            f"{chosen} is there already and not an empty folder", hint="give another with --out DIR"
        )
    return chosen


def _make_parent(out: Path) -> None:
    parent = out.resolve().parent
    try:
        parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ResourceError(f"cannot make {parent}: {error.strerror}") from error


def _prepare(  # noqa: PLR0913, PLR0917 - what is found, and where it goes
    inputs: Inputs,
    reads: str,
    name: str,
    merged: Path,
    onto: Onto | None,
    say: Callable[[str], None],
) -> tuple[Trained, MergeResult | None]:
    """Give the exporter what it reads: the adapter itself, or a whole model, merged if need be."""
    rows = read_samples(inputs.run_dir, _NUM_TEXTS) if inputs.run_dir is not None else []
    texts = tuple(text_of(row, "prompt") for row in rows)
    if reads == "adapter":
        if inputs.adapter is None:
            raise ArtefactError(
                f"{inputs.source} is a whole model, not an adapter",
                hint="export it with --to safetensors",
            )
        return Trained(name, inputs.adapter, base=str(inputs.base), texts=texts), None
    num_copies = 1 if inputs.adapter is None else 2
    _require_room(merged.parent, num_copies * _num_bytes(inputs.base))
    if inputs.adapter is None:
        return Trained(name, inputs.base, texts=texts), None
    say("merging the adapter into its base")
    result = merge(inputs.source, out=merged, base=str(inputs.base), onto=onto, progress=say)
    return Trained(name, merged, is_scratch=True, texts=texts), result


def _num_bytes(folder: Path) -> int:
    return sum(file.stat().st_size for file in weight_files(folder))


def _require_room(folder: Path, num_bytes: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < num_bytes:
        raise ResourceError(
            f"the export needs {gibibytes(num_bytes)} in {folder.parent}, where"
            f" {gibibytes(free)} are free",
            hint="give a folder of another disk with --out DIR",
        )


def _run(exporter: Any, trained: Trained, partial: Path) -> Exported:
    try:
        exported: Exported = exporter.export(trained, partial)
    except OSError as error:
        raise ResourceError(
            f"cannot write the export: {error.strerror or error}",
            hint="give a folder of another disk with --out DIR",
        ) from error
    return exported


def _with_merge(exported: Exported, result: MergeResult | None) -> Exported:
    """Put what the merge measured and said before what the exporter did."""
    if result is None:
        return exported
    proofs = list(exported.proofs)
    found = result.verification
    if found is not None:
        detail = (
            f"merged against base + adapter, {found.num_tokens} tokens of {found.rows};"
            f" {found.basis}"
        )
        proofs.insert(0, Proof("merge", found.max_difference, found.tolerance, detail))
    return dataclasses.replace(
        exported, proofs=tuple(proofs), notes=(*result.notes, *exported.notes)
    )


def _refuse_unproven(proofs: Sequence[Proof], to: str) -> None:
    failed = [
        f"{proof.what}: {proof.measured:.3g} is above {proof.tolerance:.3g} ({proof.detail})"
        for proof in proofs
        if not proof.holds
    ]
    if failed:
        raise ArtefactError(
            f"what --to {to} wrote is not the trained model: {'; '.join(failed)}",
            hint="nothing was kept; --to safetensors carries the model as it is",
        )


def _seal(
    partial: Path, to: str, source: Path, options: Sequence[str], exported: Exported
) -> dict[str, dict[str, Any]]:
    """Write the manifest last, and wait for the disk."""
    files = {
        file.relative_to(partial).as_posix(): describe_file(file)
        for file in sorted(partial.rglob("*"))
        if file.is_file()
    }
    content: Mapping[str, Any] = {
        "to": to,
        "source": str(source),
        "options": list(options),
        "files": files,
        "proofs": [dataclasses.asdict(proof) for proof in exported.proofs],
        "notes": list(exported.notes),
        "packages": stack_versions(),
    }
    sync_tree(partial)
    write_json(partial / MANIFEST, content)
    sync_tree(partial)
    return files


def _put_in_place(partial: Path, out: Path) -> None:
    try:
        if out.is_dir():
            out.rmdir()  # checked to be empty: a rename does not go into a folder
        partial.rename(out)
    except OSError as error:
        raise UsageError(
            f"{out} was written by another process meanwhile ({error.strerror}); nothing was"
            " exported",
            hint="give another folder with --out DIR",
        ) from error


def render_export(result: ExportResult) -> RenderableType:
    """Lay out where an export lies, what was measured, and what to know about it."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("measured", "value", "allowed", "of what"):
        table.add_column(column, overflow="fold")
    for proof in result.proofs:
        table.add_row(
            proof.what, f"{proof.measured:.3g}", f"{proof.tolerance:.3g}", Text(proof.detail)
        )
    noun = "file" if len(result.files) == 1 else "files"
    head = Text(
        f"{result.out}: {len(result.files)} {noun}, {gibibytes(result.num_bytes)},"
        f" {result.seconds:.1f} s"
    )
    notes = [Text(f"note: {note}") for note in result.notes]
    return Group(head, table, *notes)
