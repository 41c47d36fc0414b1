"""The kernels in a page: Pyodide's ctypes links the module into Python's own memory."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import partial
from math import prod

from bascule.backend.wasm.kernels import Argument, module_path
from bascule.backend.wasm.tensor import ITEM_NBYTES, Tensor
from bascule.base.arrays import np
from bascule.errors import TierUnavailableError


class BrowserKernels:
    """The module in Python's own memory, which numpy uses too: nothing is ever copied."""

    name = "WebAssembly SIMD, 1 thread"

    def __init__(self, path: str) -> None:
        try:
            self._library = ctypes.CDLL(path)
        except OSError as error:
            message = " ".join(str(error).split())
            raise TierUnavailableError("wasm", f"the kernels do not load: {message}") from None

    def empty(self, shape: tuple[int, ...], dtype: str = "f32") -> Tensor:
        """See `Kernels.empty`."""
        memory = (ctypes.c_ubyte * max(1, prod(shape) * ITEM_NBYTES[dtype]))()
        return Tensor(memory, ctypes.addressof(memory), shape, dtype)

    def bind(self, kernel: str, *arguments: Argument) -> Callable[[], object]:
        """See `Kernels.bind`."""
        # Without argtypes, integers go through ctypes the fastest.
        return partial(self._library[kernel], *map(_plain, arguments))

    def call(self, kernel: str, *arguments: Argument) -> int:
        """See `Kernels.call`."""
        held = [a if _is_plain(a) else np.ascontiguousarray(a) for a in arguments]
        return self._library[kernel](*map(_plain, held))


def _is_plain(argument: Argument) -> bool:
    return argument is None or isinstance(argument, int | float | Tensor)


def _plain(argument: Argument) -> int | ctypes.c_float:
    if isinstance(argument, Tensor):
        return argument.address
    if isinstance(argument, float):
        return ctypes.c_float(argument)
    if argument is None or isinstance(argument, int):
        return argument or 0
    return argument.__array_interface__["data"][0]


def open_browser() -> BrowserKernels:
    """Load the module; TierUnavailableError where the engine refuses it (no SIMD)."""
    return BrowserKernels(module_path())
