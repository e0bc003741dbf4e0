"""Answers are those of plain generate, streamed or in batches, and a file loses no row."""

from __future__ import annotations

import io
import json
from datetime import date
from pathlib import Path
from types import SimpleNamespace

import pytest
import tiny
from training_fixture import train, write_recipe

from peftkit.errors import ArtefactError, DataError, RecipeError, UsageError
from peftkit.generate import (
    Conversation,
    answer_file,
    ask,
    open_answerer,
    open_out,
    read_questions,
    trained_system,
)
from peftkit.plugins import Question
from peftkit.rundir.paths import RunDir
from peftkit.scoring.asked import ask_row
from peftkit.scoring.classifier import LabelAnswerer
from peftkit.scoring.generation import MAX_NEW_TOKENS
from peftkit.scoring.generative import ANSWER, GenerativeAnswerer
from peftkit.scoring.prompts import question_of_text

PROMPTS = [row["document"] for row in tiny.rows(6, seed=4)]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a base whose weights are wide enough for answers that differ."""
    return tiny.tiny_llama(tmp_path_factory.mktemp("lively"), initializer_range=0.3)


def _train(folder: Path, base: Path, rows: list[dict], task: dict) -> Path:
    file = tiny.write_jsonl(folder / "rows.jsonl", rows)
    data = {
        "source": {"json": {"files": {"train": str(file), "test": str(file)}}},
        "splits": {"train": "train", "test": "test"},
        "task": task,
    }
    sft = {"max_steps": 2, "learning_rate": 0.01, "save_strategy": "no", "max_length": 128}
    recipe = write_recipe(folder / "r.json", base, file, sft=sft, data=data)
    return train(recipe, folder / "run").path


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, base: Path) -> Path:
    folder = tmp_path_factory.mktemp("summarize")
    return _train(folder, base, tiny.rows(4), {"summarize": {}})


@pytest.fixture(scope="module")
def chat_run(tmp_path_factory: pytest.TempPathFactory, base: Path) -> Path:
    turns = [{"role": "user", "content": "sort"}, {"role": "assistant", "content": "keys"}]
    folder = tmp_path_factory.mktemp("chat")
    return _train(folder, base, [{"messages": turns}] * 4, {"chat": {}})


@pytest.fixture(scope="module")
def answerer(run: Path) -> GenerativeAnswerer:
    return open_answerer(run, options=["max_new_tokens=10"])


def _plain(run: Path, base: Path, messages: list[dict], num_new: int, *, tuned: bool = True) -> str:
    """Answer with peft and transformers alone."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(base)
    model = AutoModelForCausalLM.from_pretrained(base).eval()
    if tuned:
        model = PeftModel.from_pretrained(model, run / "adapter").eval()
    text = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    ids = torch.tensor([tokenizer(text)["input_ids"]])
    made = model.generate(
        input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=num_new,
        do_sample=False, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    return tokenizer.decode(made[0, ids.shape[1] :], skip_special_tokens=True).strip()


def _answers(answerer: GenerativeAnswerer, questions: list[Question]) -> list[str]:
    return [found[ANSWER] for found in answerer.reply_many(questions)]


@pytest.mark.parametrize("untrained", [False, True])
def test_an_answer_is_plain_generate_s(run: Path, base: Path, untrained: bool) -> None:
    answerer = open_answerer(run, options=["max_new_tokens=10"], untrained=untrained)
    messages = [{"role": "user", "content": f"Summarize the text.\n\n{PROMPTS[0]}"}]
    expected = _plain(run, base, messages, 10, tuned=not untrained)
    pieces: list[str] = []
    reply = answerer.reply(question_of_text(answerer.task, PROMPTS[0]), pieces.append)
    assert reply.text == "".join(pieces) == expected != ""


def test_what_is_streamed_is_what_a_batch_answers(answerer: GenerativeAnswerer) -> None:
    questions = [question_of_text(answerer.task, prompt) for prompt in PROMPTS]
    batch = _answers(answerer, questions)
    for question, expected in zip(questions, batch, strict=True):
        pieces: list[str] = []
        assert answerer.reply(question, pieces.append).text == expected
        assert "".join(pieces) == expected
    assert len(set(batch)) > 1


def test_python_asks_with_a_text_and_gets_one(run: Path, answerer: GenerativeAnswerer) -> None:
    answer = ask(open_answerer(str(run), options=["max_new_tokens=10"]), PROMPTS[0])
    assert [answer] == _answers(answerer, [question_of_text(answerer.task, PROMPTS[0])])


def test_an_answer_comes_in_pieces(answerer: GenerativeAnswerer) -> None:
    counts = []
    for prompt in PROMPTS:
        pieces: list[str] = []
        answerer.reply(question_of_text(answerer.task, prompt), pieces.append)
        counts.append(len(pieces))
    assert max(counts) > 2


def test_a_beam_search_comes_at_once(run: Path) -> None:
    answerer = open_answerer(run, options=["num_beams=2", "max_new_tokens=6"])
    question = question_of_text(answerer.task, PROMPTS[0])
    pieces: list[str] = []
    reply = answerer.reply(question, pieces.append)
    assert pieces == [reply.text] == _answers(answerer, [question])


def test_what_is_cut_is_said(run: Path, answerer: GenerativeAnswerer) -> None:
    long = "sort keys by name ; " * 100
    reply = answerer.reply(question_of_text(answerer.task, long), lambda _: None)
    assert reply.notes[0] == "the prompt was cut to the 246 tokens that leave room"
    brief = open_answerer(run, options=["max_new_tokens=1"])
    replies = [brief.reply(question_of_text(brief.task, p), lambda _: None) for p in PROMPTS]
    assert ("the answer was cut at max_new_tokens 1",) in [reply.notes for reply in replies]


def test_the_recipe_s_options_hold_until_others_are_given(tiny_run: Path, chat_run: Path) -> None:
    assert open_answerer(tiny_run).config.max_new_tokens == 12
    assert open_answerer(tiny_run, options=["max_new_tokens=5"]).config.max_new_tokens == 5


def test_where_nobody_says_how_it_is_answered_as_in_an_evaluation(chat_run: Path) -> None:
    from peftkit.preprocessing.pipeline import inspect_rows
    from peftkit.recipe.schema import EvaluateSection
    from peftkit.scoring.by_kind import evaluator_for
    from peftkit.training.open_run import open_run

    run = open_run(RunDir(chat_run))
    assert run.built.recipe.evaluate is None
    examples = inspect_rows(run.built, run.tokenizer, splits=["test"]).examples["test"]
    answerer = open_answerer(chat_run)
    evaluator = evaluator_for(run.built, answerer.model, run.tokenizer, examples)
    assert evaluator.options.items() <= answerer.config.to_dict().items()
    assert evaluator.options["max_new_tokens"] == MAX_NEW_TOKENS
    assert answerer.batch_size == EvaluateSection().batch_size


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("max_new_token=3", "did you mean max_new_tokens?"),
        ("max_new_tokens", "is not KEY=VALUE"),
        ("max_new_tokens=[", "--option: 1 problem"),
        ("temperature=-1", "generation: "),
    ],
)
def test_a_wrong_option_is_refused(tiny_run: Path, option: str, message: str) -> None:
    with pytest.raises((UsageError, RecipeError)) as caught:
        open_answerer(tiny_run, options=[option])
    assert message in str(caught.value)


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArtefactError, match="is not a run directory"):
        open_answerer(tmp_path)


