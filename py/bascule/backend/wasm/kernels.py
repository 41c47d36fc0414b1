"""The module of WebAssembly kernels; its C sources are in web/wasm/."""

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
    """A loaded module, and memory that it can access."""

    @property
    def name(self) -> str:
        """The runtime's name, for people."""
        ...

    def empty(self, shape: tuple[int, ...], dtype: str = "f32") -> Tensor:
        """Return a new tensor with arbitrary contents. MemoryError if memory is short."""
        ...

    def bind(self, kernel: str, *arguments: Argument) -> Callable[[], object]:
        """Return a repeatable call whose arguments are checked now.

        Arrays must be tensors; the result references them.
        """
        ...

    def call(self, kernel: str, *arguments: Argument) -> int:
        """Call a kernel: arrays are passed as addresses, None as a null pointer, numbers by value.

        What the kernel writes must be a tensor; numpy arrays that it reads may be anywhere. Returns
        the kernel's result, 0 if it has none.
        """
        ...


class LinkedKernels(Kernels, Protocol):
    """Kernels whose memory other modules can be linked with."""

    @property
    def loop_elements(self) -> int | None:
        """See `Deviceless.loop_elements`."""
        ...

    def load(self, module: bytes) -> Loop:
        """Return the function `run` of a generated module that imports this memory."""
        ...


def module_path() -> str:
    """Return the path of the built module."""
    return str(assets.path("web/wasm/kernels.wasm"))
