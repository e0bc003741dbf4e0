"""Type hints become plain data that says which values fit."""

from __future__ import annotations

import enum
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, NewType, Optional, TypedDict, Union

import pytest

from peftkit.recipe.kinds import Kind, from_hint, matches, show, to_json_schema, union


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


@dataclass
class Nested:
    x: int = 1


class Keys(TypedDict):
    a: int


Name = NewType("Name", str)


@pytest.mark.parametrize(
    ("hint", "said"),
    [
        (int, "int"),
        (Any, "any"),
        (None, "null"),
        (Path, "a path"),
        (Name, "str"),
        (Optional[int], "int or null"),  # noqa: UP045 - upstream writes both
        (Union[int, None, str], "int or str or null"),  # noqa: UP007
        (int | str, "int or str"),
        (list, "a list"),
        (list[int], "a list of int"),
        (set[str], "a list of str"),
        (Sequence[int | str], "a list of (int or str)"),
        (tuple[int, str], "a list of 2 (int, str)"),
        (tuple[int, ...], "a list of int"),
        (dict, "a mapping"),
        (Mapping[str, float], "a mapping of float"),
        (Keys, "a mapping"),
        (Literal["a", 1], "one of 'a', 1"),
        (Literal["a", None], "one of 'a' or null"),
        (Annotated[int, "unit"], "int"),
        (Colour, "one of 'red', 'blue'"),
        (Colour | str, "one of 'red', 'blue'"),
        (Nested | None, "a mapping of Nested's keys or null"),
        (object, "any"),
        (Exception, "a Python object, which a recipe cannot hold"),
        (int | Exception, "int"),
    ],
)
def test_a_hint_is_read_and_said(hint: Any, said: str) -> None:
    kind = from_hint(hint)
    assert str(kind) == said
    assert Kind.from_json(kind.to_json()) == kind


@pytest.mark.parametrize(
    ("hint", "good", "bad"),
    [
        (int, [1, -3], [True, 1.0, "1", None]),
        (float, [1, 1.5], [True, "1", math.nan, math.inf]),
        (bool, [True], [1, "true"]),
        (str, ["", "x"], [1, None]),
        (Path, ["x"], ["", 3]),
        (list[int], [[], [1]], [["a"], 1, {}]),
        (tuple[int, str], [[1, "a"]], [[1], ["a", 1]]),
        (dict[str, int], [{}, {"a": 1}], [{"a": "b"}, []]),
        (Literal["a", True], ["a", True], ["b", 1]),
        (Colour, ["red"], ["RED", Colour]),
        (Any, [1, "x", None, [1]], [math.nan, [math.inf], {"a": math.nan}]),
        (Exception, [], [1, "x"]),
    ],
)
def test_values_fit_or_do_not(hint: Any, good: list[Any], bad: list[Any]) -> None:
    kind = from_hint(hint)
    assert all(matches(value, kind) for value in good)
    assert not any(matches(value, kind) for value in bad)


def test_a_union_is_flat_and_any_swallows_it() -> None:
    kind = union(Kind("int"), union(Kind("str"), Kind("int")))
    assert [item.name for item in kind.items] == ["int", "str"]
    assert union(Kind("null"), Kind("str"), Kind("int")) == union(Kind("int"), kind, Kind("null"))
    assert union(Kind("int"), Kind("any")) == Kind("any")


def test_a_pattern_fits_whole_text_only() -> None:
    kind = Kind("pattern", pattern=r"pissa_niter_\d+")
    assert matches("pissa_niter_16", kind)
    assert not matches("pissa_niter_16x", kind)
    assert Kind.from_json(kind.to_json()) == kind


def test_values_are_shown_as_yaml_writes_them() -> None:
    assert [show(v) for v in (None, True, False, "a", 1e-5, Colour.RED)] == [
        "null", "true", "false", "'a'", "1e-05", "'red'",
    ]  # fmt: skip
    assert len(show("x" * 100)) == 60


def test_kinds_become_json_schemas() -> None:
    schema = to_json_schema(from_hint(list[int] | None), {})
    assert schema == {"anyOf": [{"type": "array", "items": {"type": "integer"}}, {"type": "null"}]}
    record = from_hint(Nested)
    assert to_json_schema(record, {record.record: "N"}) == {"$ref": "#/$defs/N"}
    assert to_json_schema(record, {}) == {"type": "object"}