def test_what_was_looked_for_is_said_and_the_run_that_may_be_meant(
    tiny_run: Path, tmp_path: Path
) -> None:
    with pytest.raises(ArtefactError, match=r"nothing is not there \(looked for .*config\.json"):
        open_answerer(tmp_path / "nothing")
    with pytest.raises(ArtefactError) as caught:
        open_answerer(tiny_run.parent / f"{tiny_run.name}s")
    assert f"peftkit generate {tiny_run}" in str(caught.value.hint)


def test_a_conversation_keeps_its_turns_where_the_run_learned_turns(
    chat_run: Path, base: Path
) -> None:
    answerer = open_answerer(chat_run, options=["max_new_tokens=6"])
    conversation = Conversation(answerer)
    assert conversation.is_kept
    first = conversation.say("sort keys", lambda _: None).text
    second = conversation.say("by name", lambda _: None).text
    asked = [
        {"role": "user", "content": "sort keys"},
        {"role": "assistant", "content": first},
        {"role": "user", "content": "by name"},
    ]
    assert second == _plain(chat_run, base, asked, 6)
    assert second != _plain(chat_run, base, asked[-1:], 6)


def test_the_oldest_turns_make_room(chat_run: Path, base: Path) -> None:
    conversation = Conversation(open_answerer(chat_run, options=["max_new_tokens=6"]))
    conversation.say("read a file from disk " * 30, lambda _: None)
    reply = conversation.say("sort keys by name " * 30, lambda _: None)
    assert reply.notes[0] == "the first 2 messages were left out to make room"
    asked = [{"role": "user", "content": "sort keys by name " * 30}]
    assert reply.text == _plain(chat_run, base, asked, 6)


