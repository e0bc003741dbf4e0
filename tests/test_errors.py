"""Errors carry documented exit codes and show all problems aligned."""

from __future__ import annotations

import pickle
import re

from peftkit import errors


def test_every_kind_has_the_code_that_the_table_documents() -> None:
    table = dict(re.findall(r"\|\s*(\d+) \| (.+?) \|", errors.__doc__))
    kinds = {
        "2": (errors.UsageError, errors.RecipeError),
        "3": (errors.DataError,),
        "4": (errors.ArtefactError,),
        "5": (errors.ResourceError,),
        "6": (errors.DivergedError,),
        "7": (errors.NetworkError,),
        "75": (errors.StoppedError,),
    }
    assert table.keys() == {"0", "1", "130", *kinds}
    for code, classes in kinds.items():
        assert {kind.exit_code for kind in classes} == {int(code)}
    kinds_here = errors.PeftkitError.__subclasses__()
    subclasses = {kind for kind in kinds_here if kind.__module__ == errors.__name__}
    assert subclasses == {kind for classes in kinds.values() for kind in classes}


def test_problems_are_aligned_under_the_file() -> None:
    problems = [
        errors.Problem("x.yaml", 9, "adapter.lora.r", "expected int, got '16'"),
        errors.Problem("x.yaml", 12, "method.sft.lr", "no such key", "did you mean x?"),
        errors.Problem("x.yaml", None, "data", "missing"),
    ]
    assert str(errors.RecipeError("x.yaml", problems)) == (
        "x.yaml: 3 problems\n"
        "  line 9   adapter.lora.r  expected int, got '16'\n"
        "  line 12  method.sft.lr   no such key; did you mean x?\n"
        "  -        data            missing"
    )


def test_the_hint_stands_on_its_own_line() -> None:
    error = errors.DataError("rows.jsonl:3: not JSON", hint="mend line 3")
    assert str(error) == "rows.jsonl:3: not JSON\n  try: mend line 3"


def test_each_kind_refines_a_builtin() -> None:
    for kind in errors.PeftkitError.__subclasses__():
        if kind is not errors.StoppedError:
            assert issubclass(kind, ValueError | RuntimeError | ArithmeticError | ConnectionError)


def test_an_error_is_told_by_its_first_line_or_its_kind() -> None:
    assert errors.first_line(ValueError("\n one\ntwo")) == "one"
    assert errors.first_line(KeyError()) == "KeyError"


def test_every_kind_arrives_whole_in_another_process() -> None:
    problems = [errors.Problem("x.yaml", 9, "adapter.lora.r", "expected int, got '16'")]
    plain = [
        kind("a", hint="b")
        for kind in errors.PeftkitError.__subclasses__()
        if kind is not errors.RecipeError and kind.__module__ == errors.__name__
    ]
    for error in (errors.RecipeError("x.yaml", problems), *plain):
        arrived = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own
        assert type(arrived) is type(error)
        assert vars(arrived) == vars(error)


def test_of_thousands_of_problems_the_first_are_laid_out() -> None:
    problems = [errors.Problem("r.yaml", line, "k", "wrong") for line in range(1, 2001)]
    lines = str(errors.RecipeError("r.yaml", problems)).splitlines()
    assert lines[0] == "r.yaml: 2000 problems"
    assert lines[-1] == "  and 1,800 more"
    assert len(lines) == 202
