"""Streamed weights on a device: a pass runs stage by stage, each stage's weights read before it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from bascule.backend.base import Shaped, WeightStore
from bascule.backend.streaming import Streaming
from bascule.backend.tracing import Tracer
from bascule.backend.webgpu.gpu import Gpu, pack_writes
from bascule.backend.webgpu.kernel import Kernel
from bascule.backend.webgpu.lowering import TapeExecutable, recorded
from bascule.backend.webgpu.pipelines import Pipelines
from bascule.backend.webgpu.states import GpuStates
from bascule.base.arrays import Array
from bascule.errors import InputError
from bascule.program.program import Program, Sizes, Value

if TYPE_CHECKING:
    from typing_extensions import Buffer

    from bascule.backend.arrivals import Arrivals
    from bascule.program.program import Parameter

# One slot is filled while the device reads the other.
N_SLOTS = 2


class StreamedStore:
    """A `WeightStore` whose stages use the slots, which are buffers, in turn."""

    def __init__(self, gpu: Gpu, parameters: Sequence[Parameter], slot_nbytes: int) -> None:
        self._gpu = gpu
        self.page_bridge: Any | None = getattr(gpu, "bridge", None)
        self.streaming = Streaming(parameters, slot_nbytes)
        self.arrivals: Arrivals | None = None
        self.nbytes = sum(p.nbytes for p in parameters)
        self.slots: list[int] = []
        self.resident: dict[str, int] = {}
        try:
            for _ in range(N_SLOTS):
                self.slots.append(gpu.alloc(slot_nbytes, kind="weights"))
            for parameter in parameters:
                if parameter.computed is not None:
                    self.resident[parameter.name] = gpu.alloc(parameter.nbytes, kind="weights")
        except Exception:
            self.close()
            raise

    @property
    def targets(self) -> Mapping[str, int]:
        """See `WeightStore.targets`; streamed parameters have the first slot, for planning only."""
        return dict.fromkeys(self.streaming.names, self.slots[0]) | self.resident

    def write(self, target: int, offset: int, data: Buffer) -> None:
        self._gpu.write(target, offset, data)

    def close(self) -> None:
        for buffer in (*self.slots, *self.resident.values()):
            if not self._gpu.lost:
                self._gpu.free(buffer)
        self.slots.clear()
        self.resident.clear()


async def lower_streamed(
    gpu: Gpu,
    pipelines: Pipelines,
    program: Program,
    weights: StreamedStore,
    states: GpuStates | None,
) -> StreamedExecutable:
    """As `lower`, for streamed weights; LimitError if a call reads more than a slot holds."""
    kernels = await pipelines.kernels_for(program.calls)
    executable = StreamedExecutable(gpu, pipelines, program, kernels, weights, states)
    executable.traceable = True
    return await recorded(executable)


class StreamedExecutable(TapeExecutable):
    """A program whose weights are read for each run: one replay per stage.

    Concurrent runs on one store take turns.
    """

    def __init__(
        self,
        gpu: Gpu,
        pipelines: Pipelines,
        program: Program,
        kernels: Sequence[Kernel],
        weights: StreamedStore,
        states: GpuStates | None,
    ) -> None:
        self._store = weights
        self._parts = weights.streaming.stages(program)
        self._streamed: dict[str, tuple[int, int]] = {}  # slot and offset, of the stage at hand
        super().__init__(gpu, pipelines, program, kernels, weights, states)

    async def record(self) -> None:
        """Record the tapes of the stages, once all buffers exist."""
        await self._gpu.granted({self._params, *self._store.slots, *self._buffers.values()})
        self._staged_tapes()

    def _must_wait(self) -> bool:
        return True

    async def _run_staged(
        self, sizes: Sizes, inputs: Mapping[str, Shaped], into: Sequence[Buffer] | None
    ) -> dict[str, Array]:
        async with self._store.streaming.turn.turn():
            await self._until_cached(self._store)
            self._renew()
            writes, params = self._writes(sizes, inputs)
            packed = pack_writes(writes)
            tapes = self._staged_tapes()
            running: list[asyncio.Future[None]] = []
            try:
                for index, (stage, (_, tape)) in enumerate(zip(self._parts, tapes, strict=True)):
                    slot = self._store.slots[index % N_SLOTS]
                    if len(running) == N_SLOTS:
                        await running.pop(0)
                    await self._store.streaming.read(stage, slot)
                    self._gpu.replay(tape, packed)
                    self._current_params, packed = params, bytearray()
                    # Waited for above, so that no third stage is in flight.
                    running.append(asyncio.ensure_future(self._gpu.done()))
                results, reads = self._read(sizes, into)
            finally:
                await asyncio.gather(*running, return_exceptions=True)
        for read in reads:
            await read
        return results

    async def _until_cached(self, weights: WeightStore) -> None:
        if weights.arrivals is not None:
            await weights.arrivals.wait(weights.targets)

    async def _run_traced(
        self,
        tracer: Tracer,
        sizes: Sizes,
        inputs: Mapping[str, Shaped],
        into: Sequence[Buffer] | None,
    ) -> dict[str, Array]:
        raise InputError("trace", "weights that stay on the device", "streamed ones")

    def _staged_tapes(self) -> list[tuple[frozenset[str], int]]:
        if not self._stages:
            for index, stage in enumerate(self._parts):
                slot = self._store.slots[index % N_SLOTS]
                self._streamed = {name: (slot, offset) for name, offset in stage.offsets.items()}
                tape = self._gpu.record(self._build(range(stage.first, stage.end)))
                self._stages.append((frozenset(stage.offsets), tape))
        return self._stages

    def _place_of(self, value: Value) -> tuple[int, int]:
        return self._streamed.get(value.name) or super()._place_of(value)
