"""Lower a program to kernels, buffers and one tape on a device."""

from __future__ import annotations

from collections.abc import Awaitable, Mapping, Sequence
from time import perf_counter
from typing import TYPE_CHECKING, Any, TypeVar

from bascule.backend.base import Shaped, WeightStore, input_bytes
from bascule.backend.tracing import Tracer
from bascule.backend.webgpu.gpu import Gpu, pack_writes
from bascule.backend.webgpu.kernel import Kernel
from bascule.backend.webgpu.pipelines import Pipelines
from bascule.backend.webgpu.states import GpuStates
from bascule.backend.webgpu.tape import Binding, TapeBuilder
from bascule.backend.webgpu.traced import TracedPass
from bascule.base.arrays import NUMPY, Array, np
from bascule.base.turns import CrossLoopLock
from bascule.errors import GpuError, InputError
from bascule.program.program import Program, Sizes, Value

if TYPE_CHECKING:
    from typing_extensions import Buffer

_KEPT_PARAMS = 64

Executable = TypeVar("Executable", bound="TapeExecutable")


def held_nbytes(gpu: Gpu, program: Program) -> int:
    """Return the bytes that `TapeExecutable` allocates for a program."""
    sizes = [_stride(gpu) * len(program.calls), *program.slot_nbytes]
    sizes += [value.nbytes for value in program.inputs]
    return sum(max(4, (nbytes + 3) & ~3) for nbytes in sizes)


async def _finished(
    results: dict[str, Array], reads: Sequence[Awaitable[None]]
) -> dict[str, Array]:
    for read in reads:
        await read
    return results


def _stride(gpu: Gpu) -> int:
    """Return the bytes from one kernel's parameters to the next one's."""
    return max(256, gpu.adapter.limits["minUniformBufferOffsetAlignment"])


async def lower(
    gpu: Gpu,
    pipelines: Pipelines,
    program: Program,
    weights: WeightStore,
    states: GpuStates | None = None,
) -> TapeExecutable:
    """Choose kernels, compile what is missing, allocate buffers and record the tape.

    GpuOutOfMemoryError if the device has no memory for one of them, or for a weight.
    """
    kernels = await pipelines.kernels_for(program.calls)
    executable = TapeExecutable(gpu, pipelines, program, kernels, weights, states)
    executable.traceable = True
    return await recorded(executable)


async def recorded(executable: Executable) -> Executable:
    """Record its tape and return it; without memory for it close it, with errors as `lower`."""
    try:
        await executable.record()
    except BaseException:
        executable.close()
        raise
    return executable


