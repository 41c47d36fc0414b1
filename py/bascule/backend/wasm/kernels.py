"""The module of WebAssembly kernels, as the tier sees it; its C sources are in web/wasm/."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from bascule.backend.deviceless import Loop
from bascule.backend.wasm.tensor import Tensor
from bascule.base import assets
from bascule.base.arrays import Array

ALIGNMENT = 16
Argument = Tensor | Array | float | None


class Kernels(Protocol):
    """A loaded module, and memory that it can reach."""

    @property
    def name(self) -> str:
        """What runs it, for people."""
        ...

    def empty(self, shape: tuple[int, ...], dtype: str = "f32") -> Tensor:
        """A new tensor, its contents arbitrary. MemoryError where there is no room for it."""
        ...

    def bind(self, kernel: str, *arguments: Argument) -> Callable[[], object]:
        """A call that can be repeated, its arguments checked now.

        Arrays must be tensors; the result references them.
        """
        ...

    def call(self, kernel: str, *arguments: Argument) -> int:
        """Call a kernel: arrays go as addresses, None as a null pointer, numbers as they are.

        What the kernel writes must be a tensor; numpy arrays that it reads may lie anywhere.
        Gives what the kernel returns, 0 where that is nothing.
        """
        ...


class LinkedKernels(Kernels, Protocol):
    """Kernels whose memory other modules can be linked with."""

    @property
    def loop_elements(self) -> int | None:
        """See `Deviceless.loop_elements`."""
        ...

    def load(self, module: bytes) -> Loop:
        """The function `run` of a generated module, which imports this memory."""
        ...


def module_path() -> str:
    """Where the built module lies."""
    return str(assets.path("web/wasm/kernels.wasm"))
