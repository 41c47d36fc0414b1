"""Kernels whose arrays are poisoned, and lie between canaries that nothing may touch."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import DTypeLike

from bascule.backend.wasm.kernels import Array, Kernels

CANARY = 0xA5
EDGE = 64  # bytes before and after


class GuardedKernels:
    """Hands out arrays of NaN (of all bits set, where there is none), and looks after them."""

    def __init__(self, kernels: Kernels) -> None:
        self.name = kernels.name
        self._kernels = kernels
        self._rooms: list[tuple[Array, int]] = []

    def empty(self, shape: tuple[int, ...], dtype: DTypeLike = np.float32) -> Array:
        kind = np.dtype(dtype)
        nbytes = int(np.prod(shape)) * kind.itemsize
        room = self._kernels.empty((nbytes + 2 * EDGE,), np.uint8)
        room[:] = CANARY
        room[EDGE : EDGE + nbytes] = 0xFF
        self._rooms.append((room, nbytes))
        return room[EDGE : EDGE + nbytes].view(kind).reshape(shape)

    def bind(self, kernel: str, *arguments: Array | float | None) -> Callable[[], object]:
        return self._kernels.bind(kernel, *arguments)

    def call(self, kernel: str, *arguments: Array | float | None) -> int:
        return self._kernels.call(kernel, *arguments)

    def check(self) -> None:
        for room, nbytes in self._rooms:
            assert (room[:EDGE] == CANARY).all(), "wrote before an array"
            assert (room[EDGE + nbytes :] == CANARY).all(), "wrote past an array"
