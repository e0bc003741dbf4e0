"""Catalogues give the pairs that gettext itself would show, and count what they leave out."""

from __future__ import annotations

import gettext
import io
import struct
from pathlib import Path

import polib
import pytest

from peftkit.errors import DataError
from peftkit.sources.gettext import GettextConfig, GettextSource
from peftkit.testing import check_source

HEADER = """msgid ""
msgstr ""
"Language: {language}\\n"
"Content-Type: text/plain; charset={charset}\\n"
"Plural-Forms: {plurals}\\n"

"""
RUSSIAN = (
    "nplurals=4; plural=(n%10==1 && n%100!=11 ? 0 : n%10>=2 && n%10<=4 && (n%100<12 || n%100>14)"
    " ? 1 : n%10==0 || (n%10>=5 && n%10<=9) || (n%100>=11 && n%100<=14)? 2 : 3);"
)
BODY = """# a comment of the translator
msgid "Save %(count)s of {total} <b>files</b>\\n"
msgstr "%(count)s von {total} <b>Dateien</b> sichern\\n"

msgctxt "month"
msgid "May"
msgstr "Mai"

msgctxt "verb"
msgid "May"
msgstr "Darf"

msgid "%d day"
msgid_plural "%d days"
msgstr[0] "%d Tag"
msgstr[1] "%d Tage"

#, fuzzy
#| msgid "Open"
msgid "Close"
msgstr "Öffnen"

msgid "Untranslated"
msgstr ""

#~ msgid "Gone"
#~ msgstr "Weg"
"""


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(path: str, body: str = BODY, *, language="de", charset="UTF-8", plurals=None) -> Path:
    file = Path(path)
    file.parent.mkdir(parents=True, exist_ok=True)
    plurals = plurals or "nplurals=2; plural=(n != 1);"
    head = HEADER.format(language=language, charset=charset, plurals=plurals)
    file.write_bytes((head + body).encode(charset))
    return file


def pairs(files, **options) -> list[tuple]:
    rows = GettextSource(GettextConfig(files, **options)).load("train")
    return [(row["source"], row["target"], row["context"]) for row in rows]


PAIRS = [
    (
        "Save %(count)s of {total} <b>files</b>\n",
        "%(count)s von {total} <b>Dateien</b> sichern\n",
        None,
    ),
    ("May", "Mai", "month"),
    ("May", "Darf", "verb"),
    ("%d day", "%d Tag", None),
    ("%d days", "%d Tage", None),
]  # fmt: skip


def test_a_catalogue_s_pairs_are_what_gettext_shows():
    file = write("de.po")
    assert pairs(file) == PAIRS
    polib.pofile(str(file)).save_as_mofile("de.mo")
    translated = gettext.GNUTranslations(io.BytesIO(Path("de.mo").read_bytes()))
    for source, target, context in PAIRS[:3]:
        shown = translated.pgettext(context, source) if context else translated.gettext(source)
        assert shown == target
    for number, (_, target, _) in zip((1, 5), PAIRS[3:], strict=True):
        assert translated.ngettext("%d day", "%d days", number) == target
    assert sorted(pairs(Path("de.mo")), key=str) == sorted(PAIRS, key=str)


def test_what_is_no_row_is_counted_and_fuzzy_ones_come_on_request():
    source = GettextSource(GettextConfig(write("de.po")))
    source.load("train")
    assert source.left_out("train") == {"fuzzy": 1, "untranslated": 1, "obsolete": 1}
    assert ("Close", "Öffnen", None) in pairs(Path("de.po"), fuzzy=True)
    assert len(pairs(Path("de.po"), plurals=False)) == len(PAIRS) - 1


@pytest.mark.parametrize(
    ("plurals", "forms", "expected"),
    [
        (RUSSIAN, ["день", "дня", "дней", "дня"], ["день", "дней"]),
        ("nplurals=1; plural=0;", ["日"], ["日", "日"]),
        ("no formula", ["jour", "jours"], ["jour", "jours"]),
    ],
)
def test_the_plural_is_the_form_of_most_numbers(plurals, forms, expected):
    lines = "".join(f'msgstr[{at}] "{form}"\n' for at, form in enumerate(forms))
    file = write("x.po", f'msgid "day"\nmsgid_plural "days"\n{lines}', plurals=plurals)
    assert [target for _, target, _ in pairs(file)] == expected


def test_languages_come_from_header_or_path_and_each_pair_once():
    for language in ("de", "fr"):
        write(
            f"app/locale/{language}/LC_MESSAGES/app.po",
            language=language if language == "de" else "",
        )
        write(f"lib/locale/{language}/LC_MESSAGES/lib.po", language=language)
    files = Path("*/locale/*/LC_MESSAGES/*.po")
    rows = check_source(GettextSource, {"files": str(files)}, columns=["source", "target"])["train"]
    assert {row["language"] for row in rows} == {"de", "fr"}
    assert len(rows) == 2 * len(PAIRS)
    source = GettextSource(GettextConfig(files, languages=["fr"]))
    assert {row["language"] for row in source.load("train")} == {"fr"}
    assert source.left_out("train")["repeated"] == len(PAIRS)
    with pytest.raises(DataError, match="no catalogue is in pt; there are de, fr"):
        GettextSource(GettextConfig(files, languages=["pt"])).load("train")


def test_other_charsets_are_read_by_the_header():
    body = 'msgid "size"\nmsgstr "Größe"\n'
    assert pairs(write("de.po", body, charset="ISO-8859-1")) == [("size", "Größe", None)]
    Path("bad.po").write_bytes(Path("de.po").read_bytes().replace(b"ISO-8859-1", b"UTF-8"))
    with pytest.raises(DataError, match=r"bad.po: byte 0xf6 is no utf-8"):
        pairs(Path("bad.po"))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "broken.po",
            b'msgid "a\nmsgstr "b"\n',
            "broken.po is no gettext catalogue: line 1",
        ),
        ("empty.po", b"", "empty.po: no message is translated"),
        ("cut.mo", struct.pack("<IIIII", 0x950412DE, 0, 9, 28, 1000), "cut.mo is no gettext"),
        ("text.mo", b"hello there, this is text", "text.mo is no gettext catalogue"),
    ],
)
def test_broken_files_are_named(name, content, message):
    Path(name).write_bytes(content)
    with pytest.raises(DataError, match=message):
        pairs(Path(name))


def test_a_folder_of_packages_gives_the_catalogues_of_its_languages() -> None:
    for language in ("de", "fr", "pt_BR"):
        write(f"packages/app/locale/{language}/LC_MESSAGES/app.po", language=language)
    options = {"folder": "packages", "languages": ["pt_BR", "de"]}
    rows = check_source(GettextSource, options)["train"]
    assert list(dict.fromkeys(rows["language"])) == ["pt_BR", "de"]
    with pytest.raises(DataError, match=r"no catalogue packages/\*\*/it/LC_MESSAGES") as caught:
        GettextSource(GettextConfig(folder="packages", languages=["it"])).load("train")
    assert "pip install --no-deps --target packages" in str(caught.value)
    for config in (GettextConfig(), GettextConfig(Path("de.po"), folder="packages")):
        with pytest.raises(DataError, match="either files or a folder"):
            GettextSource(config)
