"""The table of methods is what its runs gave, and has every method of the installed peft."""

from __future__ import annotations

import json

import build_adapters_table as table
import merge_fixture
import pytest

pytestmark = [pytest.mark.filterwarnings(f"ignore:{n}") for n in merge_fixture.NOTICES]


def test_the_page_shows_the_results_and_every_method() -> None:
    results = json.loads(table.RESULTS.read_text(encoding="utf-8"))
    page = table.PAGE.read_text(encoding="utf-8")
    assert table.put_into(page, table.render(results)) == page
    assert set(results) == set(table.methods())
    refused = {name for name, row in results.items() if row.get("refused")}
    assert refused == {name for name, kind in table.methods().items() if kind.refused}


@pytest.mark.filterwarnings("ignore")
def test_a_row_is_what_running_it_gives_today(tmp_path) -> None:
    results = json.loads(table.RESULTS.read_text(encoding="utf-8"))
    row = table.tried("lora", table.methods()["lora"], table.save_bases(tmp_path))
    assert row == results["lora"]
    assert all(row[column] == "yes" for column in table.COLUMNS)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_every_row_is_what_running_it_gives_today(tmp_path) -> None:
    results = json.loads(table.RESULTS.read_text(encoding="utf-8"))
    bases = table.save_bases(tmp_path)
    for name, kind in table.methods().items():
        assert table.tried(name, kind, bases) == results[name], name
