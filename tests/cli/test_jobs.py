"""The command that writes a job's file completes its systems."""

from __future__ import annotations

from peftkit.cli.completion import complete_scheduler


def test_job_systems_are_offered() -> None:
    assert complete_scheduler("s") == ["skypilot", "slurm"]
