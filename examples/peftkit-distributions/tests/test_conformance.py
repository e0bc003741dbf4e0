"""The source and the task do what peftkit expects of every plugin."""

from __future__ import annotations

import pytest
from peftkit_distributions.source import Config, Distributions
from peftkit_distributions.task import Config as OneLinerConfig
from peftkit_distributions.task import OneLiner

from peftkit.errors import DataError
from peftkit.testing import check_source, check_task


def test_source_and_task_conform() -> None:
    splits = check_source(Distributions, {"min_words": 5}, columns=["description", "summary"])
    assert set(splits) == {"train", "test"}
    rows = splits["train"].to_list()[:20]
    assert check_task(OneLiner, {}, rows) == {"word_f1": 1.0}


def test_no_distribution_is_in_both_splits() -> None:
    source = Distributions(Config())
    train, test = (set(source.load(split)["name"]) for split in source.splits())
    assert not train & test
    assert len(train) > len(test) > 0


def test_long_descriptions_are_cut_at_a_space() -> None:
    rows = Distributions(Config(max_chars=80)).load("train")
    assert max(len(text) for text in rows["description"]) <= 80


def test_a_share_that_is_none_is_refused() -> None:
    with pytest.raises(DataError, match="test_share is 2"):
        Distributions(Config(test_share=2))


def test_the_metric_counts_shared_words() -> None:
    task = OneLiner(OneLinerConfig())
    assert task.score(["Read YAML files."], ["Read files"]) == {"word_f1": 2 * 2 / 5}


def test_the_baseline_passes_over_headings_and_badges() -> None:
    task = OneLiner(OneLinerConfig())
    text = "# Name\n[![badge](x)](y)\n\nReads and writes YAML.\nMore."
    assert task.baselines([{"description": text}]) == {"first_line": ["Reads and writes YAML."]}
