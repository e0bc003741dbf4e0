"""A base tensor's module is found under whatever prefix an adapter calls it by."""

from __future__ import annotations

import pytest

from peftkit.merging.modules import module_name, shortest_targets


@pytest.mark.parametrize(
    ("target", "keys", "found"),
    [
        ("model.layers.0.q.weight", ["base_model.model.model.layers.0.q.lora_A.weight"],
         "model.layers.0.q"),
        ("layers.0.q.weight", ["base_model.model.model.layers.0.q.lora_A.weight"],
         "model.layers.0.q"),
        ("model.layers.0.q.weight", ["base_model.model.layers.0.q.hada_w1_a"], "layers.0.q"),
        ("layers.1.q.weight", ["base_model.model.layers.11.q.lora_A.weight"], None),
    ],
)  # fmt: skip
def test_one_prefix_may_be_missing_on_either_side(target, keys, found) -> None:
    assert module_name(target, keys) == found


def test_a_last_name_stands_for_all_modules_that_have_it_and_for_no_fewer() -> None:
    base = [f"m.{i}.{name}.weight" for i in range(2) for name in ("q", "k")]
    base += ["m.norm.weight", "m.0.q.bias"]
    assert shortest_targets(["m.0.q", "m.1.q", "m.0.k"], base) == ["m.0.k", "q"]
    assert shortest_targets(["lm_head"], base) == ["lm_head"]
