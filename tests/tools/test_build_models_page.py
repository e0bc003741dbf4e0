"""The page of families is what its runs gave; none of them ended in an error of peftkit's own."""

from __future__ import annotations

from pathlib import Path

import build_models_page as page
import merge_fixture
import pytest

pytestmark = [pytest.mark.filterwarnings(f"ignore:{n}") for n in merge_fixture.NOTICES]


def test_the_page_shows_the_results() -> None:
    assert page.PAGE.read_text(encoding="utf-8") == page.render(page.read())


def test_every_family_is_right_or_refused() -> None:
    failed = {key for key, found in page.read().items() if "exit 1:" in str(found)}
    assert not failed


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("key", ["causal:mixtral", "seq2seq:bart", "classification:bert"])
def test_a_row_is_what_running_it_gives_today(key: str, tmp_path: Path) -> None:
    kind, _, family = key.partition(":")
    assert page.taken(family, kind, tmp_path) == page.read()[key]
