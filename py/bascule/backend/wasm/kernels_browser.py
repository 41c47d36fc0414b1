"""The kernels in a page: Pyodide's ctypes links the module into Python's own memory."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from bascule.backend.wasm.kernels import Array, module_path
from bascule.errors import TierUnavailableError


class BrowserKernels:
    """The module in the memory that numpy uses too, so that nothing is ever copied."""

    name = "WebAssembly SIMD, 1 thread"

    def __init__(self, path: str) -> None:
        try:
            self._library: Any = ctypes.CDLL(path)
        except OSError as error:
            raise TierUnavailableError("wasm", f"the kernels do not load: {error}") from None

    def empty(self, shape: tuple[int, ...], dtype: DTypeLike = np.float32) -> Array:
        """See `Kernels.empty`."""
        return np.empty(shape, dtype)

    def call(self, kernel: str, *arguments: Array | float | None) -> int:
        """See `Kernels.call`."""
        held = [np.ascontiguousarray(a) if isinstance(a, np.ndarray) else a for a in arguments]
        # By attribute: ctypes then looks the function up once.
        return getattr(self._library, kernel)(*map(_plain, held))


def _plain(argument: Array | float | None) -> int | ctypes.c_float:
    if isinstance(argument, np.ndarray):
        return argument.__array_interface__["data"][0]
    return ctypes.c_float(argument) if isinstance(argument, float) else argument or 0


def open_browser() -> BrowserKernels:
    """Load the module; TierUnavailableError where the engine refuses it (no SIMD)."""
    return BrowserKernels(module_path())
