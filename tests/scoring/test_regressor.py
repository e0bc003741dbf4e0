"""A model that says several numbers predicts none."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from peftkit.errors import UsageError
from peftkit.plugins.evaluation import Contestant
from peftkit.scoring.regressor import NumberEvaluator, regress


def test_a_head_of_several_outputs_is_refused() -> None:
    model: Any = SimpleNamespace(config=SimpleNamespace(num_labels=3))
    with pytest.raises(UsageError, match="says 3 numbers of a text"):
        regress(model, model, [], batch_size=2)


def test_a_row_alone_has_no_score() -> None:
    assert NumberEvaluator.row_scores(SimpleNamespace(), Contestant({}, ("1", "2"))) == []
