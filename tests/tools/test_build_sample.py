"""The sample's rows are good ones, spread over packages, and the same on every build."""

from __future__ import annotations

import build_sample
import pytest

PROSE = "Fetch every goose from the pond. The order is that of their rings, smallest number first."


def test_choice_of_rows_depends_on_their_text_alone() -> None:
    def row(package: str, number: int) -> dict[str, str]:
        name = f"{package}.f{number}"
        document = f"{name}()\n\n{PROSE}"
        return {
            "package": package,
            "name": name,
            "text": document,
            "document": document,
            "summary": f"Do thing {number} of package {package}.",
        }

    found = [row(package, number) for package in "abc" for number in range(9)]
    found += [{**row("d", 1), "summary": "Fetch every goose from the pond."}]
    options = {"num_rows": 7, "per_package": 4}
    picked = build_sample.pick(found, taken=set(), **options)
    again = build_sample.pick(found[::-1], taken=set(), **options)
    assert picked == again
    assert [row["package"] for row in picked] == list("abcabca")
    taken = {row["summary"] for row in picked}
    others = build_sample.pick(found, taken=taken, **options)
    assert not {row["name"] for row in picked} & {row["name"] for row in others}


@pytest.mark.parametrize(
    ("paragraph", "expected"),
    [
        ("The geese come home when it gets dark.", True),
        ("Parameters\n----------\nx : int\n    The geese that come home.", False),
        (":param x: The geese that come home when called.", False),
        (">>> call() # the geese come home now.", False),
        ("Too short a sentence.", False),
        ("The geese that come home are these::", False),
    ],
)
def test_prose_is_told_from_markup(paragraph: str, expected: bool) -> None:
    assert build_sample.is_prose(paragraph) is expected
