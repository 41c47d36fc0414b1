"""The storage of numbers on a GPU: one 32-bit word per element, whatever the dtype.

WGSL has no 8-bit and 16-bit storage. A word per element costs memory, and lets every view start at
any element and every lane write independently. bool is 0 or 1, small integers are widened, float16
is the same number as float32.
"""

from __future__ import annotations

from typing import Any

from bascule.array.dtypes import DType
from bascule.base.arrays import np


def to_words(numbers: Any) -> Any:
    """Return a dense uint32 array with the words of these numbers, of the same shape."""
    kind = numbers.dtype.kind
    if kind == "f":
        return np.ascontiguousarray(numbers, np.float32).view(np.uint32)
    if kind == "i":
        return np.ascontiguousarray(numbers, np.int32).view(np.uint32)
    return np.ascontiguousarray(numbers, np.uint32)


def from_words(words: Any, dtype: DType) -> Any:
    """Return the numbers of that dtype in a uint32 array; for 32-bit dtypes a view."""
    if dtype.kind == "f":
        return words.view(np.float32).astype(dtype, copy=False)
    if dtype.kind == "i":
        return words.view(np.int32).astype(dtype, copy=False)
    return words.astype(dtype, copy=False)
