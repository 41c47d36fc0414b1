"""The module of WebAssembly kernels, as the tier sees it; its C sources are in web/wasm/."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
from numpy.typing import DTypeLike

from bascule import assets

Array = np.ndarray[Any, np.dtype[Any]]

ALIGNMENT = 16


class Kernels(Protocol):
    """A loaded module, and memory that it can reach."""

    @property
    def name(self) -> str:
        """What runs it, for people."""
        ...

    def empty(self, shape: tuple[int, ...], dtype: DTypeLike = np.float32) -> Array:
        """A new array, filled with anything, that kernels may write."""
        ...

    def bind(self, kernel: str, *arguments: Array | float | None) -> Callable[[], object]:
        """A call to be made any number of times, its arguments looked at now.

        Every array must be dense and come out of `empty`, and whoever holds the result holds them.
        """
        ...

    def call(self, kernel: str, *arguments: Array | float | None) -> int:
        """Call a kernel: arrays go as addresses, None as a null pointer, numbers as they are.

        An array that the kernel writes must be dense and come out of `empty`; others may lie
        anywhere. Gives what the kernel returns, 0 where that is nothing.
        """
        ...


def module_path() -> str:
    """Where the built module lies."""
    return str(assets.path("web/wasm/kernels.wasm"))
