"""Programs on buffers that their caller owns: each run binds others, and nothing is copied."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from bascule.backend.webgpu.gpu import Gpu, pack_writes
from bascule.backend.webgpu.kernel import Kernel
from bascule.backend.webgpu.pipelines import Pipelines
from bascule.backend.webgpu.states import GpuStates
from bascule.backend.webgpu.tape import Binding, TapeBuilder
from bascule.errors import InputError
from bascule.program.program import Program

if TYPE_CHECKING:
    from bascule.backend.base import StateStore


# For smaller buffers an allocation failure shows when a result is read: asking for each costs a
# call into JavaScript.
_LARGE_NBYTES = 16 << 20


async def grant_large(gpu: Gpu, buffers: Iterable[tuple[int, int]]) -> None:
    """Wait until the large ones of these buffers have memory; errors as `granted`."""
    large = {buffer for buffer, nbytes in buffers if nbytes >= _LARGE_NBYTES}
    if large:
        await gpu.granted(sorted(large))


class GpuComputation:
    """See `Computation`. Holds parameters and intermediate values; each run records a tape of its
    own, which binds operands and results.
    """

    def __init__(
        self, gpu: Gpu, pipelines: Pipelines, program: Program, kernels: Sequence[Kernel]
    ) -> None:
        self._gpu = gpu
        self._pipelines = pipelines
        self._program = program
        self._kernels = kernels
        self._stride = max(256, gpu.adapter.limits["minUniformBufferOffsetAlignment"])
        self._owned: list[int] = []
        self._values: dict[str, tuple[int, int]] = {}  # buffer and bytes of intermediate values
        try:
            self._params = self._alloc(self._stride * len(kernels), uniform=True)
            self._take_slots()
            params = b"".join(k.params({}).ljust(self._stride, b"\0") for k in kernels)
            gpu.write(self._params, 0, params)
        except BaseException:
            self.close()
            raise

    async def run(
        self, operands: Mapping[str, StateStore], results: Mapping[str, StateStore]
    ) -> None:
        """See `Computation.run`: the work is queued."""
        values = {name: buffer_of(store) for name, store in {**operands, **results}.items()}
        await grant_large(self._gpu, values.values())
        values |= self._values
        tape = TapeBuilder()
        for index, kernel in enumerate(self._kernels):
            places = [at for at, letter in enumerate(kernel.bindings) if letter != "-"]
            bindings: list[Binding] = [(0, self._params, index * self._stride, self._stride)]
            for at, value in zip(places[1:], kernel.operands, strict=True):
                buffer, nbytes = values[value.name]
                bindings.append((at, buffer, 0, nbytes))
            tape.dispatch(self._pipelines.handle(kernel), bindings, kernel.launch())
        recorded = self._gpu.record(tape.words())
        try:
            self._gpu.replay(recorded, pack_writes(()))
        finally:
            self._gpu.forget(recorded)

    def close(self) -> None:
        while self._owned and not self._gpu.lost:
            self._gpu.free(self._owned.pop())

    def _take_slots(self) -> None:
        """Allocate memory for results that are no outputs; the plan shares it among them."""
        program, outputs = self._program, {v.name for v in self._program.outputs}
        inner = [c.result for c in program.calls if c.result.name not in outputs]
        slots = {program.slots[value.name] for value in inner}
        buffers = {slot: self._alloc(program.slot_nbytes[slot]) for slot in sorted(slots)}
        for value in inner:
            self._values[value.name] = buffers[program.slots[value.name]], value.nbytes

    def _alloc(self, nbytes: int, *, uniform: bool = False) -> int:
        self._owned.append(self._gpu.alloc(nbytes, uniform=uniform))
        return self._owned[-1]


def buffer_of(store: StateStore) -> tuple[int, int]:
    """Return the buffer of a store's one tensor, and its bytes."""
    if not isinstance(store, GpuStates) or len(store.targets) != 1:
        raise InputError("run", "tensors of this device", type(store).__name__)
    ((name, buffer),) = store.targets.items()
    return buffer, store.sizes[name]
