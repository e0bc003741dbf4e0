"""The layers that are kept stand for all of them, in order, whatever the pattern."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from peftkit.memory.layers import Stack, choose_layers, find_stacks, kept_layers

PATTERNS = st.builds(
    lambda head, block, count, tail: (*head, *block * count, *tail),
    st.lists(st.integers(0, 3), max_size=3),
    st.lists(st.integers(0, 2), min_size=1, max_size=6),
    st.integers(1, 30),
    st.lists(st.integers(0, 3), max_size=3),
)


@given(PATTERNS, st.integers(1, 2))
def test_kept_layers_expand_to_the_whole_stack(signatures: tuple[int, ...], times: int) -> None:
    kept, repeats = choose_layers(Stack("layers", signatures), times=times)
    blocks = {repeat.layers[0]: repeat for repeat in repeats}
    expanded: list[int] = []
    skip: set[int] = set()
    for index in kept:
        if index in blocks:
            block = [signatures[i] for i in blocks[index].layers]
            expanded += block * blocks[index].times
            skip.update(blocks[index].layers)
        elif index not in skip:
            expanded.append(signatures[index])
    assert tuple(expanded) == signatures
    assert kept == sorted(set(kept))


def test_a_long_stack_shrinks_to_three_layers() -> None:
    kept, repeats = choose_layers(Stack("layers", (0,) * 32))
    assert (kept, repeats[0].times) == ([0, 1, 31], 30)


def test_layers_differ_by_what_is_trained_of_them() -> None:
    model = torch.nn.Module()
    model.layers = torch.nn.ModuleList(torch.nn.Linear(4, 4) for _ in range(6))
    model.layers[2].requires_grad_(False)
    assert [s.signatures for s in find_stacks(model)] == [(0, 0, 1, 0, 0, 0)]
    whole = list(model.layers)
    with kept_layers(model, find_stacks(model)[0], [0, 2]):
        assert [id(layer) for layer in model.layers] == [id(whole[0]), id(whole[2])]
    assert list(model.layers) == whole
