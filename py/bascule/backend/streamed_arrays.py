"""Streamed weights as numpy arrays: one stage at a time."""

from __future__ import annotations

from collections.abc import Sequence

from bascule.backend.host_arrays import ReferenceStore, memory_errors
from bascule.backend.memory import MemoryCount
from bascule.backend.streaming import Streaming
from bascule.base.arrays import Array, Buffer, np
from bascule.base.dtypes import BlockType
from bascule.program.blocks import BlockMatrix
from bascule.program.program import Parameter
from bascule.program.stages import Stage


class StreamedReferenceStore(ReferenceStore):
    """See `Backend.streamed_store`: the current stage is target 0, then computed parameters."""

    def __init__(
        self, parameters: Sequence[Parameter], slot_nbytes: int, count: MemoryCount
    ) -> None:
        computed = [p for p in parameters if p.computed is not None]
        super().__init__(computed, count)
        self._resident_nbytes = self.nbytes
        self.nbytes = sum(p.nbytes for p in parameters)
        self._streaming = Streaming(parameters, slot_nbytes)
        self._parameters = {p.name: p for p in parameters if p.computed is None}
        self._slot = np.empty(0, np.uint8)
        self.targets = {name: 1 + at for name, at in self.targets.items()}
        self.targets |= dict.fromkeys(self._parameters, 0)

    @property
    def streaming(self) -> Streaming:
        return self._streaming

    async def read(self, stage: Stage) -> dict[str, Array | BlockMatrix]:
        """Read the parameters of a stage into new memory, freeing those of the stage before.

        Errors as `streaming.ReadStage`.
        """
        self.drop()
        ends = [offset + self._parameters[name].nbytes for name, offset in stage.offsets.items()]
        nbytes = max(ends, default=0)
        self._count.claim("a stage of weights", nbytes)
        with memory_errors("a stage of weights", nbytes):
            self._slot = np.empty(nbytes, np.uint8)
        self._count.add("weights", nbytes)
        await self.streaming.read(stage, 0)
        return {name: self._array(name, offset) for name, offset in stage.offsets.items()}

    def drop(self) -> None:
        """Free the current stage."""
        self._count.add("weights", -self._slot.nbytes)
        self._slot = np.empty(0, np.uint8)

    def write(self, target: int, offset: int, data: Buffer) -> None:
        if target:
            super().write(target - 1, offset, data)
        else:
            view = memoryview(data).cast("B")
            memoryview(self._slot)[offset : offset + view.nbytes] = view

    def close(self) -> None:
        self.drop()
        self._count.add("weights", -self._resident_nbytes)
        self._resident_nbytes = 0
        self._views.clear()
        self.arrays.clear()

    def _array(self, name: str, offset: int) -> Array | BlockMatrix:
        parameter = self._parameters[name]
        room = self._slot[offset : offset + parameter.nbytes]
        if parameter.dtype == "f32":
            return room.view(np.float32).reshape(parameter.shape)
        rows, inner = parameter.shape
        return BlockMatrix(BlockType[parameter.dtype.upper()], (rows, inner), room)
