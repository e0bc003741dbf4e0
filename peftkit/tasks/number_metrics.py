"""Score predicted numbers as GLUE scores STS-B, by the formulas themselves."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from peftkit.tasks.metrics import check_pairs

if TYPE_CHECKING:
    from numpy.typing import NDArray


def correlations(predictions: Sequence[str], references: Sequence[str]) -> dict[str, float]:
    """Return Pearson's and Spearman's correlation; 0 where either side has one number only."""
    found, wanted = _numbers(predictions, references)
    return {
        "pearson": _pearson(found, wanted),
        "spearman": _pearson(_ranks(found), _ranks(wanted)),
    }


def mean_squared_error(predictions: Sequence[str], references: Sequence[str]) -> dict[str, float]:
    """Return the mean of the squared differences."""
    found, wanted = _numbers(predictions, references)
    return {"mse": float(((found - wanted) ** 2).mean())}


def _numbers(
    predictions: Sequence[str], references: Sequence[str]
) -> tuple[NDArray[Any], NDArray[Any]]:
    import numpy as np

    check_pairs(predictions, references)
    return np.asarray([_number(text) for text in predictions]), np.asarray(references, np.float64)


def _number(text: str) -> float:
    """Read a prediction; what is no number is as wrong as any."""
    try:
        return float(text)
    except ValueError:
        return 0.0


def _pearson(found: NDArray[Any], wanted: NDArray[Any]) -> float:
    one, other = found - found.mean(), wanted - wanted.mean()
    spread = math.sqrt(float(one @ one) * float(other @ other))
    # Equal numbers may differ from their own mean in the last bit
    if len(set(found.tolist())) < 2 or len(set(wanted.tolist())) < 2 or not spread:
        return 0.0
    return float(one @ other) / spread


def _ranks(values: NDArray[Any]) -> NDArray[Any]:
    """Rank from the least; equal values share the mean of their ranks."""
    import numpy as np

    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = counts.cumsum()
    shared: NDArray[Any] = (last - (counts - 1) / 2)[place]
    return shared
