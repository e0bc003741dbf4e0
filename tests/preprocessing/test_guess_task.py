"""What columns mean, by their names and contents."""

from __future__ import annotations

import pytest

from peftkit.errors import UsageError
from peftkit.preprocessing.guess_task import guess_task, show_columns, take_task

LONG = "A long text about many things. " * 20


@pytest.mark.parametrize(
    ("row", "task", "options"),
    [
        (
            {"id": 1, "article": "A.", "highlights": "B."},
            "summarize",
            {"document": "article", "summary": "highlights"},
        ),
        (
            {"Text": "A.", "Summary": "B."},
            "summarize",
            {"document": "Text", "summary": "Summary"},
        ),
        (
            {"source": LONG, "target": "Short."},
            "summarize",
            {"document": "source", "summary": "target"},
        ),
        (
            {"source": "Good morning.", "target": "Guten Morgen."},
            "translate",
            {"source": "source", "target": "target"},
        ),
        (
            {"en": "Good morning.", "de": "Guten Morgen."},
            "translate",
            {
                "source": "en",
                "target": "de",
                "source_language": "English",
                "target_language": "German",
            },
        ),
        (
            {"id": "1", "translation": {"de": "a", "fr": "b"}},
            "translate",
            {
                "source": "translation.de",
                "target": "translation.fr",
                "source_language": "German",
                "target_language": "French",
            },
        ),
        (
            {"prompt": "a", "completion": "b"},
            "prompt_completion",
            {"prompt": "prompt", "completion": "completion"},
        ),
        (
            {"instruction": "a", "input": "", "output": "b"},
            "prompt_completion",
            {"prompt": "instruction", "completion": "output"},
        ),
        (
            {"instruction": "a", "input": "x", "output": "b"},
            "prompt_completion",
            {"prompt": "instruction", "completion": "output", "context": "input"},
        ),
        (
            {"question": "a", "answer": "b"},
            "prompt_completion",
            {"prompt": "question", "completion": "answer"},
        ),
        (
            {"messages": [{"role": "user", "content": "a"}]},
            "chat",
            {"messages": "messages"},
        ),
        (
            {"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]},
            "chat",
            {
                "messages": "conversations",
                "role": "from",
                "content": "value",
                "roles": {"human": "user", "gpt": "assistant"},
            },
        ),
        ({"text": "a"}, "text", {"text": "text"}),
        ({"n": 1, "poem": "a"}, "text", {"text": "poem"}),
    ],
)
def test_common_columns_are_understood(row, task, options):
    guess = guess_task([row], file="a.jsonl")
    assert (guess.task, guess.options) == (task, options)
    assert guess.reason


def test_columns_that_fit_nothing_are_shown_with_the_flags():
    with pytest.raises(UsageError) as caught:
        guess_task([{"foo": "x" * 80, "barbar": "y", "n": 3}], file="my rows.jsonl")
    assert caught.value.exit_code == 2
    assert str(caught.value) == (
        "my rows.jsonl: these columns fit no task:\n"
        f"  foo     text: {'x' * 57}...\n"
        "  barbar  text: y\n"
        "  n       a number: 3\n"
        "  try: say it: peftkit init 'my rows.jsonl' --task summarize --map document=COLUMN"
        " --map summary=COLUMN (tasks: summarize, translate, prompt_completion, chat, text,"
        " classify, question_answering, preference, feedback)"
    )


def test_columns_that_fit_several_tasks_are_not_decided():
    row = {"document": "a", "summary": "b", "question": "c", "answer": "d"}
    with pytest.raises(UsageError) as caught:
        guess_task([row], file="a.jsonl")
    assert caught.value.message.splitlines()[:3] == [
        "a.jsonl: these columns fit several tasks:",
        "  summarize: columns 'document' and 'summary'",
        "  prompt_completion: columns 'question' and 'answer'",
    ]
    assert caught.value.hint == "say which: peftkit init a.jsonl --task summarize"
    assert take_task("prompt_completion", {}, [row], file="a.jsonl").options == {
        "prompt": "question",
        "completion": "answer",
    }


def test_flags_win_and_the_rest_is_guessed():
    row = {"body": "a", "summary": "b", "document": "c"}
    guess = take_task("summarize", {"document": "body"}, [row], file="a.jsonl")
    assert guess.options == {"document": "body", "summary": "summary"}
    full = take_task("text", {"text": "body"}, [row], file="a.jsonl")
    assert full.options == {"text": "body"}


@pytest.mark.parametrize(
    ("task", "mapping", "message"),
    [
        (
            "sumarize",
            {},
            "init knows no task 'sumarize'\n"
            "  try: one of summarize, translate, prompt_completion, chat, text, classify,"
            " question_answering, preference, feedback",
        ),
        (
            "summarize",
            {"documents": "a"},
            "the task summarize has no column 'documents'\n  try: --map document=COLUMN",
        ),
        (
            "summarize",
            {"document": "x"},
            "a.jsonl has no column 'x':\n  a  text: 1\n  b  text: 2\n"
            "  try: say it: peftkit init a.jsonl --task summarize --map document=COLUMN"
            " --map summary=COLUMN (tasks: summarize, translate, prompt_completion, chat, text,"
            " classify, question_answering, preference, feedback)",
        ),
        (
            "summarize",
            {"document": "a"},
            "a.jsonl: which column is the summary?\n  a  text: 1\n  b  text: 2\n"
            "  try: peftkit init a.jsonl --task summarize --map summary=COLUMN",
        ),
    ],
)
def test_flags_that_cannot_be_meant_say_so(task, mapping, message):
    with pytest.raises(UsageError) as caught:
        take_task(task, mapping, [{"a": "1", "b": "2"}], file="a.jsonl")
    assert str(caught.value) == message


def test_examples_stand_on_one_line():
    assert show_columns([{"a": "x\n y", "bb": None}]) == "  a   text: x y\n  bb  null: None"


def labelled(num_rows: int, **columns) -> list[dict]:
    return [{name: make(number) for name, make in columns.items()} for number in range(num_rows)]


@pytest.mark.parametrize(
    ("columns", "options"),
    [
        (
            {"review": "number {}".format, "sentiment": lambda n: ("bad", "good")[n % 2]},
            {"text": "review", "label": "sentiment"},
        ),
        (
            {
                "idx": int,
                "sentence1": "one {}".format,
                "sentence2": "two {}".format,
                "label": lambda n: n % 2,
            },
            {"text": "sentence1", "second": "sentence2", "label": "label"},
        ),
    ],
)
def test_few_values_beside_a_text_are_labels(columns: dict, options: dict) -> None:
    guess = guess_task(labelled(12, **columns), file="rows.csv")
    assert (guess.task, guess.options) == ("classify", options)
    assert "has 2 values in 12 rows" in guess.reason


def test_many_values_are_no_labels() -> None:
    rows = labelled(12, text="number {}".format, label="own {}".format)
    assert guess_task(rows, file="rows.csv").task == "text"
    taken = take_task("classify", {"text": "text", "label": "label"}, rows, file="rows.csv")
    assert taken.options == {"text": "text", "label": "label"}
    both = {"text": "text", "second": "label", "label": "label"}
    assert take_task("classify", both, rows, file="rows.csv").options == both


def test_an_empty_cell_is_no_label() -> None:
    rows = labelled(12, text="number {}".format, label=lambda n: ("", "bad", "good")[n % 3])
    assert "has 2 values in 12 rows" in guess_task(rows, file="rows.csv").reason


def test_a_label_column_that_is_passed_over_is_named() -> None:
    rows = labelled(12, text="number {}".format, label=lambda _: "good")
    guess = guess_task(rows, file="rows.csv")
    assert guess.task == "text"
    assert guess.reason == (
        "column 'text'; 'label' holds no labels, with 1 different value in 12 rows"
    )


def test_asked_for_labels_their_column_is_taken_by_its_name() -> None:
    rows = labelled(12, text="number {}".format, label=lambda _: "good")
    assert take_task("classify", {}, rows, file="rows.csv").options == {
        "text": "text",
        "label": "label",
    }
