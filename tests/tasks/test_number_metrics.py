"""The scores of numbers equal scipy's and scikit-learn's, ties and constants included."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peftkit.tasks.number_metrics import correlations, mean_squared_error

NUMBERS = st.lists(
    st.tuples(st.integers(-9, 9), st.integers(-9, 9).map(lambda n: n / 4)), min_size=3, max_size=30
)


@given(NUMBERS)
def test_they_are_scipy_s(pairs: list[tuple[float, float]]) -> None:
    from scipy.stats import pearsonr, spearmanr
    from sklearn.metrics import mean_squared_error as sklearn_error

    found, wanted = ([pair[side] for pair in pairs] for side in (0, 1))
    texts = [str(value) for value in found], [str(value) for value in wanted]
    ours = correlations(*texts)
    if len(set(found)) > 1 and len(set(wanted)) > 1:
        assert ours["pearson"] == pytest.approx(pearsonr(found, wanted).statistic, abs=1e-9)
        assert ours["spearman"] == pytest.approx(spearmanr(found, wanted).statistic, abs=1e-9)
    else:
        assert ours == {"pearson": 0.0, "spearman": 0.0}
    assert mean_squared_error(*texts)["mse"] == pytest.approx(sklearn_error(wanted, found))
