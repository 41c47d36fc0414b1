"""A program recorded once for its sizes and replayed: a step costs Python one call a kernel."""

from __future__ import annotations

import asyncio
import ctypes
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod
from time import perf_counter
from weakref import finalize

import numpy as np
from numpy.typing import DTypeLike

from bascule.backend.base import checked_input
from bascule.backend.cpu import (
    NUMPY,
    Functions,
    ReferenceStates,
    ReferenceStore,
    evaluate,
    last_uses,
    telling,
)
from bascule.backend.quant import BlockMatrix
from bascule.backend.reference import FUNCTIONS
from bascule.backend.wasm.kernels import Array, Kernels
from bascule.program.ops import onto_of
from bascule.program.program import Call, Program

Step = Callable[[], object]
Values = dict[str, Array | BlockMatrix]

# Others have a turn after so long: often enough to cancel, seldom enough to cost nothing.
_TURN_S = 0.02


class Recorder:
    """Kernels that note what they are to do; running `steps` does it.

    A call without arrays only asks for a size, and is answered at once. An array that nobody holds
    any more lends its memory to later ones: steps run in the order in which they were noted.
    """

    def __init__(self, kernels: Kernels) -> None:
        self.name = kernels.name
        self.steps: list[Step] = []
        self.bind = kernels.bind
        self._kernels = kernels
        self._free: dict[int, list[Array]] = {}

    def empty(self, shape: tuple[int, ...], dtype: DTypeLike = np.float32) -> Array:
        """See `Kernels.empty`."""
        kind = np.dtype(dtype)
        nbytes = prod(shape) * kind.itemsize
        free = self._free.setdefault(nbytes, [])
        memory = free.pop() if free else self._kernels.empty((max(1, nbytes),), np.uint8)
        # Views of an array keep its foreign base alive, not the array that they were made from.
        lent = (ctypes.c_ubyte * memory.size).from_buffer(memory)
        finalize(lent, free.append, memory)
        return np.frombuffer(lent, np.uint8)[:nbytes].view(kind).reshape(shape)

    def call(self, kernel: str, *arguments: Array | float | None) -> int:
        """See `Kernels.call`."""
        if not any(isinstance(a, np.ndarray) for a in arguments):
            return self._kernels.call(kernel, *arguments)
        self.steps.append(self._kernels.bind(kernel, *arguments))
        return 0


@dataclass(frozen=True, slots=True)
class _Plan:
    """The steps for one set of sizes and one place of the states.

    `weights` has for each call the index of its first step and the parameters that it waits for.
    """

    key: object
    recorder: Recorder  # whose memory the steps use
    weights: list[tuple[int, frozenset[str]]]
    inputs: dict[str, Array]
    outputs: dict[str, Array]
    states: list[Array]


class ReplayExecutable:
    """Runs a program by the steps that recording it gave; keeps those of its last sizes.

    Runs at once take turns, for they share the memory of those steps. `functions` makes the ops'
    functions out of kernels; what is numpy's in them is run by numpy.
    """

    def __init__(
        self,
        program: Program,
        weights: ReferenceStore,
        states: ReferenceStates | None,
        kernels: Kernels,
        functions: Callable[[Kernels], Functions],
    ) -> None:
        self.host_s = 0.0
        self._program = program
        self._weights = weights
        self._states = states
        self._kernels = kernels
        self._functions = functions
        self._plan: _Plan | None = None
        self._turn = asyncio.Lock()

    async def run(self, sizes: Mapping[str, int], inputs: Mapping[str, Array]) -> dict[str, Array]:
        """See `Executable.run`."""
        async with self._turn:
            plan = await self._submitted(sizes, inputs, 1)
            return {name: array.copy() for name, array in plan.outputs.items()}

    async def submit(
        self, sizes: Mapping[str, int], inputs: Mapping[str, Array], times: int = 1
    ) -> None:
        """See `Executable.submit`."""
        async with self._turn:
            await self._submitted(sizes, inputs, times)

    def close(self) -> None:
        """See `Executable.close`."""
        self._plan = None

    async def _submitted(
        self, sizes: Mapping[str, int], inputs: Mapping[str, Array], times: int
    ) -> _Plan:
        started = perf_counter()
        plan = self._planned(sizes)
        for value in self._program.inputs:
            plan.inputs[value.name][...] = checked_input(value, sizes, inputs)
        for _ in range(times):
            await self._replay(plan)
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

    def _planned(self, sizes: Mapping[str, int]) -> _Plan:
        states = list(self._states.arrays.values()) if self._states is not None else []
        key = (dict(sizes), [id(array) for array in states])
        if self._plan is None or self._plan.key != key:
            self._plan = None  # its memory first
            with telling("intermediate values"):
                self._plan = self._recorded(key, sizes, states)
        return self._plan

    def _recorded(self, key: object, sizes: Mapping[str, int], states: list[Array]) -> _Plan:
        program, recorder = self._program, Recorder(self._kernels)
        functions = self._functions(recorder)
        inputs = {v.name: recorder.empty(v.sizes(sizes), NUMPY[v.dtype]) for v in program.inputs}
        values: Values = {**self._weights.arrays, **inputs}
        if self._states is not None:
            values |= self._states.arrays
        weights: list[tuple[int, frozenset[str]]] = []
        for call, dead in zip(program.calls, last_uses(program), strict=True):
            names = {o.name for o in call.operands if o is not None}
            weights.append((len(recorder.steps), frozenset(names & self._weights.arrays.keys())))
            values[call.result.name] = _record(recorder, functions, call, values, sizes)
            for name in dead:
                values.pop(name, None)
        outputs = {v.name: np.asarray(values[v.name]) for v in program.outputs}
        return _Plan(key, recorder, weights, inputs, outputs, states)


def _record(
    recorder: Recorder, functions: Functions, call: Call, values: Values, sizes: Mapping[str, int]
) -> Array:
    if functions[call.op] is not FUNCTIONS[call.op]:
        return evaluate(functions, call, values, sizes)
    onto = onto_of(call)
    if onto is not None:
        y = np.asarray(values[onto.name])
    else:
        y = recorder.empty(call.result.sizes(sizes), NUMPY[call.result.dtype])
    held = {o.name: values[o.name] for o in call.operands if o is not None}

    def step() -> None:
        made = evaluate(FUNCTIONS, call, held, sizes)
        if made is not y:  # what takes its operand over has written there
            y[...] = made

    recorder.steps.append(step)
    return y
