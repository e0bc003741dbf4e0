"""Write quantities for people: bytes, and spans of time."""

from __future__ import annotations

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30


def gibibytes(num_bytes: float) -> str:
    """Print bytes as GiB, or in the smaller unit that is shorter."""
    if num_bytes < MIB:
        return f"{num_bytes / KIB:.0f} KiB"
    if num_bytes < GIB:
        return f"{num_bytes / MIB:.{1 if num_bytes < 10 * MIB else 0}f} MiB"
    return f"{num_bytes / GIB:,.2f} GiB"


def duration(seconds: float) -> str:
    """Print a time span in its two largest units."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def exact_duration(seconds: float) -> str:
    """Print a time span as `duration` does, or a short one to three digits."""
    return f"{seconds:.3g} s" if seconds < 100 else duration(seconds)
