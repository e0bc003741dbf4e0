"""Prompt and completion, with context and system where there are any."""

from __future__ import annotations

import pytest

from peftkit.errors import DataError
from peftkit.tasks.prompt_completion import PromptCompletion, PromptCompletionConfig


def test_context_goes_below_the_prompt_where_there_is_any():
    task = PromptCompletion(
        PromptCompletionConfig("instruction", "output", context="input", system="Be brief.")
    )
    assert task.columns == ("instruction", "output", "input")
    full = task.example({"instruction": "Add.", "input": "1 and 2", "output": "3"})
    assert full.messages == (
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Add.\n\n1 and 2"},
        {"role": "assistant", "content": "3"},
    )
    for empty in ("", None):
        row = {"instruction": "Add.", "input": empty, "output": "3"}
        assert task.example(row).messages[1]["content"] == "Add."
    with pytest.raises(DataError, match=r"^input is not text but a number$"):
        task.example({"instruction": "Add.", "input": 3, "output": "3"})


def test_scores():
    task = PromptCompletion(PromptCompletionConfig())
    scores = task.score(["3", "4"], ["3", "5"])
    assert scores == {"exact_match": 0.5, "rougeL": 0.5, "token_f1": 0.5}
    assert task.headline in scores
    assert task.baselines([]) == {}
