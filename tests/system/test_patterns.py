"""Patterns that never end are refused in seconds; those of real recipes cost nothing."""

from __future__ import annotations

import time

import pytest

from peftkit.errors import ArtefactError
from peftkit.system import patterns
from peftkit.system.patterns import check_pattern

GOOD = [
    "all-linear",
    r".*\.(q|v)_proj",
    r"model\.layers\.(\d+)\.mlp\..*",
    r"(?:.*\.)?(q_proj|k_proj)$",
    r"^(?!.*vision).*(?:q|k|v)_proj.*$",
    r"(layers\.[0-9]+\.)+mlp",
]
ENDLESS = [r"(a+)+$", r"(.*)*x", r"([a-z_.0-9]+)+X", r"((a|aa)+)+b", r"(?:(?:\w+\.?)*)*!x"]


@pytest.mark.parametrize("pattern", GOOD)
def test_a_pattern_of_names_passes_at_once(pattern: str) -> None:
    started = time.monotonic()
    check_pattern(pattern, "here")
    assert time.monotonic() - started < 2


@pytest.mark.parametrize("pattern", ENDLESS[:1])
def test_one_that_never_ends_is_refused(pattern: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patterns, "_SECONDS", 0.5)
    with pytest.raises(ArtefactError, match="without an end"):
        check_pattern(pattern, "adapter_config.json: target_modules")


@pytest.mark.slow
@pytest.mark.parametrize("pattern", ENDLESS)
def test_none_of_those_that_never_end_passes(pattern: str) -> None:
    started = time.monotonic()
    with pytest.raises(ArtefactError, match="without an end"):
        check_pattern(pattern, "here")
    assert time.monotonic() - started < 6


@pytest.mark.parametrize("pattern", ["(", "a" * 20_000, "*x"])
def test_what_is_no_pattern_is_refused(pattern: str) -> None:
    with pytest.raises(ArtefactError, match=r"no regular expression|characters long"):
        check_pattern(pattern, "here")
