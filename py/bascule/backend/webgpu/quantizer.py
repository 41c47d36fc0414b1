"""Quantize on the device: floats are staged in a buffer and become blocks of a weight."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from bascule.backend.base import WeightStore
from bascule.backend.quantize import ErrorSums
from bascule.backend.webgpu.gpu import Gpu, pack_writes
from bascule.backend.webgpu.link import Linked, link
from bascule.backend.webgpu.tape import TapeBuilder
from bascule.base.arrays import np
from bascule.base.dtypes import DType

if TYPE_CHECKING:
    from typing_extensions import Buffer

    from bascule.backend.arrivals import Arrivals
    from bascule.program.program import Parameter

LANES = 64
# Blocks of 18 and 34 bytes are written in pairs, so that a lane writes whole words.
_BLOCKS_A_LANE: Mapping[DType, int] = {"q4_0": 2, "q4_1": 1, "q8_0": 2, "f16": 1}
_RUN_NBYTES = 128  # 32 floats
_SUM_NBYTES = 16


PARTS: Mapping[DType, tuple[str, ...]] = {
    "q4_0": ("packed", "half_out", "half_blocks", "blocks_q4_0"),
    "q4_1": ("packed", "half_out", "blocks_q4_1"),
    "q8_0": ("packed", "half_out", "half_blocks", "blocks_q8_0"),
    "f16": ("packed", "half_out", "blocks_f16"),
}


def quantizing(dtype: DType) -> Linked:
    """Return the shader that makes blocks of that type."""
    return link("quantize", PARTS[dtype], (), "")


class GpuQuantizer:
    """See `base.Quantizer`. Nothing is awaited until the sums are read: queues keep their order."""

    def __init__(
        self,
        gpu: Gpu,
        pipelines: Mapping[DType, int],
        store: WeightStore,
        parameters: Sequence[Parameter],
        staging_nbytes: int,
        max_blocks: int,
    ) -> None:
        self._gpu = gpu
        self._pipelines = pipelines
        self._store = store
        self._parameters = {p.name: (index, p) for index, p in enumerate(parameters)}
        # Of a single call; two parts of a pair may be two calls.
        self._groups = -(-(max_blocks + 1) // LANES)
        self.arrivals: Arrivals | None = store.arrivals
        self.streaming = None
        self.targets = store.targets
        self.page_bridge: Any | None = store.page_bridge
        self._sums_nbytes = _SUM_NBYTES * self._groups * max(1, len(parameters))
        self.nbytes = staging_nbytes + self._sums_nbytes + 16
        self._owned: list[int] = []
        try:
            self.staging = self._alloc(staging_nbytes)
            self._sums = self._alloc(self._sums_nbytes)
            self._params = self._alloc(16, uniform=True)
        except Exception:
            self.close()
            raise

    @property
    def buffers(self) -> Sequence[int]:
        """The buffers that it has allocated."""
        return self._owned

    def write(self, target: int, offset: int, data: Buffer) -> None:
        """See `Quantizer.write`: both kinds of target are buffers of one device."""
        self._store.write(target, offset, data)

    def quantize(self, name: str, first: int, offset: int, count: int) -> None:
        """See `Quantizer.quantize`: one dispatch."""
        index, parameter = self._parameters[name]
        linked = quantizing(parameter.dtype)
        per_lane = _BLOCKS_A_LANE[parameter.dtype]
        lanes = (first + count - 1) // per_lane - first // per_lane + 1
        tape = TapeBuilder()
        bindings = (
            (0, self._params, 0, 16),
            (1, self.staging, offset, count * _RUN_NBYTES),
            (2, self.targets[name], 0, parameter.nbytes),
            (3, self._sums, 0, self._sums_nbytes),
        )
        pipeline = self._pipelines[parameter.dtype]
        tape.dispatch(pipeline, bindings, (-(-lanes // LANES), 1, 1))
        params = linked.pack({"first": first, "count": count, "sums": index * self._groups})
        recorded = self._gpu.record(tape.words())
        self._gpu.replay(recorded, pack_writes([(self._params, 0, params)]))
        self._gpu.forget(recorded)

    async def read(self, name: str, offset: int, into: Buffer) -> None:
        await self._gpu.read(self.targets[name], offset, into)

    async def sums(self) -> dict[str, ErrorSums]:
        result = np.empty((len(self._parameters), self._groups, 4), np.float32)
        if result.size:
            await self._gpu.read(self._sums, 0, result.data)
        with np.errstate(over="ignore", invalid="ignore"):
            added = result.astype(np.float64)[..., :3].sum(axis=1)
        maxima = result[..., 3].max(axis=1)
        return {
            name: ErrorSums(float(error), float(squares), round(float(unfit)), float(largest))
            for name, (error, squares, unfit), largest in zip(
                self._parameters, added, maxima, strict=True
            )
        }

    def close(self) -> None:
        while self._owned:
            buffer = self._owned.pop()
            if not self._gpu.lost:
                self._gpu.free(buffer)

    def _alloc(self, nbytes: int, *, uniform: bool = False) -> int:
        self._owned.append(self._gpu.alloc(nbytes, uniform=uniform))
        return self._owned[-1]
