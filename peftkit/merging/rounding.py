"""Widen stored numbers, and round results to a stored dtype once, to the nearest, ties to even."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

STORAGE = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "uint16"}
"""safetensors' name -> numpy dtype of the same bytes; numpy has no bfloat16."""


def to_float64(stored: NDArray[np.generic], dtype: str) -> NDArray[np.float64]:
    """Return the numbers as float64, exactly."""
    import numpy as np

    if dtype == "BF16":
        stored = (stored.astype(np.uint32) << np.uint32(16)).view(np.float32)
    with np.errstate(invalid="ignore"):  # a signalling NaN; `tiles.finite` refuses it
        return stored.astype(np.float64)


def to_float32(stored: NDArray[np.generic], dtype: str, out: NDArray[np.float32]) -> None:
    """Write the numbers as float32 into `out`, exactly unless they are float64."""
    import numpy as np

    bits = out.view(np.uint32)
    if dtype == "BF16":
        np.left_shift(stored, np.uint32(16), out=bits, dtype=np.uint32, casting="unsafe")
    elif dtype == "F16":
        # numpy's own conversion is 20 times slower. Shifted into a float32's place, a half's
        # exponent is 112 too small; the multiplication by 2**112 mends it, subnormals included.
        np.left_shift(
            stored.view(np.uint16), np.uint32(13), out=bits, dtype=np.uint32, casting="unsafe"
        )
        np.bitwise_and(bits, np.uint32(0x0FFFE000), out=bits)
        np.multiply(out, np.float32(2.0**112), out=out)
        sign = stored.view(np.uint16) & np.uint16(0x8000)
        np.bitwise_or(bits, sign.astype(np.uint32) << np.uint32(16), out=bits)
        special = (stored.view(np.uint16) & np.uint16(0x7C00)) == np.uint16(0x7C00)
        if special.any():
            with np.errstate(invalid="ignore"):
                out[special] = to_float64(stored[special], dtype)
    else:
        np.copyto(out, stored, casting="same_kind")


def from_float64(values: NDArray[np.float64], dtype: str) -> NDArray[np.generic]:
    """Round float64 to a stored dtype.

    float64 -> bfloat16 through float32 rounds twice (torch does so): 1 + 2**-8 + 2**-40 becomes
    a tie in float32. Here the float32 step rounds to odd, which keeps the second one right.
    """
    import numpy as np

    if dtype != "BF16":
        with np.errstate(over="ignore"):
            return values.astype(STORAGE[dtype])
    with np.errstate(over="ignore"):
        narrow = values.astype(np.float32)
    bits = narrow.view(np.uint32)
    back = narrow.astype(np.float64)
    with np.errstate(invalid="ignore"):
        inexact = back != values
        too_far = inexact & (np.abs(back) > np.abs(values))
    bits -= too_far.astype(np.uint32)
    bits |= (inexact & ~np.isnan(values)).astype(np.uint32)
    return round_float32(narrow, dtype)


def round_float32(values: NDArray[np.float32], dtype: str) -> NDArray[np.generic]:
    """Round float32 to a stored dtype."""
    import numpy as np

    if dtype != "BF16":
        with np.errstate(over="ignore"):
            return values.astype(STORAGE[dtype])
    bits = values.view(np.uint32)
    rounded = (bits >> np.uint32(16)) & np.uint32(1)
    rounded += np.uint32(0x7FFF)
    rounded += bits
    rounded >>= np.uint32(16)
    stored = rounded.astype(np.uint16)
    nan = np.isnan(values)
    if nan.any():
        stored[nan] = np.uint16(0x7FC0)
    return stored
