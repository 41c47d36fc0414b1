"""The kernels in a page: Pyodide's ctypes links the module into Python's own memory."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import partial

import numpy as np
from numpy.typing import DTypeLike

from bascule.backend.wasm.kernels import Array, module_path
from bascule.errors import TierUnavailableError


class BrowserKernels:
    """The module in the memory that numpy uses too, so that nothing is ever copied."""

    name = "WebAssembly SIMD, 1 thread"

    def __init__(self, path: str) -> None:
        try:
            self._library = ctypes.CDLL(path)
        except OSError as error:
            told = " ".join(str(error).split())
            raise TierUnavailableError("wasm", f"the kernels do not load: {told}") from None

    def empty(self, shape: tuple[int, ...], dtype: DTypeLike = np.float32) -> Array:
        """See `Kernels.empty`."""
        return np.empty(shape, dtype)

    def bind(self, kernel: str, *arguments: Array | float | None) -> Callable[[], object]:
        """See `Kernels.bind`."""
        # Without argtypes, whole numbers go through ctypes the fastest.
        return partial(self._library[kernel], *(_plain(a) for a in arguments))

    def call(self, kernel: str, *arguments: Array | float | None) -> int:
        """See `Kernels.call`."""
        held = [np.ascontiguousarray(a) if isinstance(a, np.ndarray) else a for a in arguments]
        return self._library[kernel](*(_plain(a) for a in held))


def _plain(argument: Array | float | None) -> int | ctypes.c_float:
    if isinstance(argument, np.ndarray):
        return argument.__array_interface__["data"][0]
    return ctypes.c_float(argument) if isinstance(argument, float) else argument or 0


def open_browser() -> BrowserKernels:
    """Load the module; TierUnavailableError where the engine refuses it (no SIMD)."""
    return BrowserKernels(module_path())
