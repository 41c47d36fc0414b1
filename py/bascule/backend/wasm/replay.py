"""A program recorded once for its sizes and replayed: each kernel costs Python one call."""

from __future__ import annotations

import asyncio
import ctypes
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from math import prod
from time import perf_counter
from typing import TYPE_CHECKING, Any
from weakref import finalize

from bascule.backend.base import Shaped, input_bytes
from bascule.backend.cpu import last_uses
from bascule.backend.host_arrays import memory_errors
from bascule.backend.profile import OpTimes
from bascule.backend.reference import evaluate
from bascule.backend.wasm.functions import has_kernel
from bascule.backend.wasm.kernels import Argument, Kernels
from bascule.backend.wasm.language import LanguageFunctions
from bascule.backend.wasm.store import StreamedWasmStore, WasmStates, WasmStore
from bascule.backend.wasm.tensor import ITEM_NBYTES, Blocks, Tensor
from bascule.base.arrays import Array, need_numpy, np
from bascule.base.turns import CrossLoopLock
from bascule.program.blocks import BlockMatrix
from bascule.program.ops import onto_of
from bascule.program.program import Call, Program
from bascule.program.stages import Stage

if TYPE_CHECKING:
    from typing_extensions import Buffer

Functions = Mapping[str, Callable[..., Tensor]]
Step = Callable[[], object]
Values = dict[str, Tensor | Blocks]

# Other tasks run after this long: often enough to cancel, too rarely to cost anything.
_TURN_S = 0.02
NUMPY_HINT = "Load numpy into this Pyodide, or use tier='webgpu'."


class Recorder:
    """`Kernels` that record calls; running `steps` executes them.

    A call without tensors only asks for a size, and is answered at once. The memory of a tensor
    that is no longer referenced is reused: steps run in the order in which they were recorded.
    """

    def __init__(self, kernels: Kernels) -> None:
        self.name = kernels.name
        self.steps: list[Step] = []
        self.bind = kernels.bind
        self._kernels = kernels
        self._free: dict[int, list[Tensor]] = {}

    def empty(self, shape: tuple[int, ...], dtype: str = "f32") -> Tensor:
        nbytes = prod(shape) * ITEM_NBYTES[dtype]
        free = self._free.setdefault(nbytes, [])
        owner = free.pop() if free else self._kernels.empty((max(1, nbytes),), "u8")
        # Views reference the ctypes array that they were made from, not the tensor: the memory is
        # free once no view references this one.
        memory = (ctypes.c_ubyte * owner.size).from_buffer(owner.memory)
        finalize(memory, free.append, owner)
        return Tensor(memory, owner.address, shape, dtype)

    def call(self, kernel: str, *arguments: Argument) -> int:
        if not any(isinstance(a, Tensor) for a in arguments):
            return self._kernels.call(kernel, *arguments)
        self.steps.append(self._kernels.bind(kernel, *arguments))
        return 0


@dataclass(frozen=True, slots=True)
class _Plan:
    """The steps for one set of sizes and one set of state addresses.

    `weights` has for each call the index of its first step and the parameters that it waits for.
    """

    key: object
    recorder: Recorder  # whose memory the steps use
    weights: list[tuple[int, frozenset[str]]]
    inputs: dict[str, Tensor]
    outputs: dict[str, Tensor]
    states: list[Tensor]