class TapeExecutable:
    """An `Executable` on a device: one replay per run, for any actual sizes.

    A tracer sees the passes of `traceable` ones: not the trials of kernels.
    """

    traceable = False

    def __init__(
        self,
        gpu: Gpu,
        pipelines: Pipelines,
        program: Program,
        kernels: Sequence[Kernel],
        weights: WeightStore,
        states: GpuStates | None = None,
    ) -> None:
        self._gpu = gpu
        self._pipelines = pipelines
        self._weights = weights
        self._states = states
        self._generation = states.generation if states else 0
        self._program = program
        self._kernels = kernels
        self._owned: list[int] = []
        self._stride = _stride(gpu)
        self._kept_params: dict[tuple[int, ...], bytes] = {}
        self._current_params: bytes = b""
        self._tapes: dict[int, int] = {}  # by how many runs it holds
        self._stages: list[tuple[frozenset[str], int]] = []
        self._staged = CrossLoopLock()
        self.host_s = 0.0
        try:
            self._params = self._alloc(self._stride * len(kernels), uniform=True)
            slots = [self._alloc(n) for n in program.slot_nbytes]
            self._inputs = {v.name: self._alloc(v.nbytes) for v in program.inputs}
            results = {name: slots[slot] for name, slot in program.slots.items()}
            state_buffers = states.targets if states else {}
            self._buffers = {**weights.targets, **self._inputs, **state_buffers, **results}
        except GpuError:
            self.close()
            raise

    async def record(self) -> None:
        """Record the tape of one run, once all buffers exist."""
        await self._gpu.granted({self._params, *self._buffers.values()})
        self._tape_of(1)

    async def run(
        self,
        sizes: Sizes,
        inputs: Mapping[str, Shaped],
        into: Sequence[Buffer] | None = None,
    ) -> dict[str, Array]:
        """See `Executable.run`. Nothing is awaited between the replay and the queued reads."""
        if self._tracer is not None:
            return await self._run_traced(self._tracer, sizes, inputs, into)
        if self._must_wait():
            return await self._run_staged(sizes, inputs, into)
        return await self._queued(sizes, inputs, into)

    def queued(
        self, sizes: Sizes, inputs: Mapping[str, Shaped]
    ) -> Awaitable[dict[str, Array]] | None:
        """See `Executable.queued`: not while it is traced, or while weights arrive."""
        if self._tracer is not None or self._must_wait():
            return None
        return self._queued(sizes, inputs, None)

    def _queued(
        self, sizes: Sizes, inputs: Mapping[str, Shaped], into: Sequence[Buffer] | None
    ) -> Awaitable[dict[str, Array]]:
        started = perf_counter()
        self._replay(sizes, inputs, 1)
        results, reads = self._read(sizes, into)
        self.host_s += perf_counter() - started
        return _finished(results, reads)

    async def submit(self, sizes: Sizes, inputs: Mapping[str, Shaped], times: int = 1) -> None:
        """See `Executable.submit`: one replay, however many times."""
        while times and self._tracer is not None:
            await self._run_traced(self._tracer, sizes, inputs, ())
            times -= 1
        while times and self._must_wait():
            await self._run_staged(sizes, inputs, ())
            times -= 1
        if times:
            started = perf_counter()
            self._replay(sizes, inputs, times)
            self.host_s += perf_counter() - started

    def _must_wait(self) -> bool:
        arrivals = self._weights.arrivals
        return self._staged.locked() or (arrivals is not None and not arrivals.complete)

    def _replay(self, sizes: Sizes, inputs: Mapping[str, Shaped], times: int) -> None:
        self._renew()
        writes, params = self._writes(sizes, inputs)
        self._gpu.replay(self._tape_of(times), pack_writes(writes))
        self._current_params = params

    def _tape_of(self, times: int) -> int:
        if times not in self._tapes:
            words = self._build(list(range(len(self._kernels))) * times)
            self._tapes[times] = self._gpu.record(words)
        return self._tapes[times]

    def _renew(self) -> None:
        """Drop tapes whose states have moved to other buffers."""
        if self._states is not None and self._states.generation != self._generation:
            self._generation = self._states.generation
            self._buffers |= self._states.targets
            self._forget_tapes()

    def _forget_tapes(self) -> None:
        while self._tapes:
            self._gpu.forget(self._tapes.popitem()[1])
        while self._stages:
            self._gpu.forget(self._stages.pop()[1])

    async def _run_staged(
        self, sizes: Sizes, inputs: Mapping[str, Shaped], into: Sequence[Buffer] | None
    ) -> dict[str, Array]:
        """Run while weights arrive: each part of the tape as soon as its parameters are there.

        Other passes must not run in between: they share the intermediate buffers.
        """
        async with self._staged.turn():
            self._renew()
            writes, params = self._writes(sizes, inputs)
            packed = pack_writes(writes)
            for names, tape in self._staged_tapes():
                if self._weights.arrivals is not None:
                    await self._weights.arrivals.wait(names)
                self._gpu.replay(tape, packed)
                self._current_params, packed = params, bytearray()
            results, reads = self._read(sizes, into)
        for read in reads:
            await read
        return results

    @property
    def _tracer(self) -> Tracer | None:
        """Return the tracer of the next pass."""
        tracer = self._pipelines.tracer if self.traceable else None
        return tracer if tracer is not None and tracer.wants_more else None

    async def _run_traced(
        self,
        tracer: Tracer,
        sizes: Sizes,
        inputs: Mapping[str, Shaped],
        into: Sequence[Buffer] | None,
    ) -> dict[str, Array]:
        """Run dispatch by dispatch, and compare each one's operands and results with numpy."""
        async with self._staged.turn():
            if self._weights.arrivals is not None:
                await self._weights.arrivals.wait(set(self._weights.targets))
            self._renew()
            writes, self._current_params = self._writes(sizes, inputs)
            for buffer, offset, data in writes:
                self._gpu.write(buffer, offset, data)
            traced = TracedPass(
                self._gpu,
                self._program,
                self._kernels,
                self._buffers,
                self._dispatch,
                self._pipelines.names,
            )
            await traced.run(tracer, sizes)
            results, reads = self._read(sizes, into)
        for read in reads:
            await read
        return results

    def _dispatch(self, index: int) -> None:
        """Run one kernel alone."""
        self._gpu.run(self._build([index]))

    def _staged_tapes(self) -> list[tuple[frozenset[str], int]]:
        """Return the tape cut before every kernel that is the first to read a parameter."""
        if not self._stages:
            starts, needs, seen = list[int](), list[frozenset[str]](), set[str]()
            for index, kernel in enumerate(self._kernels):
                names = {v.name for v in kernel.operands} & self._weights.targets.keys()
                if names - seen or not index:
                    starts.append(index)
                    needs.append(frozenset(names - seen))
                    seen |= names
            for start, end, names in zip(
                starts, [*starts[1:], len(self._kernels)], needs, strict=True
            ):
                self._stages.append((names, self._gpu.record(self._build(range(start, end)))))
        return self._stages

    def _writes(
        self, sizes: Sizes, inputs: Mapping[str, Shaped]
    ) -> tuple[list[tuple[int, int, Any]], bytes]:
        writes: list[tuple[int, int, Any]] = []
        params = self._params_for(sizes)
        if params is not self._current_params:
            writes.append((self._params, 0, params))
        for value in self._program.inputs:
            data = input_bytes(value, sizes, inputs)
            writes.append((self._inputs[value.name], 0, data))
        return writes, params

    def _read(
        self, sizes: Sizes, into: Sequence[Buffer] | None
    ) -> tuple[dict[str, Array], list[Any]]:
        """Queue the reads of all outputs, or of as many as there is memory for."""
        results: dict[str, Array] = {}
        if into is None:
            results = {
                v.name: np.empty(v.sizes(sizes), NUMPY[v.dtype]) for v in self._program.outputs
            }
            into = [array.data for array in results.values()]
        reads = [
            self._gpu.read(self._buffers[value.name], 0, memory)
            for value, memory in zip(self._program.outputs, into, strict=False)
        ]
        return results, reads

    def close(self) -> None:
        if self._gpu.lost:
            return
        self._forget_tapes()
        while self._owned:
            self._gpu.free(self._owned.pop())

    def _alloc(self, nbytes: int, *, uniform: bool = False) -> int:
        self._owned.append(self._gpu.alloc(nbytes, uniform=uniform))
        return self._owned[-1]

    def _build(self, indices: Sequence[int]) -> Any:
        tape = TapeBuilder()
        for index in indices:
            kernel = self._kernels[index]
            places = [at for at, letter in enumerate(kernel.bindings) if letter != "-"]
            bindings: list[Binding] = [(0, self._params, index * self._stride, self._stride)]
            for at, value in zip(places[1:], kernel.operands, strict=True):
                buffer, offset = self._place_of(value)
                bindings.append((at, buffer, offset, self._bound_nbytes(value)))
            tape.dispatch(self._pipelines.handle(kernel), bindings, kernel.launch())
        return tape.words()

    def _place_of(self, value: Value) -> tuple[int, int]:
        """Return the buffer of a value, and its offset there."""
        return self._buffers[value.name], 0

    def _bound_nbytes(self, value: Value) -> int:
        if self._states is not None and value.name in self._states.sizes:
            return self._states.sizes[value.name]
        limit = self._gpu.adapter.limits["maxStorageBufferBindingSize"]
        if value.nbytes > limit:
            raise GpuError(
                "record",
                f"{value.name} needs a binding of {value.nbytes:,} bytes, "
                f"and this device allows {limit:,}.",
                hint='Use shorter or fewer texts at once, or tier="cpu".',
            )
        return value.nbytes

    def _params_for(self, sizes: Sizes) -> bytes:
        """Return the uniform block of all kernels for these sizes, made once per set of sizes."""
        key = tuple(sizes[dim.name] for dim in self._program.dims)
        packed = self._kept_params.get(key)
        if packed is None:
            for dim in self._program.dims:
                if not 1 <= sizes[dim.name] <= dim.limit:
                    raise InputError(f"size {dim.name}", f"1 to {dim.limit}", str(sizes[dim.name]))
            packed = b"".join(k.params(sizes).ljust(self._stride, b"\0") for k in self._kernels)
            if len(self._kept_params) >= _KEPT_PARAMS:
                self._kept_params.clear()
            self._kept_params[key] = packed
        return packed
