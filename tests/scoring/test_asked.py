"""What is asked after training is shortened as rows were."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from peftkit.plugins.evaluation import Shortened
from peftkit.plugins.rendering import PLAIN
from peftkit.scoring.asked import ask_row, ask_text
from peftkit.tasks.prompt_completion import PromptCompletion, PromptCompletionConfig
from peftkit.tasks.summarize import Summarize, SummarizeConfig

LIMIT = 30


class Letters:
    """A tokenizer of single characters."""

    def __call__(self, text, **_):
        return {"offset_mapping": [(at, at + 1) for at in range(len(text))]}


def answerer(task, shortened):
    return SimpleNamespace(
        task=task,
        rendering=PLAIN,
        tokenizer=Letters(),
        shortened=shortened,
        excess=lambda question: sum(len(m["content"]) for m in question.messages) - LIMIT,
    )


@pytest.mark.parametrize("keep", ["start", "end"])
def test_the_document_of_a_prompt_and_of_a_row_is_shortened(keep):
    one = answerer(Summarize(SummarizeConfig()), Shortened("document", keep))
    text = "0123456789 " * 5
    for question in (ask_text(one, text), ask_row(one, {"document": text})):
        content = question.messages[0]["content"]
        assert question.is_shortened
        assert content.startswith("Summarize the text.\n\n")
        assert len(content) <= LIMIT
        rest = content.removeprefix("Summarize the text.\n\n")
        assert text.startswith(rest) if keep == "start" else text.endswith(rest)


def test_the_question_stays_whole_where_its_context_is_given():
    config = PromptCompletionConfig(context="page")
    one = answerer(PromptCompletion(config), Shortened("page", "start"))
    question = ask_text(one, "What is said?", {"page": "words " * 30})
    assert question.messages[0]["content"].startswith("What is said?\n\nwords")
    assert len(question.messages[0]["content"]) <= LIMIT


def test_nothing_is_shortened_unless_the_recipe_says_so():
    one = answerer(Summarize(SummarizeConfig()), None)
    question = ask_text(one, "word " * 30)
    assert not question.is_shortened
    assert question.messages[0]["content"].endswith("word " * 30)
