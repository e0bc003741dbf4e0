"""What changed around a run between two calls, so that its bits may no longer be the same.

Recipe, rows and base are held by the run's identity; this is about what computes it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

_KEPT = ("python", "packages", "device", "platform", "command")


def drift(earlier: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    """Say what of the stack and the device differs, as `name: old -> new`.

    Args:
        earlier: what versions.json said; empty where it is lost, of which nothing is said.
    """
    for name in ("python", "device"):
        if name in earlier and earlier[name] != now.get(name):
            yield f"{name}: {earlier[name]} -> {now.get(name)}"
    before, after = earlier.get("packages") or {}, now.get("packages") or {}
    for name in sorted({*before, *after} if before else ()):
        if before.get(name) != after.get(name):
            yield f"{name}: {before.get(name, 'absent')} -> {after.get(name, 'absent')}"


def with_earlier(
    now: Mapping[str, Any], earlier: Mapping[str, Any], *, has_drifted: bool
) -> dict[str, Any]:
    """Return the content of versions.json with what the run was computed by before."""
    history = list(earlier.get("earlier") or ())
    if has_drifted:
        history.append({key: earlier[key] for key in _KEPT if key in earlier})
    return {**now, "earlier": history} if history else dict(now)
