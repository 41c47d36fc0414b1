"""numpy, imported on first use: starting, loading and running a model in a page work without it."""

from __future__ import annotations

import importlib
import sys
from math import isfinite
from typing import TYPE_CHECKING, Any

from bascule.errors import SetupError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import ArrayLike, DTypeLike, NDArray
    from typing_extensions import Buffer as Buffer

    Array = np.ndarray[Any, np.dtype[Any]]
    Bytes = NDArray[np.uint8]
    Floats = NDArray[np.float32]
else:
    Array = ArrayLike = Buffer = Bytes = DTypeLike = Floats = Any
    NDArray = list  # subscripted in annotations and aliases only

    class _OnFirstUse:
        """A module that is imported when one of its names is first used."""

        def __getattr__(self, name: str) -> Any:
            value = getattr(importlib.import_module("numpy"), name)
            setattr(self, name, value)  # the next look-up is a plain attribute
            return value

    np = _OnFirstUse()

__all__ = [
    "NUMPY",
    "Array",
    "ArrayLike",
    "Buffer",
    "Bytes",
    "DTypeLike",
    "Floats",
    "NDArray",
    "all_finite",
    "need_numpy",
    "np",
    "numpy_ready",
]

# numpy's names of a value's dtype.
NUMPY = {"f32": "float32", "u32": "uint32", "i32": "int32", "f16": "float16"}


async def numpy_ready() -> bool:
    """Whether numpy can be imported; in a page it has to be fetched first."""
    if sys.platform == "emscripten" and "numpy" not in sys.modules:
        # Checked first: a numpy whose installation was cancelled or still runs is incomplete.
        from bascule.base.arrays_browser import fetch_numpy

        await fetch_numpy()
    return _has_numpy()


async def need_numpy(what: str, hint: str) -> None:
    """SetupError, naming what needs numpy, if it is not available."""
    if not await numpy_ready():
        raise SetupError(f"{what} needs numpy, and this Python has none.", hint=hint)


def _has_numpy() -> bool:
    try:
        importlib.import_module("numpy")
    except ImportError:
        return False
    return True


def all_finite(numbers: memoryview[float]) -> bool:
    """Whether all floats of a flat memoryview are finite; uses numpy if it is loaded."""
    if "numpy" in sys.modules:
        return bool(np.isfinite(np.asarray(numbers)).all())
    return all(map(isfinite, numbers))
