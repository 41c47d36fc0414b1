"""The kernels in a page: Pyodide's ctypes links the module into Python's own memory."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from functools import partial
from math import prod
from tempfile import NamedTemporaryFile
from typing import TYPE_CHECKING

from bascule.backend.wasm.kernels import Argument, module_path
from bascule.backend.wasm.tensor import ITEM_NBYTES, Tensor
from bascule.base.arrays import np
from bascule.errors import TierUnavailableError

if TYPE_CHECKING:
    from bascule.backend.deviceless import Loop
    from bascule.base.arrays import Array


class BrowserKernels:
    """`LinkedKernels` in Python's own memory, which numpy shares: nothing is copied."""

    name = "WebAssembly SIMD, 1 thread"
    loop_elements = None

    def __init__(self, path: str) -> None:
        try:
            self._library = ctypes.CDLL(path)
        except OSError as error:
            message = " ".join(str(error).split())
            raise TierUnavailableError("wasm", f"the kernels do not load: {message}") from None

    def empty(self, shape: tuple[int, ...], dtype: str = "f32") -> Tensor:
        memory = (ctypes.c_ubyte * max(1, prod(shape) * ITEM_NBYTES[dtype]))()
        return Tensor(memory, ctypes.addressof(memory), shape, dtype)

    def bind(self, kernel: str, *arguments: Argument) -> Callable[[], object]:
        # Without argtypes ctypes passes integers fastest.
        return partial(self._library[kernel], *map(_plain, arguments))

    def call(self, kernel: str, *arguments: Argument) -> int:
        held = [a if _is_plain(a) else np.ascontiguousarray(a) for a in arguments]
        return self._library[kernel](*map(_plain, held))

    def load(self, module: bytes) -> Loop:
        with NamedTemporaryFile(suffix=".wasm") as file:
            file.write(module)
            file.flush()
            run = ctypes.CDLL(file.name)["run"]

        def loop(out: Array, reads: Sequence[Array], numbers: Sequence[int]) -> None:
            addresses = [each.__array_interface__["data"][0] for each in (out, *reads)]
            words = (*numbers, *addresses)
            run((ctypes.c_uint32 * len(words))(*words))

        return loop


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
    """Load the module; TierUnavailableError if the engine rejects it (no SIMD)."""
    return BrowserKernels(module_path())
