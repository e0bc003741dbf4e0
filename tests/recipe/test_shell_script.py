"""The command of a shell script that starts a training is read, and nothing is run."""

from __future__ import annotations

import pytest

from peftkit.recipe.shell_script import read_shell

COMMANDS = (r"\btool train\b",)


def read(tmp_path, text):
    file = tmp_path / "s.sh"
    file.write_text(text, encoding="utf-8")
    return read_shell(file, COMMANDS)


@pytest.mark.parametrize(
    ("text", "data"),
    [
        ("tool train --lr 1e-4 --flag --n a b", {"lr": 1e-4, "flag": True, "n": ["a", "b"]}),
        ("A=x\nB=\"$A/y\"\ntool train --p ${B} --q ${C:-7}", {"p": "x/y", "q": 7}),
        ("tool train \\\n  --a=1 \\\n  --b 'two words' # said\n", {"a": 1, "b": "two words"}),
        ("ARGS=(--a 1\n --b x)\ntool train ${ARGS[@]} --c 3", {"a": 1, "b": "x", "c": 3}),
        ('R=4\ntool train --r "${R}" --d "$(cd "$(dirname "$0")" && pwd)/x" --k 1',
         {"r": 4, "d": "$(...)/x", "k": 1}),
        ("A=(--a 1)\nA+=(--b 2)\ntool train \"${A[@]}\"", {"a": 1, "b": 2}),
        ("tool train --d a/b#500 \\\n --n 2 # said", {"d": "a/b#500", "n": 2}),
        ("X=1 tool train --a $X | tee log --b 3", {"a": "$X"}),
        ("tool train --on true --off False --none null", {"on": True, "off": False, "none": None}),
        ("N=2\nB=${B:-4}\ntool train --a $((32 / B)) --b $(expr 16 / $N) --c $((B*N))",
         {"a": 8, "b": 8, "c": 8}),
        ("tool train --a $((1 / 0)) --b $((X + 1))", {"a": "$(...)", "b": "$(...)"}),
        ("tool train --no_keep --no_cuda --no_more 3", {"keep": False, "no_cuda": True,
                                                        "no_more": 3}),
        ("# tool train --old 1\ntool train --a 1 && tool train --a 2", {"a": 1}),
    ],
)  # fmt: skip
def test_options_are_read(tmp_path, text, data):
    assert read(tmp_path, text).data == data


def test_what_is_not_known_is_named_by_its_line(tmp_path):
    found = read(
        tmp_path, "# a script\nLR=$1\nOUT=$(mktemp -d)\ntool train --lr $LR --out $OUT/x\n"
    )
    assert [note.partition(" is not known")[0] for note in found.notes] == [
        "line 2: LR=$1", "line 3: OUT=$(mktemp -d)",
    ]  # fmt: skip


def test_a_config_beside_the_script_is_read_and_overridden(tmp_path):
    (tmp_path / "c.yaml").write_text("lr: 1\nr: 8\n")
    found = read(tmp_path, "tool train c.yaml r=16 --x 1\n")
    assert found.data == {"lr": 1, "r": 16, "x": 1}
    heredoc = "cat > d.yaml <<EOF\nlr: 2\nEOF\ntool train d.yaml\n"
    assert read(tmp_path, heredoc).data == {"lr": 2}


def test_a_script_of_nobody_is_none(tmp_path):
    assert read(tmp_path, "echo hello\n") is None
