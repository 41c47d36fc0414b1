"""The CPU tier: programs run call by call in numpy, natively and in the page."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from time import perf_counter

from bascule.backend.base import Executable, Inputs, checked_input
from bascule.backend.host_arrays import (
    HostArrayBackend,
    ReferenceStates,
    ReferenceStore,
    memory_errors,
    written,
)
from bascule.backend.profile import OpTimes
from bascule.backend.reference import FUNCTIONS, evaluate
from bascule.backend.streamed_arrays import StreamedReferenceStore
from bascule.backend.tiers import Tier
from bascule.base.arrays import NUMPY, Array, Buffer, np, numpy_ready
from bascule.errors import TierUnavailableError
from bascule.program.blocks import BlockMatrix
from bascule.program.program import Call, Parameter, Program, Sizes

Values = Mapping[str, Array | BlockMatrix]


class ReferenceExecutable:
    """An `Executable` that runs a program call by call; a value is freed after its last use."""

    def __init__(
        self,
        program: Program,
        weights: ReferenceStore,
        states: ReferenceStates | None,
        op_times: OpTimes,
    ) -> None:
        self._program = program
        self._weights = weights
        self._states = states
        self._op_times = op_times
        self.host_s = 0.0
        self._dead = last_uses(program)

    async def run(
        self, sizes: Sizes, inputs: Inputs, into: Sequence[Buffer] | None = None
    ) -> dict[str, Array]:
        started = perf_counter()
        values: dict[str, Array | BlockMatrix] = dict(self._weights.arrays)
        if self._states is not None:
            values |= self._states.arrays
        for value in self._program.inputs:
            array = checked_input(value, sizes, inputs)
            values[value.name] = np.ascontiguousarray(array, NUMPY[value.dtype])
        if self._op_times.spans is not None:
            self._op_times.n_runs += 1
        for index, (call, dead) in enumerate(zip(self._program.calls, self._dead, strict=True)):
            await self._read_weights(index, values)
            with memory_errors("intermediate values"):
                call_started = perf_counter()
                values[call.result.name] = self._evaluate(call, values, sizes)
                self._op_times.note(call.op, call_started)
            for name in dead:
                del values[name]
            # The tier never waits for a device: yield to other tasks between calls.
            await asyncio.sleep(0)
        self.host_s += perf_counter() - started
        results = {
            v.name: np.asarray(values[v.name], NUMPY[v.dtype]).reshape(v.sizes(sizes))
            for v in self._program.outputs
        }
        return results if into is None else written(results, into)

    def _evaluate(self, call: Call, values: Values, sizes: Sizes) -> Array:
        """Return the result of a call."""
        return evaluate(FUNCTIONS, call, values, sizes)

    async def _read_weights(self, index: int, values: dict[str, Array | BlockMatrix]) -> None:
        """Wait until `values` has the weights of the call with that index."""
        del values
        if self._weights.arrivals is not None:
            names = {o.name for o in self._program.calls[index].operands if o is not None}
            await self._weights.arrivals.wait(names & self._weights.arrays.keys())

    def queued(self, sizes: Sizes, inputs: Inputs) -> None:
        """See `Executable.queued`: this tier has no queue."""

    async def submit(self, sizes: Sizes, inputs: Inputs, times: int = 1) -> None:
        for _ in range(times):
            await self.run(sizes, inputs)

    def close(self) -> None:
        """See `Executable.close`."""


class StreamedExecutable(ReferenceExecutable):
    """A program whose weights are read for each run, stage by stage.

    Concurrent runs on one store take turns.
    """

    def __init__(
        self,
        program: Program,
        weights: StreamedReferenceStore,
        states: ReferenceStates | None,
        op_times: OpTimes,
    ) -> None:
        super().__init__(program, weights, states, op_times)
        self._store = weights
        self._stages = {stage.first: stage for stage in weights.streaming.stages(program)}

    async def run(
        self, sizes: Sizes, inputs: Inputs, into: Sequence[Buffer] | None = None
    ) -> dict[str, Array]:
        async with self._store.streaming.turn.turn():
            if self._store.arrivals is not None:
                await self._store.arrivals.wait(self._store.targets)
            try:
                return await super().run(sizes, inputs, into)
            finally:
                self._store.drop()

    async def _read_weights(self, index: int, values: dict[str, Array | BlockMatrix]) -> None:
        if (stage := self._stages.get(index)) is not None:
            for name in values.keys() & self._store.streaming.names:
                del values[name]
            values |= await self._store.read(stage)


class ReferenceBackend(HostArrayBackend):
    """The CPU tier: numpy, natively and in the page."""

    tier: Tier = "cpu"

    def __init__(self) -> None:
        super().__init__(f"numpy {np.__version__}")

    def _executable(
        self, program: Program, weights: ReferenceStore, states: ReferenceStates | None
    ) -> Executable:
        if isinstance(weights, StreamedReferenceStore):
            return StreamedExecutable(program, weights, states, self.op_times)
        return ReferenceExecutable(program, weights, states, self.op_times)

    def streamed_store(
        self, parameters: Sequence[Parameter], slot_nbytes: int
    ) -> StreamedReferenceStore:
        """See `Backend.streamed_store`: one stage at a time."""
        return StreamedReferenceStore(parameters, slot_nbytes, self.count)


async def open_backend(tier: Tier, *, remember: bool, early: bool) -> ReferenceBackend:
    """See `TierInfo.open`."""
    del remember, early
    if not await numpy_ready():
        raise TierUnavailableError(tier, "numpy is not installed")
    return ReferenceBackend()


def last_uses(program: Program) -> list[list[str]]:
    """Return for each call the values that nothing reads after it; outputs are read at the end."""
    last: dict[str, int] = {}
    for index, call in enumerate(program.calls):
        last |= {o.name: index for o in call.operands if o is not None}
    lasting = {v.name for v in (*program.outputs, *program.states, *program.parameters)}
    dead: list[list[str]] = [[] for _ in program.calls]
    for name, index in last.items():
        if name not in lasting:
            dead[index].append(name)
    return dead
