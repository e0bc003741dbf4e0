"""Options have peft's names, and each merge takes those of its own parts and no others."""

from __future__ import annotations

import inspect

import pytest

from peftkit.plugins import find, plugin_names
from peftkit.recipe.signatures import signature_of
from peftkit.testing import check_merge

WITHOUT_PRUNING = {"weights": [0.5, 0.3, 0.2], "density": 1.0}
OURS = {"seed"}  # peft draws from torch's global state
NAMES = [
    "cat", "dare_linear", "dare_linear_svd", "dare_ties", "dare_ties_svd", "linear",
    "magnitude_prune", "magnitude_prune_svd", "svd", "ties", "ties_svd",
]  # fmt: skip


def _options(name: str) -> set[str]:
    return set(signature_of(find("merges", name).Config).options)


def test_the_merges_are_peft_s_combination_types() -> None:
    from peft import LoraModel

    kinds = inspect.signature(LoraModel.add_weighted_adapter).parameters["combination_type"]
    assert all(repr(name) in str(kinds.annotation) for name in NAMES)
    assert str(kinds.annotation).count("'") == 2 * len(NAMES)
    assert set(NAMES) <= set(plugin_names("merges"))


@pytest.mark.parametrize("name", NAMES)
def test_every_merge_conforms_and_its_options_are_peft_s(name: str) -> None:
    from peft import LoraModel

    options = _options(name)
    upstream = set(inspect.signature(LoraModel.add_weighted_adapter).parameters)
    assert options - OURS <= upstream
    assert ("density" in options) == (name not in ("cat", "linear", "svd"))
    assert ("svd_rank" in options) == name.endswith("svd")
    assert ("majority_sign_method" in options) == ("ties" in name)
    assert ("seed" in options) == ("dare" in name)
    given = {key: value for key, value in WITHOUT_PRUNING.items() if key in options}
    check_merge(find("merges", name), given)
    merge = find("merges", name)(find("merges", name).Config(**given))
    assert merge.combines == ("deltas" if name.endswith("svd") or name == "cat" else "factors")
    assert (merge.compression is not None) == name.endswith("svd")
