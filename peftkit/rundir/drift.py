"""What changed around a run between two calls, so that its bits may no longer be the same.

What was allowed to change stands in `drift.json`, and the run stays the one that it began as.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from peftkit.errors import ArtefactError, UsageError
from peftkit.rundir.paths import RunDir, write_json

_KEPT = ("python", "packages", "device", "platform", "command")


def drift(earlier: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    """Say what of the stack and the device differs, as `name: old -> new`.

    Args:
        earlier: what versions.json said; empty where it is lost, of which nothing is said.
    """
    pairs = [(name, earlier.get(name), now.get(name)) for name in ("python", "device")]
    for name, old, new in pairs:
        if old is not None and _without_fixes(name, old) != _without_fixes(name, new):
            yield f"{name}: {old} -> {new}"
    before, after = earlier.get("packages") or {}, now.get("packages") or {}
    for name in sorted({*before, *after} if before else ()):
        if before.get(name) != after.get(name):
            yield f"{name}: {before.get(name, 'absent')} -> {after.get(name, 'absent')}"


def _without_fixes(name: str, version: Any) -> str:
    """Leave out the number of Python's bug fixes, which keep what is computed."""
    return str(version).rpartition(".")[0] if name == "python" else str(version)


def with_earlier(
    now: Mapping[str, Any], earlier: Mapping[str, Any], *, has_drifted: bool
) -> dict[str, Any]:
    """Return the content of versions.json with what the run was computed by before."""
    history = list(earlier.get("earlier") or ())
    if has_drifted:
        history.append({key: earlier[key] for key in _KEPT if key in earlier})
    return {**now, "earlier": history} if history else dict(now)


def check_stack(run_dir: RunDir, changed: Sequence[str]) -> None:
    """Refuse to train on under another stack or on another device than a run began under.

    Raises:
        UsageError: lists what differs.
    """
    if changed:
        lines = [f"  {line}" for line in changed]
        raise UsageError(
            "\n".join([f"{run_dir.path} was trained by other means so far:", *lines]),
            hint="bring them back, or go on by --allow-drift: the same bits are not promised then",
        )


def identity_in(run_dir: RunDir, told: str) -> str:
    """Return the identity of the run that a recipe and its rows go on with in a directory.

    Args:
        told: their own, which is the answer unless they were allowed to go on with another.
    """
    try:
        content = run_dir.read_if_there(run_dir.drift)
    except ArtefactError:
        return told  # by which the directory is another run's, and refused
    return str(content["identity"]) if told in content.get("also", ()) else told


def record_drift(
    run_dir: RunDir, *, identity: str, told: str, step: int, changed: Sequence[str]
) -> None:
    """Write down what was allowed to change, before anything else says it.

    Args:
        identity: of the run, as it began.
        told: of the recipe and the rows now.
        step: at which it goes on.

    Raises:
        ArtefactError: what was allowed earlier cannot be read.
    """
    content = run_dir.read_if_there(run_dir.drift)
    also = sorted({*content.get("also", ()), told} - {identity})
    calls = [*content.get("calls", ()), {"step": step, "changed": list(changed)}]
    write_json(run_dir.drift, {"identity": identity, "also": also, "calls": calls})


def recorded_drift(run_dir: RunDir) -> list[str]:
    """Return what was allowed to change during a run, as `at step N: KEY: OLD -> NEW`."""
    calls = run_dir.read_if_there(run_dir.drift).get("calls", ())
    return [f"at step {one.get('step')}: {line}" for one in calls for line in one["changed"]]
