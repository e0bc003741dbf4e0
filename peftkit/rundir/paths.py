"""Where a run lives: the names of its files, and the lock that keeps it to one run at a time."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from peftkit.errors import ArtefactError, RecipeError, ResourceError
from peftkit.rundir.records import read_record
from peftkit.system.held_folder import HeldFolder, held_folder, is_held
from peftkit.system.process import ALONE, Process
from peftkit.system.seals import check_text_seal, sealed

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class RunDir:
    """Name every file of a run."""

    path: Path
    process: Process = ALONE
    """Which of the run's processes looks at it: the main one alone writes."""

    @property
    def recipe(self) -> Path:
        """The user's recipe, verbatim."""
        return self.path / "recipe.yaml"

    @property
    def resolved(self) -> Path:
        """The recipe with every default and decision in it, and each decision's reason."""
        return self.path / "resolved.yaml"

    @property
    def versions(self) -> Path:
        """Python, the stack, the device and the model's revision."""
        return self.path / "versions.json"

    @property
    def data(self) -> Path:
        """Fingerprint and audit of the rows."""
        return self.path / "data.json"

    @property
    def plan(self) -> Path:
        """What a step was planned to take, beside what was measured."""
        return self.path / "plan.json"

    @property
    def measured(self) -> Path:
        """Seconds, tokens per second and peak bytes of the training."""
        return self.path / "measured.json"

    @property
    def metrics(self) -> Path:
        """One JSON object a logged step."""
        return self.path / "metrics.jsonl"

    @property
    def checkpoints(self) -> Path:
        """`step-N` folders, each complete once its manifest is written."""
        return self.path / "checkpoints"

    @property
    def adapter(self) -> Path:
        """The trained adapter in plain PEFT format."""
        return self.path / "adapter"

    @property
    def model(self) -> Path:
        """The trained model, for full fine-tuning and pretraining."""
        return self.path / "model"

    @property
    def trained(self) -> Path:
        """`adapter` or `model`, whichever this run wrote."""
        return self.adapter if self.adapter.is_dir() else self.model

    @property
    def scores(self) -> Path:
        """Base, tuned and baselines, metric by metric."""
        return self.path / "scores.json"

    @property
    def samples(self) -> Path:
        """One JSON object a scored row: prompt, reference, base, tuned."""
        return self.path / "samples.jsonl"

    @property
    def report(self) -> Path:
        """One self-contained page."""
        return self.path / "report.html"

    @property
    def status(self) -> Path:
        """Identity, state (`running`, `stopped`, `failed`, `finished`) and exit code."""
        return self.path / "status.json"

    @property
    def trackers(self) -> Path:
        """By which key each tracker knows this run, and where it is to be seen."""
        return self.path / "trackers.json"

    @property
    def drift(self) -> Path:
        """What was allowed to change while it went on; only where something did."""
        return self.path / "drift.json"

    @property
    def is_begun(self) -> bool:
        """Tell whether a run began here, by any file that only a run writes first."""
        return any(file.exists() for file in (self.status, self.resolved, self.checkpoints))

    def read_resolved(self) -> dict[str, Any]:
        """Read the resolved recipe; empty where none was written.

        Raises:
            ArtefactError: the file is not what was written, or no recipe.
        """
        from peftkit.recipe.yaml_file import read_yaml

        if not self.resolved.exists():
            return {}
        try:
            document = read_yaml(self.resolved)
        except RecipeError as error:
            raise ArtefactError(f"{self.resolved} is no recipe: {error.problems[0]}") from None
        if not check_text_seal(document.text, self.resolved) and self._is_sealed():
            raise ArtefactError(
                f"{self.resolved} is not what was written: its end with the seal is missing",
                hint="bring the file back, or delete it: the same recipe writes it again",
            )
        return document.data

    def _is_sealed(self) -> bool:
        """Tell whether a version that seals what it writes was at work here."""
        with suppress(OSError, UnicodeDecodeError):
            return '\n  "seal": "' in self.status.read_text(encoding="utf-8")
        return False

    def read_if_there(self, file: Path) -> dict[str, Any]:
        """Read one of this run's JSON files; empty where it was not written."""
        return self.read_json(file) if file.exists() else {}

    def read_json(self, file: Path) -> dict[str, Any]:
        """Read one of this run's JSON files.

        Raises:
            ArtefactError: the file is missing or not JSON.
        """
        if not file.exists():
            raise ArtefactError(f"{self.path} has no {file.name}", hint=f"peftkit run {self.path}")
        return read_record(file)


def write_atomically(file: Path, text: str) -> None:
    """Replace a file in one step, so that a reader or a crash never sees half of it.

    Raises:
        ArtefactError: a folder lies there.
        ResourceError: the disk is full.
    """
    if file.is_dir():
        raise ArtefactError(
            f"{file} is a folder, and a file is written there", hint=f"move it away: mv {file} ..."
        )
    partial = file.with_name(f".{file.name}.partial")
    try:
        with partial.open("w", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        partial.replace(file)
    except OSError as error:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
        raise ResourceError(f"cannot write {file}: {error.strerror}") from error


def write_json(file: Path, content: Mapping[str, Any]) -> None:
    """Write an object with its `schema_version` first and its seal last, atomically."""
    document = sealed({"schema_version": SCHEMA_VERSION, **content})
    write_atomically(file, json.dumps(document, indent=2, ensure_ascii=False) + "\n")


@contextmanager
def locked(run_dir: RunDir) -> Iterator[HeldFolder]:
    """Hold the run directory for this process; the kernel frees it if the process dies.

    The folder itself is locked; the file in it says by whom, and is what earlier versions lock.

    Raises:
        ResourceError: another process is running in it.
    """
    import fcntl

    lock = run_dir.path / ".lock"
    with ExitStack() as stack:
        try:
            held = stack.enter_context(held_folder(run_dir.path))
            stream = stack.enter_context(lock.open("a+"))
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = lock.read_text(encoding="utf-8").strip() if lock.is_file() else ""
            raise ResourceError(
                f"{run_dir.path} is in use by process {owner or 'unknown'}",
                hint="wait for it, or give this run another directory with --out DIR",
            ) from None
        stream.truncate(0)
        stream.write(str(os.getpid()))
        stream.flush()
        yield held


def is_locked(run_dir: RunDir) -> bool:
    """Tell whether a process is running in the run directory now."""
    import fcntl

    if is_held(run_dir.path):
        return True
    try:
        with (run_dir.path / ".lock").open("r") as stream:
            fcntl.flock(stream, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False
