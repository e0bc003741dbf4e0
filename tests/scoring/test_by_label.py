"""Each label's scores and the confusion matrix equal scikit-learn's."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from peftkit.scoring.by_label import label_notes, score_by_label

LABELS = ("a", "b", "c")
PAIRS = st.lists(st.tuples(st.sampled_from(LABELS), st.sampled_from(LABELS)), min_size=1)


@given(PAIRS)
def test_they_are_scikit_learn_s(pairs: list[tuple[str, str]]) -> None:
    from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

    wanted, found = ([pair[side] for pair in pairs] for side in (0, 1))
    ours = score_by_label(found, wanted, LABELS)
    assert [list(row) for row in ours.confusion] == (
        confusion_matrix(wanted, found, labels=LABELS).tolist()
    )
    precision, recall, f1, rows = precision_recall_fscore_support(
        wanted, found, labels=LABELS, zero_division=0
    )
    assert [value or 0 for value in ours.precision] == precision.tolist()
    assert [value or 0 for value in ours.recall] == recall.tolist()
    assert list(ours.f1) == f1.tolist()
    assert list(ours.num_rows) == rows.tolist()
    assert [value is None for value in ours.precision] == [label not in found for label in LABELS]


def test_one_answer_for_all_and_labels_without_rows_are_said() -> None:
    notes = list(label_notes("Tuned", score_by_label("aaa", "aab", LABELS)))
    assert notes == [
        "Tuned gives every row the label 'a'.",
        "No scored row has the label 'c', so nothing is known of how well it is found.",
    ]
    assert list(label_notes("Tuned", score_by_label("abc", "abc", LABELS))) == []
