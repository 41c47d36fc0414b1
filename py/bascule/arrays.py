"""numpy, imported on first use: starting, loading and running a model in a page do without it."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import ArrayLike, DTypeLike, NDArray

    Array = np.ndarray[Any, np.dtype[Any]]
    Bytes = NDArray[np.uint8]
    Floats = NDArray[np.float32]
else:
    Array = ArrayLike = Bytes = DTypeLike = Floats = Any
    NDArray = list  # subscripted in annotations and aliases only

    class _OnFirstUse:
        """A module that is imported when one of its names is first looked up."""

        def __getattr__(self, name: str) -> Any:
            value = getattr(importlib.import_module("numpy"), name)
            setattr(self, name, value)  # the next look-up is a plain attribute
            return value

    np = _OnFirstUse()

__all__ = ["NUMPY", "Array", "ArrayLike", "Bytes", "DTypeLike", "Floats", "NDArray", "np"]

# numpy's names of a value's dtypes.
NUMPY = {"f32": "float32", "u32": "uint32", "f16": "float16"}