def test_a_stopped_answer_is_forgotten_with_its_prompt(chat_run: Path, base: Path) -> None:
    conversation = Conversation(open_answerer(chat_run, options=["max_new_tokens=6"]))

    def stop(_: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        conversation.say("sort keys", stop)
    conversation.forget_last()
    reply = conversation.say("by name", lambda _: None)
    asked = [{"role": "user", "content": "by name"}]
    assert reply.text == _plain(chat_run, base, asked, 6)


def test_prompts_stand_alone_where_the_run_learned_single_answers(
    answerer: GenerativeAnswerer,
) -> None:
    conversation = Conversation(answerer)
    assert not conversation.is_kept
    conversation.say(PROMPTS[1], lambda _: None)
    alone = answerer.reply(question_of_text(answerer.task, PROMPTS[0]), lambda _: None)
    assert conversation.say(PROMPTS[0], lambda _: None) == alone


def test_a_model_of_one_text_at_a_time_holds_no_conversation() -> None:
    with pytest.raises(UsageError) as caught:
        Conversation(SimpleNamespace(no_conversation=LabelAnswerer.no_conversation))
    assert str(caught.value) == (
        "a classifier names the label of one text and holds no conversation\n"
        "  try: peftkit generate RUN 'a text', or --file ROWS.jsonl"
    )


def test_a_file_is_answered_row_by_row_and_keeps_its_columns(
    answerer: GenerativeAnswerer, tmp_path: Path
) -> None:
    rows = [{"document": prompt, "id": at} for at, prompt in enumerate(PROMPTS)]
    rows[2] = {"prompt": PROMPTS[2], "id": 2}
    asked = read_questions(answerer, tiny.write_jsonl(tmp_path / "in.jsonl", rows))
    out, seen = io.StringIO(), []
    answer_file(answerer, asked, out, progress=lambda *at: seen.append(at))
    answered = [json.loads(line) for line in out.getvalue().splitlines()]
    assert [{k: v for k, v in row.items() if k != ANSWER} for row in answered] == rows
    expected = _answers(answerer, [question_of_text(answerer.task, p) for p in PROMPTS])
    assert [row[ANSWER] for row in answered] == expected
    assert seen[-1] == (6, 6)


@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".json", ".txt"])
def test_a_file_of_any_format_is_asked_alike(
    answerer: GenerativeAnswerer, tmp_path: Path, suffix: str
) -> None:
    import pyarrow as pa
    from pyarrow import csv, parquet

    file = tmp_path / f"in{suffix}"
    table = pa.table({"document": PROMPTS, "at": [date(2026, 1, 1)] * len(PROMPTS)})
    if suffix == ".csv":
        csv.write_csv(table, file, csv.WriteOptions(delimiter=";"))
    elif suffix == ".parquet":
        parquet.write_table(table, file)
    elif suffix == ".json":
        file.write_text(json.dumps({"rows": [{"document": one} for one in PROMPTS]}))
    else:
        file.write_text("\n\n".join(PROMPTS))
    asked = read_questions(answerer, file)
    assert [one for _, one in asked] == [question_of_text(answerer.task, p) for p in PROMPTS]
    out = io.StringIO()
    answer_file(answerer, asked[:1], out)
    assert json.loads(out.getvalue())[ANSWER]


