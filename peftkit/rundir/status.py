"""Whose a run directory is, what state it is in, and how a run leaves it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from peftkit.errors import ArtefactError, PeftkitError, ResourceError, StoppedError, UsageError
from peftkit.rundir.base_record import FILE
from peftkit.rundir.checkpoints import differences, identity_of, list_checkpoints, read_progress
from peftkit.rundir.drift import identity_in
from peftkit.rundir.paths import RunDir, locked, write_json
from peftkit.rundir.whole import find_training_damage
from peftkit.system.exhaustion import is_exhaustion
from peftkit.system.held_folder import HeldFolder

_ROOM_BYTES = 16 << 10
"""More than status.json takes, in whole blocks of any disk."""
PROCESSES = "processes"
"""What a resolved recipe records the number of processes by, where they are several."""
_OF_MODEL = ("model.", "adapter", "quantize")
_OF_OPTIMIZER = ("learning_rate", "weight_decay", "adam_", "optim")
"""Options that a resumed optimizer and its schedule bring along from the checkpoint."""
_MOST_SHOWN = 12
"""Differences listed before the rest is only counted."""


@contextmanager
def claimed(run_dir: RunDir) -> Iterator[HeldFolder]:
    """Make the run directory if need be, and hold it for this run, by its main process.

    Returns: the folder, to be known again later.

    Raises:
        UsageError: the path is a file, cannot be written, or holds something that is no run.
        ResourceError: another run is going on in it.
    """
    try:
        with ExitStack() as held:
            yield run_dir.process.by_main(_claim, run_dir, held)
    except PermissionError as error:
        raise UsageError(
            f"{run_dir.path} cannot be written: {error.strerror}", hint="choose another --out DIR"
        ) from error


def _claim(run_dir: RunDir, held: ExitStack) -> HeldFolder:
    path = run_dir.path
    try:
        path.mkdir(parents=True, exist_ok=True)
        strangers = sorted(p.name for p in path.iterdir() if not p.name.startswith("."))
    except FileExistsError:
        raise UsageError(f"{path} is a file", hint="choose another --out DIR") from None
    except OSError as error:
        if is_exhaustion(error):
            raise ResourceError(f"{path} cannot be made: {error.strerror}") from error
        raise UsageError(
            f"{path} cannot be made or read: {error.strerror}", hint="choose another --out DIR"
        ) from error
    # The base is recorded first of all: a kill may have left that alone.
    if strangers not in ([], [FILE]) and not run_dir.is_begun:
        raise UsageError(
            f"{path} is not empty and no run: it holds {', '.join(strangers[:3])}",
            hint="choose another --out DIR, or an empty one",
        )
    if run_dir.checkpoints.is_symlink():
        raise UsageError(
            f"{run_dir.checkpoints} is a link, and unfinished checkpoints are deleted in it",
            hint=f"link {path} itself to the other disk",
        )
    return held.enter_context(locked(run_dir))


@dataclass
class RunStatus:
    """Keep status.json true: what this run is, how far it came and how it ended."""

    run_dir: RunDir
    identity: str | None = None
    """Set once this run is known to own the directory."""
    step: int = 0
    total_steps: int | None = None
    held: HeldFolder | None = None
    """The folder that this run began in; set once it is claimed."""
    told: str | None = None
    """Of the recipe and the rows now, which may be allowed to change; set with `identity`."""

    def check_place(self) -> None:
        """Refuse to go on in a directory that is gone, or is another by now.

        Raises:
            ResourceError: nothing of the run is left there.
        """
        if self.held is not None and not self.held.is_there:
            raise ResourceError(
                f"{self.run_dir.path} was deleted, moved or replaced while this run went on in it",
                hint="move it back and run the same command, or begin again with --out DIR",
            )

    def write(self, state: str, *, exit_code: int | None = None, message: str = "") -> None:
        """Write the state: `running`, `stopped`, `failed` or `finished`; by the main process.

        The others are not waited for: at an ending they may be gone.
        """
        if not self.run_dir.process.is_main:
            return
        self.check_place()
        content = {
            "identity": self.identity,
            "state": state,
            "exit_code": exit_code,
            "step": self.step,
            "total_steps": self.total_steps,
            "message": message,
        }
        write_json(self.run_dir.status, content)

    def end(self, state: str, *, exit_code: int, message: str = "") -> None:
        """Write how the run ended, in the room that was kept for it where the disk is full."""
        self._reserve.unlink(missing_ok=True)
        self.write(state, exit_code=exit_code, message=message)

    def keep_room(self) -> None:
        """Take the room on the disk that an ending needs, as long as there is some."""
        if self.run_dir.process.is_main:
            with suppress(OSError):
                self._reserve.write_bytes(os.urandom(_ROOM_BYTES))  # not zeros, which cost nothing

    @property
    def _reserve(self) -> Path:
        return self.run_dir.path / ".room"


@contextmanager
def recorded(status: RunStatus) -> Iterator[None]:
    """Write how a run ended, whichever way it ends; a stranger's directory is left alone."""
    is_new = not status.run_dir.status.exists()

    def write(state: str, exit_code: int, message: str) -> None:
        if is_new or status.identity is not None:
            # A full disk must not hide the error that this records.
            with suppress(ResourceError):
                status.end(state, exit_code=exit_code, message=message)

    try:
        yield
    except StoppedError as error:
        write("stopped", error.exit_code, error.message)
        raise
    except PeftkitError as error:
        write("failed", error.exit_code, error.message)
        raise
    except KeyboardInterrupt:
        write("stopped", 130, "stopped at once by a second Ctrl-C")
        raise
    except Exception as error:
        write("failed", 1, f"{type(error).__name__}: {error}")
        raise


