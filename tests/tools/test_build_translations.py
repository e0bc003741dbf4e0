"""The sample of translations is cut by topic, holds out nothing that its base has seen."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from build_translations import LANGUAGES, SHARES, build, is_prose, split_of, topic


@pytest.mark.parametrize(
    ("one", "other"),
    [("%(num)d hour", "%(num)d hours"), ("{name}: delete?", "delete"), ("Log in", "log  in!")],
)
def test_singular_and_plural_are_one_topic(one: str, other: str) -> None:
    assert topic(one) == topic(other)


def test_what_the_base_has_seen_is_never_held_out() -> None:
    messages = [f"message {letter}{other}" for letter in "abcdefgh" for other in "abcdefgh"]
    splits = [split_of(message, set()) for message in messages]
    assert set(splits) == {"train", *SHARES}
    assert {split_of(message, {topic(message)}) for message in messages} == {"train"}


def test_markup_and_formats_are_left_out() -> None:
    assert is_prose("Enter a valid {name}.")
    assert not is_prose("%(a)s %(b)s at %(c)s")
    assert not is_prose('<a href="{url}">Log in again</a> for more of it')


def test_rows_are_written_by_split(tmp_path: Path) -> None:
    for language in LANGUAGES:
        file = tmp_path / "app/locale" / language / "LC_MESSAGES/django.po"
        file.parent.mkdir(parents=True)
        entries = [f'msgid "Read file {at}"\nmsgstr "{language} {at}"\n' for at in "abcdefghijklm"]
        file.write_text('msgid ""\nmsgstr ""\n\n' + "\n".join(entries))
    counts = build(tmp_path, ["Read file a"], tmp_path / "out")
    rows = [json.loads(line) for line in (tmp_path / "out/train.jsonl").read_text().splitlines()]
    assert sum(counts.values()) == 13
    assert list(rows[0]) == ["en", *LANGUAGES]
    assert any(row["en"] == "Read file a" and row["ru"] == "ru a" for row in rows)