def test_every_bad_row_of_a_file_is_named(answerer: GenerativeAnswerer, tmp_path: Path) -> None:
    file = tmp_path / "in.jsonl"
    file.write_text(
        '{"document": "a"}\n{"text": "a"}\nnot JSON\n{"document": "a", "generated": ""}\n'
    )
    with pytest.raises(DataError) as caught:
        read_questions(answerer, file)
    places = [line.strip().partition(": ")[0] for line in str(caught.value).splitlines()[1:4]]
    assert places == [f"{file}:{line}" for line in (2, 3, 4)]
    file.write_text("")
    with pytest.raises(DataError, match="holds no rows"):
        read_questions(answerer, file)
    with pytest.raises(DataError, match="cannot read"):
        read_questions(answerer, tmp_path / "absent.jsonl")
    with pytest.raises(UsageError, match="cannot tell the format"):
        read_questions(answerer, tmp_path / "absent.xyz")
    text = tmp_path / "in.txt"
    text.write_bytes(b"sort keys\n\xff\n")
    with pytest.raises(DataError, match=r"in\.txt:2: is not UTF-8"):
        read_questions(answerer, text)


def test_an_output_is_never_overwritten(tmp_path: Path) -> None:
    file = tmp_path / "out.jsonl"
    open_out(file).close()
    with pytest.raises(UsageError, match="exists already"):
        open_out(file)


def test_running_text_is_continued_where_it_ends(answerer: GenerativeAnswerer, base: Path) -> None:
    import copy

    import torch
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(base)
    text = "return the sum of two numbers"
    ids = torch.tensor([tokenizer(text)["input_ids"]])
    made = answerer.model.generate(
        input_ids=ids, attention_mask=torch.ones_like(ids), generation_config=answerer.config
    )
    expected = tokenizer.decode(made[0, ids.shape[1] :], skip_special_tokens=True).strip()
    assert answerer.reply(Question(text=text), lambda _: None).text == expected
    # Too long a text loses its beginning, not its end.
    narrow = copy.copy(answerer)
    narrow.max_tokens = ids.shape[1]
    reply = narrow.reply(Question(text=f"open a connection to a server {text}"), lambda _: None)
    assert reply.notes[0].startswith("the prompt was cut")


def test_a_run_is_asked_under_the_system_message_of_its_training(tmp_path, tiny_model) -> None:
    """As text, of a column, or of the rows' own; `--system` says another, or none."""
    turns = [{"role": "user", "content": "sum"}, {"role": "assistant", "content": "rows"}]
    rows = [{"messages": turns, "persona": name} for name in ("Ada", "Bob") * 3]
    data = tiny.write_jsonl(tmp_path / "chat.jsonl", rows)

    def trained(name: str, system: str, own: str = ""):
        opened = [{"role": "system", "content": own}] if own else []
        tiny.write_jsonl(data, [{**row, "messages": [*opened, *turns]} for row in rows])
        file = write_recipe(
            tmp_path / f"{name}.yaml", tiny_model, data, sft={"max_steps": 1},
            data={"source": {"json": {"files": str(data)}}, "task": {"chat": {}},
                  "dialogue": {"system": system} if system else {}},
        )  # fmt: skip
        return train(file, tmp_path / name)

    def asked(run, row=None, **options) -> str:
        answerer = open_answerer(run.path, **options)
        if row is None:
            (ids,) = answerer._encode([question_of_text(answerer.task, "sum")]).input_ids
        else:
            (ids,) = answerer._encode([ask_row(answerer, row)]).input_ids
        return answerer.tokenizer.decode(ids)

    head = "<|system|>\n{}<|endoftext|>\n<|user|>\nsum<|endoftext|>\n<|assistant|>\n"
    plain = head.partition("\n{}<|endoftext|>\n")[2]
    said = trained("said", "You read tables.")
    assert trained_system(said) == "You read tables."
    assert asked(said) == head.format("You read tables.")
    assert asked(said, system="Be brief.") == head.format("Be brief.")
    assert asked(said, system="") == plain
    assert asked(trained("own", "", own="From a file.")) == head.format("From a file.")
    column = trained("column", "You are {persona}.")
    assert asked(column) == plain
    row = {"messages": turns[:1], "persona": "Ada"}
    assert asked(column, row) == head.format("You are Ada.")
