"""No entry of the short lists is stale: each corrects something that upstream still has."""

from __future__ import annotations

import pytest
from tested_signatures import EXTRA, references

from peftkit.plugins import find, plugin_names
from peftkit.recipe.kinds import matches
from peftkit.recipe.schema import ModelSection
from peftkit.recipe.signatures import signature_of
from peftkit.recipe.tables import (
    BOUNDS,
    CORRECTED,
    CORRECTED_EVERYWHERE,
    OWNED,
    RENAMED,
    TRACKERS,
    Bound,
)


@pytest.fixture(scope="module")
def options() -> dict[tuple[str, str], object]:
    """Return every option of every class that a recipe can name."""
    found: dict[tuple[str, str], object] = {}
    classes: list[str | type] = [*references(), *EXTRA]
    classes += [find(group, name).Config for group in ("sources", "tasks", "merges")
                for name in plugin_names(group)]  # fmt: skip
    for target in (*classes, ModelSection):
        signature = signature_of(target)
        found |= {(signature.name, o.name): o for o in signature.options.values()}
    return found


def test_every_bound_has_an_option(options: dict[tuple[str, str], object]) -> None:
    ours = {
        "max_dropped",
        "max_truncated",
        "max_masked",
        "max_leaked",
        "max_unread",
        "limit",
        "batch_size",
    }
    assert set(BOUNDS) - {name for _, name in options} - ours == set()


def test_every_correction_changes_its_hint_and_takes_its_default(options) -> None:
    for key, kind in CORRECTED.items():
        option = options[key]
        assert option.kind != kind, f"{key} is stale"
        assert matches(option.default, kind)
    names = {name: o for (_, name), o in options.items()}
    for name, kind in CORRECTED_EVERYWHERE.items():
        assert names[name].kind != kind


def test_owned_keys_exist_upstream(options: dict[tuple[str, str], object]) -> None:
    names = {name for _, name in options}
    gone = {"transformers_version", "quant_method", "architectures"}
    for section, keys in OWNED.items():
        assert set(keys) - names - gone == set(), section


def test_no_old_word_is_a_current_one_of_the_same_class(options) -> None:
    owners: dict[str, set[str]] = {}
    for owner, name in options:
        owners.setdefault(name, set()).add(owner)
    for old, new in RENAMED.items():
        shared = owners.get(old, set()) & set.union(*(owners.get(n, set()) for n in new))
        assert not shared, f"{old} -> {new} within {shared}"


def test_trackers_are_transformers_own() -> None:
    from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK

    assert set(TRACKERS) == {"none", "all", *INTEGRATION_TO_CALLBACK}


@pytest.mark.parametrize(
    ("bound", "inside", "outside"),
    [
        (Bound(0), [0, 5], [-1]),
        (Bound(0, is_open_low=True), [0.1], [0]),
        (Bound(0, 1, is_open_high=True), [0, 0.9], [1, -0.1]),
        (Bound(1, also=(-1,)), [1, -1], [0, -2]),
    ],
)
def test_bounds_hold(bound: Bound, inside: list[float], outside: list[float]) -> None:
    assert all(bound.holds(value) for value in inside)
    assert not any(bound.holds(value) for value in outside)
