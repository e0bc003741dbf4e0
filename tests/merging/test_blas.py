"""Products take one thread each inside the block, and as many as before after it."""

from __future__ import annotations

import pytest

from peftkit.merging.blas import _openblas, one_thread_a_product


def test_the_number_of_threads_is_one_inside_and_restored_after() -> None:
    libraries = _openblas()
    assert libraries, "numpy's wheels bring OpenBLAS"
    get, put = libraries[0]
    before = get()
    put(2)
    with pytest.raises(ZeroDivisionError), one_thread_a_product():
        assert get() == 1
        raise ZeroDivisionError
    assert get() == 2
    put(before)
