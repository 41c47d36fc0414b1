"""Programs on tensors that their caller owns, run call by call."""

from __future__ import annotations

from collections.abc import Mapping
from time import perf_counter
from typing import TYPE_CHECKING

from bascule.backend.cpu import last_uses
from bascule.backend.host_arrays import memory_errors
from bascule.backend.profile import OpTimes
from bascule.backend.reference import evaluate
from bascule.backend.wasm.kernels import Kernels
from bascule.backend.wasm.replay import NUMPY_HINT, Functions, is_own, numpy_ops, numpy_step
from bascule.backend.wasm.store import WasmStates
from bascule.backend.wasm.tensor import Blocks, Tensor
from bascule.base.arrays import need_numpy
from bascule.errors import InputError
from bascule.program.program import Program

if TYPE_CHECKING:
    from bascule.backend.base import StateStore


class WasmComputation:
    """See `Computation`. Results are copied into the caller's stores."""

    def __init__(
        self, program: Program, kernels: Kernels, functions: Functions, op_times: OpTimes
    ) -> None:
        self._program = program
        self._kernels = kernels
        self._functions = functions
        self._op_times = op_times
        self._numpy_ops = numpy_ops(program, functions)

    async def run(
        self, operands: Mapping[str, StateStore], results: Mapping[str, StateStore]
    ) -> None:
        if self._numpy_ops:
            await need_numpy(f"The tier wasm, for {', '.join(self._numpy_ops)},", NUMPY_HINT)
        values: dict[str, Tensor | Blocks] = {n: _tensor(s) for n, s in operands.items()}
        with memory_errors("intermediate values"):
            for call, dead in zip(self._program.calls, last_uses(self._program), strict=True):
                started = perf_counter()
                if is_own(self._functions, call):
                    values[call.result.name] = evaluate(self._functions, call, values, {})
                else:
                    result = self._kernels.empty(call.result.sizes({}), call.result.dtype)
                    numpy_step(call, values, {}, result)()
                    values[call.result.name] = result
                self._op_times.note(call.op, started)
                for name in dead:
                    del values[name]
        for name, store in results.items():
            _tensor(store).write(_dense(values[name]))

    def close(self) -> None:
        """See `Computation.close`: it holds nothing."""


def _tensor(store: StateStore) -> Tensor:
    """Return the one tensor of a store."""
    if not isinstance(store, WasmStates) or len(store.tensors) != 1:
        raise InputError("run", "tensors of this backend", type(store).__name__)
    (tensor,) = store.tensors.values()
    return tensor


def _dense(value: Tensor | Blocks) -> memoryview:
    assert isinstance(value, Tensor)  # blocks are parameters, and there are none
    return value.bytes()
