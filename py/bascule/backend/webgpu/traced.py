"""A pass with each dispatch on its own: operands are read before it, results after."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

from bascule.backend.profile import joined
from bascule.backend.tracing import Step, TracedKernel, Tracer, at_sizes
from bascule.backend.webgpu.gpu import Gpu
from bascule.backend.webgpu.kernel import Kernel
from bascule.base.arrays import NUMPY, Array, np
from bascule.base.dtypes import BlockType, nbytes_of
from bascule.base.waiting import all_or_first_error
from bascule.errors import InputError
from bascule.program.blocks import BlockMatrix
from bascule.program.ops import operands_of
from bascule.program.program import Program, Sizes, Value


@dataclass(frozen=True)
class TracedPass:
    """`buffers` by value name; `dispatch` runs the kernel of that index alone."""

    gpu: Gpu
    program: Program
    kernels: Sequence[Kernel]
    buffers: Mapping[str, int]
    dispatch: Callable[[int], None]
    names: Mapping[int, str]

    async def run(self, tracer: Tracer, sizes: Sizes) -> None:
        """Run all calls in order, once the inputs and params are written."""
        tracer.n_passes += 1
        first = len(tracer.calls)
        timing = await self._start_timing()
        try:
            for index in range(len(self.kernels)):
                await self._step(tracer, index, sizes)
        finally:
            if timing:
                result = joined(await self.gpu.stop_profile(), dict(self.names))
                tracer.time(first, [span.seconds for span in result.work], result.timed_by)

    async def _start_timing(self) -> bool:
        try:
            await self.gpu.start_profile()
        except InputError:  # a PerformanceMonitor runs, and has the timestamps
            return False
        return True

    async def _step(self, tracer: Tracer, index: int, sizes: Sizes) -> None:
        call, kernel = self.program.calls[index], self.kernels[index]
        parameters = frozenset(p.name for p in self.program.parameters)
        operands = {value.name: value for _, value in operands_of(call)}
        before = await self._read_all(operands.values(), sizes, parameters)
        self.dispatch(index)
        changed = [call.result, *(v for each, v in operands_of(call) if each.updated)]
        after = await self._read_all(changed, sizes, parameters)
        step = Step(at_sizes(call, sizes), sizes, before, parameters)
        tracer.add(self.program.name, step, _described(kernel, sizes), after)

    async def _read_all(
        self, values: Any, sizes: Sizes, parameters: frozenset[str]
    ) -> dict[str, Any]:
        results: dict[str, Any] = {}

        async def read(value: Value) -> None:
            results[value.name] = await self._read(value, sizes, value.name in parameters)

        await all_or_first_error([read(value) for value in values])
        return results

    async def _read(self, value: Value, sizes: Sizes, is_parameter: bool) -> Array | BlockMatrix:
        shape = value.sizes(sizes)
        nbytes = nbytes_of(value.dtype, prod(shape))
        raw = bytearray((nbytes + 3) & ~3)
        await self.gpu.read(self.buffers[value.name], 0, raw)
        if is_parameter and value.dtype != "f32":
            rows, inner = shape
            data = np.frombuffer(raw, np.uint8, nbytes)
            return BlockMatrix(BlockType[value.dtype.upper()], (rows, inner), data)
        return np.frombuffer(raw, NUMPY[value.dtype], prod(shape)).reshape(shape)


def _described(kernel: Kernel, sizes: Sizes) -> TracedKernel:
    """Describe a kernel for a trace."""
    names = [name for name, _ in kernel.linked.params]
    numbers = kernel.linked.unpack(kernel.params(sizes))
    return TracedKernel(
        kernel.label,
        "main",
        kernel.variant,
        kernel.digest,
        kernel.wgsl,
        kernel.bindings,
        dict(kernel.constants),
        dict(zip(names, map(_digits, numbers), strict=True)),
        kernel.launch(),
    )


def _digits(number: float) -> str:
    """Return each digit of an integer; of a float32, the shortest digits that identify it."""
    return str(number) if isinstance(number, int) else str(np.float32(number))
