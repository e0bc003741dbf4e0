"""What the Hub refuses becomes one line with a way out; tests/test_hub_stand_in.py has the rest."""

from __future__ import annotations

from peftkit.errors import NetworkError
from peftkit.models.load_errors import explain_load_error
from peftkit.system.hub_errors import is_hub_error


def test_causes_are_searched() -> None:
    from huggingface_hub.errors import OfflineModeIsEnabled

    wrapped = OSError("cannot load")
    wrapped.__cause__ = OfflineModeIsEnabled("offline")
    assert is_hub_error(wrapped)
    explained = explain_load_error(wrapped, "owner/name", is_local=False)
    assert isinstance(explained, NetworkError)
    assert not is_hub_error(OSError("a disk"))