def read_status(run_dir: RunDir) -> dict[str, Any]:
    """Read status.json; empty where no run began, and where it is damaged: a run writes it anew."""
    try:
        return run_dir.read_if_there(run_dir.status)
    except ArtefactError:
        return {}


def progress_of(run_dir: RunDir, status: Mapping[str, Any]) -> tuple[int, int | None]:
    """Return how far a run is and goes, from its newest checkpoint where nothing else says.

    Args:
        status: what its status.json said, if it could be read.
    """
    step, total = status.get("step"), status.get("total_steps")
    if isinstance(step, int) and (total is None or isinstance(total, int)):
        return step, total
    for checkpoint in reversed(list_checkpoints(run_dir.checkpoints)):
        with suppress(ArtefactError):
            return read_progress(checkpoint)
    return 0, None


def has_training(run_dir: RunDir) -> bool:
    """Tell whether a directory holds steps that took time, and must not be overwritten."""
    return run_dir.trained.is_dir() or bool(list_checkpoints(run_dir.checkpoints))


def is_trained(run_dir: RunDir) -> bool:
    """Tell whether the training is over: all that it left is there, and as it was written."""
    return find_training_damage(run_dir) is None


def num_processes_of(resolved: Mapping[str, Any]) -> int:
    """Return how many processes trained a run when its resolved recipe was last written."""
    decisions = resolved.get("decisions")
    for one in decisions if isinstance(decisions, list) else ():
        if isinstance(one, dict) and one.get("key") == PROCESSES:
            number = one.get("value")
            return number if isinstance(number, int) and number > 0 else 1
    return 1


def check_same_recipe(
    run_dir: RunDir,
    resolved: Mapping[str, Any],
    num_processes: int = 1,
    *,
    allow_drift: bool = False,
) -> tuple[str, ...]:
    """Refuse a directory in which another recipe has trained.

    Args:
        num_processes: how many train now.
        allow_drift: go on with what its checkpoints fit.

    Returns: what differs and may, as `key: old -> new`.

    Raises:
        UsageError: lists what differs.
    """
    if not has_training(run_dir):
        return ()
    import yaml

    from peftkit.recipe.identity import identity

    try:
        earlier = run_dir.read_resolved()
    except ArtefactError:
        earlier = {}
    if not earlier:
        return ()  # the run's identity alone is left, which `check_same_run` asks for
    # Through YAML and back, so that a tuple equals the list that it was written as.
    now = yaml.safe_load(yaml.safe_dump(dict(resolved)))
    before = num_processes_of(earlier)
    if identity(earlier, "", num_processes=before) == identity(
        now, "", num_processes=num_processes
    ):
        # Stated with the command: the same rows a step in the same order, summed in another one.
        is_moved = before != num_processes and not is_trained(run_dir)
        return (f"{PROCESSES}: {before} -> {num_processes}",) if is_moved else ()
    found = differences({PROCESSES: before, **earlier}, {PROCESSES: num_processes, **now})
    lines = [f"{key}: {_show(old)} -> {_show(new)}" for key, (old, new) in found.items()]
    kept = [key for key in found if _is_kept(key)] or _other_method(earlier, now)
    if allow_drift and not kept and not is_trained(run_dir):
        return tuple(lines)
    rest = [f"and {len(lines) - _MOST_SHOWN} more"] if len(lines) > _MOST_SHOWN else []
    shown = map("  ".__add__, [*lines[:_MOST_SHOWN], *rest])
    raise UsageError(
        "\n".join([f"{run_dir.path} is another run:", *shown]),
        hint=_same_rows(earlier, before, now, num_processes)
        or _way_out(run_dir, "the recipe", kept),
    )


