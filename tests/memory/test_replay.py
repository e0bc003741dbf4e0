"""What the caching allocator takes for a step: programs by hand, and a real plan's."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import real_step

from peftkit.memory.caching_allocator import MIB
from peftkit.memory.growth import Footprint, Growth, Virtual
from peftkit.memory.planner import plan
from peftkit.memory.replay import reserved_bytes
from peftkit.memory.trace import Program
from peftkit.planning import devices

PHASES = ("load", "forward", "backward", "step")
TERMS = ("base", "activations", "gradients", "runtime")


def footprint(*moments: tuple[int, str, str, int]) -> Footprint:
    """Make a program of signed allocations, each with its phase, its term and its MiB."""
    count = max(abs(event) for event, *_ in moments)
    terms, sizes = np.zeros(count, np.int64), np.zeros(count, np.int64)
    for event, _, term, size in moments:
        terms[abs(event) - 1], sizes[abs(event) - 1] = TERMS.index(term), size * MIB
    program = Program(
        np.array([event for event, *_ in moments]), terms, TERMS,
        np.array([PHASES.index(phase) for _, phase, *_ in moments]), PHASES,
    )  # fmt: skip
    none = np.zeros(0, np.int64)
    growth = Growth(("1",), none, none, none, 0)
    return Footprint(program, growth, sizes, none, 512, Virtual(0, 0), 1.0, (1, 1, none))


def taken(*moments: tuple[int, str, str, int], **options: int | None) -> int:
    return reserved_bytes(footprint(*moments), 1, 1, **options) // MIB


WEIGHTS = (1, "load", "base", 30)


def test_what_is_freed_serves_again_and_the_runtime_is_not_asked_for() -> None:
    context = (2, "load", "runtime", 500)
    forward = ((3, "forward", "activations", 12), (-3, "forward", "activations", 12))
    backward = (4, "backward", "activations", 12)
    assert taken(WEIGHTS, context, *forward, backward) == 42
    made = footprint(WEIGHTS, context, *forward, backward)
    assert reserved_bytes(made, 1, 1, workspaces=(8_519_680, 8_519_680)) // MIB == 62


def test_a_repeated_layer_frees_what_the_one_before_it_allocated() -> None:
    # Of two copies of the second one is freed as itself, the other in the place of the third.
    copies = [(2, "forward", "activations", 12)] * 2
    frees = [(-2, "backward", "activations", 12), (-3, "backward", "activations", 12)]
    last = (4, "backward", "activations", 24)
    assert taken(WEIGHTS, *copies, *frees, last) == 30 + 2 * 12 + 24


def test_an_emptied_cache_is_refilled_around_what_was_there() -> None:
    gradient = (2, "backward", "gradients", 14)
    step = [WEIGHTS, (3, "forward", "activations", 40), (-3, "backward", "activations", 40),
            gradient, (-2, "step", "gradients", 14)]  # fmt: skip
    assert taken(*step) == 70  # the gradient lies where the activation was
    # Its segment is in use when the cache is emptied, so that it stays whole, and serves again.
    assert taken(*step, former=1) == 70
    held = (4, "forward", "activations", 12)  # what the loop still holds of the former batch
    assert taken(*step, held, former=1) >= taken(*step, held)


def test_a_plan_says_what_must_be_free(tmp_path: Path) -> None:
    saved = real_step.save_model(tmp_path, {**real_step.LLAMA, "num_hidden_layers": 1})
    recipe = real_step.recipe_for(saved)
    on_card = plan(recipe, lengths=[48, 40], machine=devices.find("l40s").as_machine())
    assert on_card.needed_bytes > on_card.peak_bytes
    assert not on_card.verdict("too small", on_card.needed_bytes - 1).fits
    assert on_card.verdict("just enough", on_card.needed_bytes).max_micro_batch >= 2
    assert on_card.needs_at(micro_batch=2, length=48) == on_card.needed_bytes
    assert on_card.to_json()["needed_bytes"] == on_card.needed_bytes
    on_cpu = plan(recipe, lengths=[48, 40], machine=real_step.CPU)
    assert on_cpu.needed_bytes == on_cpu.peak_bytes
