"""Rows that several processes read together."""

from __future__ import annotations

from peftkit.scoring.shared import shared


def test_one_process_reads_all_rows_in_their_order() -> None:
    seen: list[int] = []

    def read(order: object) -> dict[int, str]:
        seen.extend(order)  # type: ignore[arg-type]
        return {index: str(index) for index in seen}

    assert shared([2, 0, 1], read) == {0: "0", 1: "1", 2: "2"}
    assert seen == [2, 0, 1]
