"""torch is told to ask Linux for large pages, unless somebody says otherwise."""

from __future__ import annotations

import subprocess
import sys

import pytest

from peftkit.system.allocator import LARGE_PAGES, take_large_pages

PLACES = """
from peftkit.system.allocator import take_large_pages
take_large_pages(wanted={wanted})
import mmap, torch
PAGE = mmap.PAGESIZE
tensors = [torch.empty(3 << 20, dtype=torch.uint8) for _ in range(4)]
print(all(one.data_ptr() % PAGE == 0 for one in tensors))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="pages of Linux")
@pytest.mark.parametrize("wanted", [True, False])
def test_torch_takes_whole_pages_for_large_tensors(
    wanted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(LARGE_PAGES, raising=False)
    done = subprocess.run(
        [sys.executable, "-c", PLACES.format(wanted=wanted)],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    assert done.stdout.strip() == str(wanted)


def test_what_somebody_said_stands(monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    monkeypatch.setenv(LARGE_PAGES, "0")
    take_large_pages()
    assert os.environ[LARGE_PAGES] == "0"
