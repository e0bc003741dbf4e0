"""`init` writes a recipe that loads, builds and prepares, whatever the file is called."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import tiny
import yaml
from hypothesis import given
from hypothesis import strategies as st

from peftkit.errors import DataError, UsageError
from peftkit.init import flow, init
from peftkit.recipe.load import load_recipe


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write_rows(name: str, records) -> Path:
    return tiny.write_jsonl(Path(name), records)


def test_a_summary_file_becomes_a_complete_recipe(here):
    rows = tiny.rows(300)
    result = init(write_rows("news.jsonl", rows))
    assert result.file == Path("news.yaml")
    assert result.file.read_text() == result.text
    recipe = load_recipe(result.file)
    assert recipe.name == "news"
    assert recipe.data.task.name == "summarize"
    assert recipe.data.task.options == {"document": "document", "summary": "summary"}
    assert recipe.data.source.options["files"] == str(here / "news.jsonl")
    assert dict(recipe.data.splits) == {"train": "train", "validation": "10%", "test": "10%"}
    assert recipe.adapter.choice.name == "lora"
    assert recipe.method.options["max_length"] % 32 == 0
    assert recipe.evaluate.generation["max_new_tokens"] % 16 == 0
    assert "# path: Qwen/Qwen3-0.6B" in result.text
    assert "\n\n" not in result.text
    assert str(result).splitlines()[-3:] == [
        f"99 % of rows have at most {result.text.partition('at most ')[2].split()[0]} tokens",
        "wrote news.yaml",
        "next: peftkit data news.yaml, then peftkit run news.yaml",
    ]
    assert result.notes[:2] == (
        "news.jsonl: 300 rows with the columns document, summary",
        "task summarize: columns 'document' and 'summary'",
    )


def test_the_recipe_runs_through_the_data_audit():
    from peftkit.data import show_data

    result = init(write_rows("news.jsonl", tiny.rows(120)))
    view = show_data(load_recipe(result.file), num_rows=1)
    assert view.breaches == ()
    assert sum(audit.num_used for audit in view.audit.values()) == 120
    assert all(audit.num_used for audit in view.audit.values())


CHAT = {"conversations": [{"from": "human", "value": "hi"}, {"from": "gpt", "value": "hello"}]}


@pytest.mark.parametrize(
    ("name", "content", "task", "source"),
    [
        ("a.json", json.dumps([{"prompt": f"p{n}", "completion": "c"} for n in range(9)]),
         "prompt_completion", "json"),
        ("a.csv", "source,target\n" + "".join(f"hello {n},hallo {n}\n" for n in range(9)),
         "translate", "csv"),
        ("a.tsv", "text\tlabel\n" + "".join(f"some text {n}\t\n" for n in range(9)),
         "text", "csv"),
        ("a.txt", "One line.\n\nTwo lines.\nHere.\n\n" * 5, "text", "text"),
        ("a.jsonl", "".join(json.dumps({**CHAT, "n": n}) + "\n" for n in range(9)),
         "chat", "json"),
        ("odd: näme#.jsonl", "".join(json.dumps({"no": f"t{n}"}) + "\n" for n in range(9)),
         "text", "json"),
    ],
)  # fmt: skip
def test_every_format_gives_a_recipe_that_loads(name, content, task, source):
    Path(name).write_text(content)
    result = init(Path(name))
    recipe = load_recipe(result.file)
    assert (recipe.data.task.name, recipe.data.source.name) == (task, source)
    assert (recipe.evaluate.generation == {}) is (task == "text")


def test_parquet_and_a_recipe_in_another_folder(here):
    import pyarrow as pa
    import pyarrow.parquet as pq

    (here / "data").mkdir()
    pq.write_table(pa.table({"text": [f"row {n}" for n in range(30)]}), "data/a.parquet")
    result = init(Path("data/a.parquet"), out=Path("recipes/mine.yaml"))
    assert "files: ../data/a.parquet" in result.text
    recipe = load_recipe(result.file)
    assert recipe.name == "mine"
    assert recipe.data.source.options["files"] == str(here / "data/a.parquet")


def test_files_beside_a_training_file_become_splits(here):
    for name in ("train.jsonl", "dev.jsonl", "test.jsonl"):
        write_rows(name, tiny.rows(20, seed=len(name)))
    recipe = load_recipe(init(Path("train.jsonl")).file)
    assert dict(recipe.data.splits) == {
        "train": "train",
        "validation": "validation",
        "test": "test",
    }
    assert recipe.data.source.options["files"] == {
        "train": str(here / "train.jsonl"),
        "validation": str(here / "dev.jsonl"),
        "test": str(here / "test.jsonl"),
    }


def test_a_document_without_rows_is_refused():
    Path("a.json").write_text(json.dumps({"v": 1, "data": "none"}, indent=1))
    with pytest.raises(DataError, match="one JSON object over several lines"):
        init(Path("a.json"))


def test_columns_by_flag():
    write_rows("a.jsonl", [{"on": f"text {n}", "yes": "short", "n": n} for n in range(20)])
    with pytest.raises(UsageError, match="fit no task"):
        init(Path("a.jsonl"))
    assert not Path("a.yaml").exists()
    with pytest.raises(UsageError, match="--map needs --task"):
        init(Path("a.jsonl"), columns=["document=on"])
    with pytest.raises(UsageError, match="--map document is not OPTION=COLUMN"):
        init(Path("a.jsonl"), task="summarize", columns=["document"])
    result = init(Path("a.jsonl"), task="summarize", columns=["document=on", "summary=yes"])
    assert load_recipe(result.file).data.task.options == {"document": "on", "summary": "yes"}


def test_a_text_with_few_labels_beside_it_becomes_a_classifier_s_recipe():
    from peftkit.data import show_data

    texts = [row["document"] for row in tiny.rows(120)]
    rows = [{"review": text, "stars": at % 3} for at, text in enumerate(texts)]
    result = init(write_rows("reviews.jsonl", rows))
    assert result.task == "classify"
    recipe = load_recipe(result.file)
    assert recipe.method.name == "classify"
    assert recipe.data.task.options == {"text": "review", "label": "stars"}
    assert "# path: google-bert/bert-base-uncased" in result.text
    assert "\n\n" not in result.text
    view = show_data(recipe, num_rows=1)
    assert not view.breaches
    assert set(view.audit["train"].labels) == {"0", "1", "2"}


def test_a_recipe_is_never_overwritten():
    write_rows("a.jsonl", tiny.rows(20))
    Path("a.yaml").write_text("mine")
    with pytest.raises(UsageError) as caught:
        init(Path("a.jsonl"))
    assert str(caught.value) == (
        "a.yaml exists already\n  try: delete it first, or write another: --out FILE.yaml"
    )
    assert Path("a.yaml").read_text() == "mine"


@pytest.mark.parametrize(
    ("name", "content", "kind", "message"),
    [
        ("a.xlsx", "x", UsageError, "a.xlsx: cannot tell the format from the name"),
        ("a", "x", UsageError, "a: cannot tell the format from the name"),
        ("a.jsonl", "", DataError, "a.jsonl: no rows"),
        ("a.jsonl", '{"a": }\n', DataError, "a.jsonl:1: Expecting value at column 7"),
        (
            "a.jsonl",
            '{"document": "", "summary": ""}\n{"document": " x", "summary": null}\n',
            UsageError,
            "a.jsonl: which column is the document?",
        ),
    ],
)
def test_a_file_that_cannot_be_used_says_why(name, content, kind, message):
    Path(name).write_text(content)
    with pytest.raises(kind) as caught:
        init(Path(name), task="summarize" if "document" in content else None)
    assert caught.value.message.startswith(message)
    assert not list(Path().glob("*.yaml"))


def test_rows_that_all_fail_say_why():
    write_rows("a.jsonl", [{"document": "x", "summary": " "}] * 3)
    with pytest.raises(DataError) as caught:
        init(Path("a.jsonl"))
    assert caught.value.message == (
        "a.jsonl: none of 3 rows can be used: 3 summary is only whitespace"
    )


def test_texts_longer_than_the_embedded_model_are_said():
    write_rows("a.jsonl", [{"text": f"{n} " + "long words " * 900} for n in range(10)])
    result = init(Path("a.jsonl"))
    assert load_recipe(result.file).method.options["max_length"] == 512
    assert any(note.startswith("100% of rows are longer than the 512 tokens")
               for note in result.notes)  # fmt: skip


scalars = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)


@given(st.dictionaries(scalars, scalars | st.lists(scalars) | st.dictionaries(scalars, scalars)))
def test_any_text_survives_yaml(value):
    assert yaml.safe_load(flow(value)) == value


@pytest.mark.parametrize("form", ["jsonl", "parquet"])
def test_rows_of_squad_s_shape_become_a_recipe_that_passes(form: str) -> None:
    import tiny_heads

    from peftkit.check import check_files
    from peftkit.data import show_data

    rows = tiny_heads.questions(60, unanswerable=form == "parquet")
    if form == "jsonl":
        file = write_rows("squad.jsonl", rows)
    else:
        from datasets import Dataset

        file = Path("squad.parquet")
        Dataset.from_list(rows).to_parquet(file)
    result = init(file)
    assert result.task == "question_answering"
    assert "path: embedded:docstring-bert" in result.text
    assert ("version_2_with_negative: true" in result.text) == (form == "parquet")
    assert check_files([result.file]) == []
    view = show_data(load_recipe(result.file), num_rows=1)
    assert view.breaches == ()
    assert sum(audit.num_used for audit in view.audit.values()) == 60


@pytest.mark.parametrize(
    ("row", "task", "method"),
    [
        ({"prompt": "p {}", "chosen": "a", "rejected": "b"}, "preference", "dpo"),
        (
            {name: [{"role": "user", "content": "p {}"}, {"role": "assistant", "content": name}]
             for name in ("chosen", "rejected")},
            "preference", "dpo",
        ),
        ({"question": "p {}", "answer": "a", "liked": True}, "feedback", "kto"),
    ],
    ids=["pairs", "implicit", "verdicts"],
)  # fmt: skip
def test_answers_that_are_compared_become_a_recipe_that_loads(row, task, method, tmp_path):
    file = tmp_path / "answers.jsonl"
    lines = [json.dumps(row).replace("{}", str(at)) for at in range(40)]
    if task == "feedback":
        lines = [line.replace("true", "false") if at % 2 else line for at, line in enumerate(lines)]
    file.write_text("\n".join(lines), encoding="utf-8")
    made = init(file, out=tmp_path / "r.yaml")
    recipe = load_recipe(made.file)
    assert (recipe.data.task.name, recipe.method.name) == (task, method)


@pytest.mark.parametrize("shape", ["folder", "semicolons", "wrapped", "messages as text"])
def test_files_as_people_have_them_become_recipes_that_pass_the_audit(shape, here):
    from peftkit.data import show_data

    rows = tiny.rows(60)
    if shape == "folder":
        (here / "set").mkdir()
        write_rows("set/train.jsonl", rows)
        write_rows("set/test.jsonl", tiny.rows(20, seed=3))
        file = Path("set")
    elif shape == "semicolons":
        file = Path("a.csv")
        cells = [[text.replace(";", ",") for text in row.values()] for row in rows]
        lines = [f"{document} caf\xe9;{summary}" for document, summary in cells]
        file.write_bytes("\n".join(["document;summary", *lines]).encode("latin-1"))
    elif shape == "wrapped":
        file = Path("a.json")
        file.write_text(json.dumps({"version": "1.0", "rows": rows}))
    else:
        turns = [
            [{"from": "human", "value": r["document"]}, {"from": "gpt", "value": r["summary"]}]
            for r in rows
        ]
        file = write_rows("a.jsonl", [{"id": 1, "conversations": json.dumps(t)} for t in turns])
    result = init(file)
    view = show_data(load_recipe(result.file), num_rows=0)
    assert view.breaches == ()
    assert view.audit["train"].num_rows >= 30
    assert result.task == ("chat" if shape == "messages as text" else "summarize")
