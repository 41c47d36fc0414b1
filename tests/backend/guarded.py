"""Kernels whose arrays are poisoned, and lie between canaries that nothing may touch."""

from __future__ import annotations

from collections.abc import Callable
from math import prod

import numpy as np

from bascule.backend.wasm.functions import WasmFunctions
from bascule.backend.wasm.kernels import Argument, Kernels
from bascule.backend.wasm.tensor import ITEM_NBYTES, Tensor

CANARY = 0xA5
EDGE = 64  # bytes before and after


class NumpyOps:
    """The tier's functions with numpy arrays as results."""

    def __init__(self, functions: WasmFunctions) -> None:
        self._functions = functions.table()

    def __getattr__(self, op: str) -> Callable[..., np.ndarray]:
        return lambda *operands, **attributes: np.asarray(
            self._functions[op](*operands, **attributes)
        )


class GuardedKernels:
    """Hands out tensors of NaN (of all bits set, where there is none), and looks after them."""

    def __init__(self, kernels: Kernels) -> None:
        self.name = kernels.name
        self._kernels = kernels
        self._rooms: list[tuple[np.ndarray, int]] = []

    def empty(self, shape: tuple[int, ...], dtype: str = "f32") -> Tensor:
        nbytes = prod(shape) * ITEM_NBYTES[dtype]
        room = self._kernels.empty((nbytes + 2 * EDGE,), "u8")
        view = np.asarray(room)
        view[:] = CANARY
        view[EDGE : EDGE + nbytes] = 0xFF
        self._rooms.append((view, nbytes))
        inside = memoryview(room.memory)[EDGE:]
        return Tensor(inside, room.address + EDGE, shape, dtype)

    def bind(self, kernel: str, *arguments: Argument) -> Callable[[], object]:
        return self._kernels.bind(kernel, *arguments)

    def call(self, kernel: str, *arguments: Argument) -> int:
        return self._kernels.call(kernel, *arguments)

    def check(self) -> None:
        for room, nbytes in self._rooms:
            assert (room[:EDGE] == CANARY).all(), "wrote before an array"
            assert (room[EDGE + nbytes :] == CANARY).all(), "wrote past an array"
