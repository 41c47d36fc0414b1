"""The WebAssembly tier: 128-bit SIMD kernels for expensive ops, numpy for the others."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING

from bascule.backend.base import (
    Computation,
    Executable,
    StateStore,
    Tier,
    WeightStore,
    check_names,
)
from bascule.backend.deviceless import Deviceless, Loop
from bascule.backend.quantize import ReferenceQuantizer
from bascule.backend.wasm.computation import WasmComputation
from bascule.backend.wasm.kernels import LinkedKernels
from bascule.backend.wasm.language import LanguageFunctions
from bascule.backend.wasm.replay import Functions, ReplayExecutable
from bascule.backend.wasm.store import StreamedWasmStore, WasmStates, WasmStore
from bascule.backend.wasm.tensor import Blocks
from bascule.base.arrays import np
from bascule.errors import InputError
from bascule.program.blocks import BlockMatrix

if TYPE_CHECKING:
    from bascule.backend.memory import MemoryKind
    from bascule.base.arrays import Array
    from bascule.program.program import Parameter, Program, Value


# Sides of matrices from which the kernel is faster than numpy.
_MIN_SIDE = 8


class WasmBackend(Deviceless):
    """A single-threaded `Backend`; numpy computes ops without a kernel."""

    tier: Tier = "wasm"

    def __init__(self, kernels: LinkedKernels) -> None:
        super().__init__(kernels.name)
        self._kernels = kernels

    def store(self, parameters: Sequence[Parameter]) -> WasmStore:
        return WasmStore(parameters, self._kernels, self.count)

    def streamed_store(
        self, parameters: Sequence[Parameter], slot_nbytes: int
    ) -> StreamedWasmStore:
        """See `Backend.streamed_store`: one stage at a time."""
        return StreamedWasmStore(parameters, slot_nbytes, self._kernels, self.count)

    async def quantizer(
        self,
        store: WeightStore,
        parameters: Sequence[Parameter],
        *,
        staging_nbytes: int,
        max_blocks: int,
    ) -> ReferenceQuantizer:
        del max_blocks
        if not isinstance(store, WasmStore):
            raise InputError("quantizer", "weights of this backend", type(store).__name__)
        results = {p.name: store.tensors[p.name] for p in parameters}
        matrices = {
            name: BlockMatrix(matrix.type, matrix.shape, np.asarray(matrix.data))
            for name, matrix in results.items()
            if isinstance(matrix, Blocks)
        }
        return ReferenceQuantizer(store, matrices, staging_nbytes)

    def states(
        self, values: Sequence[Value], sizes: Mapping[str, int], *, kind: MemoryKind = "states"
    ) -> WasmStates:
        return WasmStates(values, sizes, self._kernels, self.count, kind)

    async def computation(self, program: Program) -> Computation:
        return WasmComputation(program, self._kernels, self._functions, self.op_times)

    @cached_property
    def _functions(self) -> Functions:
        """Return the kernels' functions, with the scratch memory that all computations share."""
        return LanguageFunctions(self._kernels).table()

    def loop_loader(self) -> Callable[[bytes], Loop]:
        return self._kernels.load

    @property
    def loop_elements(self) -> int | None:
        return self._kernels.loop_elements

    def product(self, x: Array, y: Array) -> Array | None:
        """See `Deviceless.product`: 20 times as fast as numpy in Pyodide, which has no BLAS."""
        batch, rows, inner = x.shape
        columns = y.shape[-1]
        if min(rows, inner, columns) < _MIN_SIDE:
            return None
        found = np.empty((batch, rows, columns), np.float32)
        x = np.ascontiguousarray(x, np.float32)
        weights = np.ascontiguousarray(y.swapaxes(-1, -2), np.float32)
        try:
            for at in range(batch):
                weight = weights if weights.ndim == 2 else weights[at]
                result = self._functions["linear"](x[at], weight)
                memoryview(found[at]).cast("B")[:] = result.bytes()
        except MemoryError:
            return None  # the kernels' memory is smaller than Python's
        return found

    async def prepare(
        self, program: Program, weights: WeightStore, states: StateStore | None = None
    ) -> Executable:
        check_names(program)
        if not isinstance(weights, WasmStore):
            raise InputError("prepare", "weights of this backend", type(weights).__name__)
        if states is not None and not isinstance(states, WasmStates):
            raise InputError("prepare", "states of this backend", type(states).__name__)
        return ReplayExecutable(program, weights, states, self._kernels, self.op_times)
