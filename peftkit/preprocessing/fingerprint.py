"""Tell encoded rows apart by one number over all of them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from datasets import Dataset


def fingerprints(encoded: Mapping[str, Dataset]) -> tuple[str, dict[str, str]]:
    """Return the sha256 over every split's name, columns and numbers, and that of each alone."""
    everything, alone = hashlib.sha256(), {}
    for name, rows in encoded.items():
        own = hashlib.sha256()
        for part in _parts(name, rows):
            everything.update(part)
            own.update(part)
        alone[name] = own.hexdigest()
    return everything.hexdigest(), alone


def _parts(name: str, rows: Dataset) -> Iterator[bytes]:
    yield f"{name} {len(rows)}\n".encode()
    for batch in rows.with_format("arrow").iter(10_000):
        for column in sorted(batch.column_names):
            yield column.encode()
            yield from _values(batch[column].combine_chunks())


def _values(values: Any) -> Iterator[bytes]:
    """Give an Arrow array's numbers, not the width that it stores them in."""
    import numpy as np
    import pyarrow as pa

    if pa.types.is_list(values.type) or pa.types.is_large_list(values.type):
        yield np.asarray(values.value_lengths().fill_null(-1)).astype(np.int64).tobytes()
        yield from _values(values.flatten())
    elif pa.types.is_integer(values.type) and not values.null_count:
        yield np.asarray(values).astype(np.int64).tobytes()
    else:
        yield repr(values.to_pylist()).encode()