class ReplayExecutable:
    """An `Executable` of recorded steps; it keeps those of its last sizes.

    Concurrent runs take turns, since they share the memory of those steps. numpy runs the ops that
    have no kernel.
    """

    def __init__(
        self,
        program: Program,
        weights: WasmStore,
        states: WasmStates | None,
        kernels: Kernels,
        op_times: OpTimes,
    ) -> None:
        self.host_s = 0.0
        self._program = program
        self._weights = weights
        self._states = states
        self._kernels = kernels
        self._op_times = op_times
        self._numpy_ops = numpy_ops(program, LanguageFunctions(kernels).table())
        self._plan: _Plan | None = None
        self._lock = CrossLoopLock()
        self._stages: dict[int, Stage] = {}  # of streamed weights, by their first call
        if weights.streaming is not None:
            self._stages = {stage.first: stage for stage in weights.streaming.stages(program)}

    async def run(
        self,
        sizes: Mapping[str, int],
        inputs: Mapping[str, Shaped],
        into: Sequence[Buffer] | None = None,
    ) -> dict[str, Array]:
        async with self._lock.turn():
            plan = await self._submitted(sizes, inputs, 1)
            if into is None:
                return {name: np.array(tensor) for name, tensor in plan.outputs.items()}
            for tensor, memory in zip(plan.outputs.values(), into, strict=True):
                memoryview(memory).cast("B")[:] = tensor.bytes()
            return {}

    def queued(self, sizes: Mapping[str, int], inputs: Mapping[str, Shaped]) -> None:
        """See `Executable.queued`: this tier has no queue."""

    async def submit(
        self, sizes: Mapping[str, int], inputs: Mapping[str, Shaped], times: int = 1
    ) -> None:
        async with self._lock.turn():
            await self._submitted(sizes, inputs, times)

    def close(self) -> None:
        self._plan = None

    async def _submitted(
        self, sizes: Mapping[str, int], inputs: Mapping[str, Shaped], times: int
    ) -> _Plan:
        if self._numpy_ops:
            await need_numpy(f"The tier wasm, for {', '.join(self._numpy_ops)},", NUMPY_HINT)
        started = perf_counter()
        plan = self._planned(sizes)
        for value in self._program.inputs:
            plan.inputs[value.name].write(input_bytes(value, sizes, inputs))
        by_calls = self._op_times.spans is not None or isinstance(self._weights, StreamedWasmStore)
        replay = self._replay_calls if by_calls else self._replay
        for _ in range(times):
            await replay(plan)
        self.host_s += perf_counter() - started
        return plan

    async def _replay(self, plan: _Plan) -> None:
        arrivals = self._weights.arrivals
        waits = [] if arrivals is None or arrivals.complete else list(reversed(plan.weights))
        turn = perf_counter() + _TURN_S
        for index, step in enumerate(plan.recorder.steps):
            while waits and waits[-1][0] <= index:
                assert arrivals is not None
                await arrivals.wait(waits.pop()[1])
            step()
            if perf_counter() > turn:
                await asyncio.sleep(0)
                turn = perf_counter() + _TURN_S
        await asyncio.sleep(0)

    async def _replay_calls(self, plan: _Plan) -> None:
        """As `_replay`, call by call: no other task runs within a call. Calls are timed during a
        profile; streamed weights are read before the calls of their stage.
        """
        streamed = self._weights if isinstance(self._weights, StreamedWasmStore) else None
        arrivals, steps = self._weights.arrivals, plan.recorder.steps
        timed = self._op_times.spans is not None
        self._op_times.n_runs += timed
        ends = [*(first for first, _ in plan.weights[1:]), len(steps)]
        calls = zip(self._program.calls, plan.weights, ends, strict=True)
        async with streamed.streaming.turn.turn() if streamed else nullcontext():
            for index, (call, (first, names), end) in enumerate(calls):
                stage = self._stages.get(index)
                if arrivals is not None:
                    await arrivals.wait(names if stage is None else self._weights.targets)
                if streamed and stage is not None:
                    await streamed.streaming.read(stage, 0)
                started = perf_counter()
                for step in steps[first:end]:
                    step()
                if timed:
                    self._op_times.note(call.op, started)
                await asyncio.sleep(0)

    def _planned(self, sizes: Mapping[str, int]) -> _Plan:
        states = list(self._states.tensors.values()) if self._states is not None else []
        key = (dict(sizes), [id(tensor) for tensor in states])
        if self._plan is None or self._plan.key != key:
            self._plan = None  # its memory first
            with memory_errors("intermediate values"):
                self._plan = self._recorded(key, sizes, states)
        return self._plan

    def _recorded(self, key: object, sizes: Mapping[str, int], states: list[Tensor]) -> _Plan:
        program, recorder = self._program, Recorder(self._kernels)
        functions = LanguageFunctions(recorder).table()
        inputs = {v.name: recorder.empty(v.sizes(sizes), v.dtype) for v in program.inputs}
        values: Values = {**self._weights.tensors, **inputs}
        if self._states is not None:
            values |= self._states.tensors
        weights: list[tuple[int, frozenset[str]]] = []
        for index, (call, dead) in enumerate(zip(program.calls, last_uses(program), strict=True)):
            if isinstance(self._weights, StreamedWasmStore) and index in self._stages:
                values |= self._weights.tensors_of(self._stages[index])
            names = {o.name for o in call.operands if o is not None}
            weights.append((len(recorder.steps), frozenset(names & self._weights.tensors.keys())))
            values[call.result.name] = _record(recorder, functions, call, values, sizes)
            for name in dead:
                values.pop(name, None)
        outputs = {v.name: _tensor(values[v.name]).reshape(v.sizes(sizes)) for v in program.outputs}
        return _Plan(key, recorder, weights, inputs, outputs, states)


def _record(
    recorder: Recorder, functions: Functions, call: Call, values: Values, sizes: Mapping[str, int]
) -> Tensor:
    if is_own(functions, call):
        return evaluate(functions, call, values, sizes)
    onto = onto_of(call)
    if onto is not None:
        result = _tensor(values[onto.name])
    else:
        result = recorder.empty(call.result.sizes(sizes), call.result.dtype)
    recorder.steps.append(numpy_step(call, values, sizes, result))
    return result


def numpy_ops(program: Program, functions: Functions) -> list[str]:
    """Return the ops of a program that numpy computes."""
    return sorted({c.op for c in program.calls if not is_own(functions, c)})


def is_own(functions: Functions, call: Call) -> bool:
    """Whether a kernel computes the call."""
    return call.op in functions and has_kernel(call)


def numpy_step(call: Call, values: Values, sizes: Mapping[str, int], result: Tensor) -> Step:
    """Return a step that computes the call with numpy, on views of the tensors."""
    from bascule.backend.reference import FUNCTIONS

    operands = {o.name: _as_numpy(values[o.name]) for o in call.operands if o is not None}
    onto = onto_of(call)
    # An op that takes over its operand needs the very array that it may write.
    view = np.asarray(result) if onto is None else operands[onto.name]

    def step() -> None:
        found = evaluate(FUNCTIONS, call, operands, sizes)
        if found is not view:
            view[...] = found

    return step


def _as_numpy(value: Tensor | Blocks) -> Any:
    if isinstance(value, Blocks):
        return BlockMatrix(value.type, value.shape, np.asarray(value.data))
    return np.asarray(value)


def _tensor(value: Tensor | Blocks) -> Tensor:
    assert isinstance(value, Tensor)  # blocks are parameters only
    return value
