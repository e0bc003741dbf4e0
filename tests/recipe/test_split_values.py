"""Values of data.splits: shares, numbers of rows and datasets' own slices."""

from __future__ import annotations

from fractions import Fraction

import pytest
from datasets import Dataset, DatasetDict, ReadInstruction
from hypothesis import given, settings
from hypothesis import strategies as st

from peftkit.recipe.split_values import Slice, SplitValue, read_split


def test_each_form_is_read():
    assert read_split("2.5%") == SplitValue(share=Fraction(1, 40))
    assert read_split("500") == SplitValue(count=500)
    assert read_split("train_sft") == SplitValue(slices=(Slice("train_sft"),))
    assert read_split("train[10%:]") == SplitValue(slices=(Slice("train", 10, None, True),))
    assert read_split("a + b[:5]") == SplitValue(slices=(Slice("a"), Slice("b", None, 5)))


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("train[5%", "no slice in datasets' syntax"),
        ("train[a:b]", "no slice in datasets' syntax"),
        ("train[:200%]", "goes beyond 100%"),
        ("train[10%:500]", "counts one end in rows and the other in %"),
        ("train[500:100]", "holds no rows"),
        ("train[:0]", "holds no rows"),
        ("train[:%]", "has a % without a number"),
        ("-5", "no number of rows"),
        ("2.5", "no number of rows"),
    ],
)
def test_what_is_none_of_them_is_refused(text, problem):
    with pytest.raises(ValueError, match=problem.replace("%", "%")):
        read_split(text)


end = st.one_of(st.none(), st.integers(-100, 100))


@settings(max_examples=200, deadline=None)
@given(end, end, st.booleans(), st.integers(0, 250))
def test_slices_hold_the_rows_that_datasets_would_read(low, high, is_percent, num_rows):
    unit = "%" if is_percent else ""
    write = ["" if one is None else f"{one}{unit}" for one in (low, high)]
    text = f"train[{write[0]}:{write[1]}]"
    try:
        (piece,) = read_split(text).slices
    except ValueError:
        return  # an empty one, which datasets reads as no rows
    (known,) = ReadInstruction.from_spec(text).to_absolute({"train": num_rows})
    assert list(piece.rows(num_rows)) == list(range(known.from_, known.to))


def test_a_whole_split_is_all_of_its_rows():
    assert DatasetDict({"train": Dataset.from_dict({"a": [1]})})
    assert Slice("train").is_whole
    assert list(Slice("train").rows(3)) == [0, 1, 2]
