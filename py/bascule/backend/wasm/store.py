"""Weights and states in the kernels' memory."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping, Sequence
from math import prod
from typing import TYPE_CHECKING

from bascule.backend.host_arrays import memory_errors
from bascule.backend.memory import MemoryCount
from bascule.backend.streaming import Streaming
from bascule.backend.wasm.kernels import Kernels
from bascule.backend.wasm.tensor import Blocks, Tensor
from bascule.base.dtypes import BlockType, nbytes_of

if TYPE_CHECKING:
    from typing_extensions import Buffer

    from bascule.backend.arrivals import Arrivals
    from bascule.backend.memory import MemoryKind
    from bascule.program.program import Parameter, Value
    from bascule.program.stages import Stage


class WasmStore:
    """A `WeightStore` of float32 tensors, or of a file's blocks for block dtypes."""

    page_bridge = None
    arrivals: Arrivals | None = None

    def __init__(
        self,
        parameters: Sequence[Parameter],
        kernels: Kernels,
        count: MemoryCount | None = None,
    ) -> None:
        self._count = count or MemoryCount()
        self.targets = {p.name: index for index, p in enumerate(parameters)}
        self.nbytes = sum(p.nbytes for p in parameters)
        self._held = self.nbytes
        self._count.claim("a model's weights", self._held)
        with memory_errors("a model's weights", self._held):
            self.tensors = {p.name: _allocate(p, kernels) for p in parameters}
        self._count.add("weights", self._held)
        self._memory = [
            tensor.data if isinstance(tensor, Blocks) else tensor
            for tensor in self.tensors.values()
        ]

    @property
    def streaming(self) -> Streaming | None:
        return None

    def write(self, target: int, offset: int, data: Buffer) -> None:
        self._memory[target].write(data, offset)

    def close(self) -> None:
        if self._memory:
            self._count.add("weights", -self._held)
        self._memory.clear()
        self.tensors.clear()


class StreamedWasmStore(WasmStore):
    """See `Backend.streamed_store`: one slot, and the computed parameters with targets above 0.

    Computed parameters are in `tensors`.
    """

    def __init__(
        self,
        parameters: Sequence[Parameter],
        slot_nbytes: int,
        kernels: Kernels,
        count: MemoryCount,
    ) -> None:
        super().__init__([p for p in parameters if p.computed is not None], kernels, count)
        self._streaming = Streaming(parameters, slot_nbytes)
        self._streamed = {p.name: p for p in parameters if p.computed is None}
        self.targets = {name: 1 + at for name, at in self.targets.items()}
        self.targets |= dict.fromkeys(self._streamed, 0)
        self.nbytes = sum(p.nbytes for p in parameters)
        count.claim("a stage of weights", slot_nbytes)
        with memory_errors("a stage of weights", slot_nbytes):
            self._slot = kernels.empty((slot_nbytes,), "u8")
        count.add("weights", slot_nbytes)
        self._held += slot_nbytes
        self._memory.insert(0, self._slot)

    @property
    def streaming(self) -> Streaming:
        return self._streaming

    def tensors_of(self, stage: Stage) -> dict[str, Tensor | Blocks]:
        """Return the parameters of the current stage."""
        return {name: self._tensor(name, offset) for name, offset in stage.offsets.items()}

    def _tensor(self, name: str, offset: int) -> Tensor | Blocks:
        parameter = self._streamed[name]
        room = (ctypes.c_ubyte * parameter.nbytes).from_buffer(self._slot.memory, offset)
        at = self._slot.address + offset
        if parameter.dtype == "f32":
            return Tensor(room, at, parameter.shape, "f32")
        rows, columns = parameter.shape
        data = Tensor(room, at, (parameter.nbytes,), "u8")
        return Blocks(BlockType[parameter.dtype.upper()], (rows, columns), data)


class WasmStates:
    """A `StateStore` of tensors; initially zero."""

    def __init__(
        self,
        values: Sequence[Value],
        sizes: Mapping[str, int],
        kernels: Kernels,
        count: MemoryCount | None = None,
        kind: MemoryKind = "states",
    ) -> None:
        self._values = values
        self._kernels = kernels
        self._count = count or MemoryCount()
        self._kind: MemoryKind = kind
        self.tensors = {v.name: self._zeros(v, sizes) for v in values}
        self._count.claim("a model's states", self.nbytes)
        self._count.add(kind, self.nbytes)

    @property
    def nbytes(self) -> int:
        return sum(tensor.nbytes for tensor in self.tensors.values())

    def write(self, name: str, offset: int, data: Buffer) -> None:
        self.tensors[name].write(data, offset)

    async def read(self, name: str, offset: int, into: Buffer) -> None:
        view = memoryview(into).cast("B")
        view[:] = self.tensors[name].bytes()[offset : offset + view.nbytes]

    async def resize(self, sizes: Mapping[str, int]) -> None:
        for value in self._values:
            old, new = self.tensors[value.name], self._zeros(value, sizes)
            self._count.claim(f"the state {value.name}", new.nbytes - old.nbytes)
            new.write(old.bytes()[: min(old.nbytes, new.nbytes)])
            self.tensors[value.name] = new
            self._count.add(self._kind, new.nbytes - old.nbytes)

    def close(self) -> None:
        self._count.add(self._kind, -self.nbytes)
        self.tensors.clear()

    def _zeros(self, value: Value, sizes: Mapping[str, int]) -> Tensor:
        shape = value.sizes(sizes)
        nbytes = nbytes_of(value.dtype, prod(shape))
        with memory_errors(f"the state {value.name}", nbytes):
            tensor = self._kernels.empty(shape, value.dtype)
            tensor.write(bytes(tensor.nbytes))
        return tensor


def _allocate(parameter: Parameter, kernels: Kernels) -> Tensor | Blocks:
    if parameter.dtype == "f32":
        return kernels.empty(parameter.shape)
    # Programs take blocks only as matrices (`Parameter.dtype`).
    rows, columns = parameter.shape
    data = kernels.empty((parameter.nbytes,), "u8")
    return Blocks(BlockType[parameter.dtype.upper()], (rows, columns), data)