def _is_kept(key: str) -> bool:
    """Tell whether a checkpoint brings this, so that another value would change nothing or fail."""
    return key.startswith(_OF_MODEL) or key.rpartition(".")[2].startswith(_OF_OPTIMIZER)


def _other_method(earlier: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    return [] if earlier["method"].keys() == now["method"].keys() else ["method"]


def _way_out(run_dir: RunDir, what: str, kept: Sequence[str] = ()) -> str:
    """Say how to go on where a recipe or rows are others than those that a run began with."""
    other = f"--out ANOTHER_DIR for this one, or {what} as it was to resume"
    if is_trained(run_dir):
        return other
    if kept:
        return f"{other}; --allow-drift cannot change {', '.join(kept[:3])}, which checkpoints hold"
    return f"{other}; or --allow-drift, to go on with it from the last checkpoint"


def _same_rows(
    earlier: Mapping[str, Any], before: int, now: Mapping[str, Any], num_processes: int
) -> str | None:
    """Say how so many processes read as many rows a step as the run did before, if they can."""
    from peftkit.recipe.identity import rows_per_step

    (name, options), wanted = next(iter(now["method"].items())), rows_per_step(earlier, before)
    per_pass = int(options.get("per_device_train_batch_size") or 1) * num_processes
    if before == num_processes or wanted % per_pass:
        return None
    number = wanted // per_pass
    return (
        f"method.{name}.gradient_accumulation_steps={number}, with which {num_processes}"
        f" process{'es' * (num_processes > 1)} read the same {wanted} rows a step"
    )


def check_same_data(
    run_dir: RunDir, fingerprint: str, *, allow_drift: bool = False
) -> tuple[str, ...]:
    """Refuse a directory in which the same recipe trained on other rows.

    Args:
        allow_drift: go on with these.

    Returns: both fingerprints, where they differ and may.

    Raises:
        UsageError: shows both fingerprints.
    """
    if not has_training(run_dir):
        return ()
    try:
        earlier = run_dir.read_if_there(run_dir.data).get("fingerprint")
    except ArtefactError:
        earlier = None  # as above
    if not isinstance(earlier, str) or earlier == fingerprint:
        return ()
    change = f"{earlier[:12]} -> {fingerprint[:12]}"
    if allow_drift and not is_trained(run_dir):
        return (f"data fingerprint: {change}",)
    raise UsageError(
        f"{run_dir.path} trained on other rows: data fingerprint {change}",
        hint=_way_out(run_dir, "the data"),
    )


def check_same_run(run_dir: RunDir, identity: str) -> None:
    """Refuse a directory in which another run has trained, as its state or its checkpoints say.

    The recipe and the rows were compared one by one; this holds where either record is lost.

    Raises:
        UsageError: it is another one.
    """
    known = known_identity(run_dir)
    if known is None or known == identity or not has_training(run_dir):
        return
    raise UsageError(
        f"{run_dir.path} is another run, {known[:12]}, and this would be {identity[:12]}; what"
        f" differs cannot be told, since {run_dir.resolved.name} or {run_dir.data.name} there is"
        " lost or damaged",
        hint="--out ANOTHER_DIR for this one, or recipe and data as they were to resume",
    )


def identity_of_run(run_dir: RunDir, told: str, *, has_drifted: bool) -> str:
    """Return the identity of the run that a recipe and its rows train or go on with.

    Args:
        told: their own.
        has_drifted: whether they are others than before, and were allowed to be.
    """
    own = identity_in(run_dir, told)
    return (known_identity(run_dir) or own) if has_drifted else own


def known_identity(run_dir: RunDir) -> str | None:
    """Return the identity of the run that a directory belongs to, wherever it still stands."""
    found = read_status(run_dir).get("identity")
    if isinstance(found, str):
        return found
    ours = (identity_of(one.path) for one in reversed(list_checkpoints(run_dir.checkpoints)))
    return next(filter(None, ours), None)


def _show(value: Any) -> str:
    return "absent" if value is None else repr(value)


def other_rows(run_dir: RunDir, split: str, fingerprints: Mapping[str, str]) -> Iterator[str]:
    """Say of a split that its rows are not those that the run itself read, if it read it."""
    known = run_dir.read_if_there(run_dir.data).get("split_fingerprints", {}).get(split)
    found = fingerprints.get(split)
    if known and found and known != found:
        yield (
            f"These are other rows than those of the run's own {split}: data fingerprint"
            f" {known[:12]} -> {found[:12]}."
        )
