"""A tracker's run is called by a name that no other recipe, seed or data has."""

from __future__ import annotations

from types import SimpleNamespace

from peftkit.training.track import open_trackers


def test_the_name_ends_in_the_identity_and_reaches_the_arguments() -> None:
    asked: list[tuple[str, str, int]] = []
    arguments = SimpleNamespace(project="mine", run_name=None)
    job = SimpleNamespace(
        built=SimpleNamespace(method=SimpleNamespace(config=arguments)),
        recipe=SimpleNamespace(name="small"),
        identity="0123456789",
    )
    tracking = SimpleNamespace(
        open=lambda name, *, project, step: asked.append((name, project, step))
    )
    open_trackers(job, SimpleNamespace(tracking=tracking), step=4)  # type: ignore[arg-type]
    assert asked == [("small-012345", "mine", 4)]
    assert arguments.run_name == "small-012345"
