"""Run pieces of an operation on a backend, one after another; two may be in flight."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import chain
from math import inf, prod

from bascule.backend.base import Backend, Executable, StateStore, WeightStore
from bascule.base.arrays import np
from bascule.compat.fallback.operation_work import Array, Request, Work
from bascule.errors import InputError, LimitError
from bascule.program.ops import cost_of
from bascule.program.program import Parameter, Program
from bascule.program.rewrites.rewrite import AppliedRewrite, Limits, Rewrite, fit
from bascule.weights.quantized import SLAB_BLOCKS
from bascule.weights.slabs import quantize_slabs, read_blocks, staging_nbytes

# The most bytes of a dispatch's params, and of a quantizer's sums.
_PARAMS_NBYTES = 256
_SUMS_NBYTES = 16 * -(-(SLAB_BLOCKS + 1) // 64) + 16
_READ_NBYTES = 1 << 22
_SLAB_NBYTES = 1 << 16
# Slabs in flight; each is an eighth of a piece's floats.
_SLABS = 2


def device_nbytes(program: Program) -> int:
    """Bytes of all buffers that a program needs on a device, staging buffers for results and for
    weights that are quantized among them.
    """
    resident = sum(_word_aligned(v.nbytes) for v in (*program.states, *program.inputs))
    resident += sum(_word_aligned(p.nbytes) for p in program.parameters)
    blocks = [p for p in program.parameters if p.dtype != "f32"]
    filling = _staging_nbytes(blocks) + _SUMS_NBYTES * len(blocks) * 2 + 16 if blocks else 0
    if not program.calls:
        return resident + filling + sum(min(_READ_NBYTES, _word_aligned(p.nbytes)) for p in blocks)
    read = sum(_word_aligned(v.nbytes) for v in (*program.outputs, *program.states))
    running = program.planned_nbytes + _PARAMS_NBYTES * len(program.calls) + read
    # The buffers of the last piece are still there while the next one's weights are quantized.
    return resident + running + filling


def _staging_nbytes(blocks: Sequence[Parameter], max_nbytes: float = inf) -> int:
    """Bytes of the staging buffer of weights that are quantized: an eighth of their floats, so that
    quantizing saves memory, too, but no less than a slab that is worth a dispatch.
    """
    eighth = max(4 * prod(p.shape) for p in blocks) // 8
    return staging_nbytes(blocks, min(max_nbytes, max(_SLAB_NBYTES, eighth)))


def _word_aligned(nbytes: int) -> int:
    return max(4, -(-nbytes // 4) * 4)


def violation_of(program: Program, limits: Limits) -> LimitError | None:
    """The limit that a program exceeds most; `Limits.memory_nbytes` bounds all of its buffers."""
    share, worst = max(_limit_shares(program, limits), key=lambda demand: demand[0])
    return worst if share > 1 else None


def limit_share(program: Program, limits: Limits) -> float:
    """The largest share that a program takes of any limit; above 1 it exceeds that limit."""
    return max(share for share, _ in _limit_shares(program, limits))


def _limit_shares(program: Program, limits: Limits) -> Iterator[tuple[float, LimitError]]:
    """For each limit the share that the program takes, and the error if that exceeds 1."""
    nbytes = device_nbytes(program)
    yield (
        nbytes / limits.memory_nbytes,
        LimitError(
            program.name,
            f"{nbytes:,} bytes on the device",
            f"{limits.memory_nbytes:,.0f} bytes are allowed",
        ),
    )
    values = chain(program.parameters, program.states, program.inputs)
    for value in (*values, *(call.result for call in program.calls)):
        yield (
            value.nbytes / limits.binding_nbytes,
            LimitError(
                f"{value.name} of {program.name}",
                f"{value.nbytes:,} bytes",
                f"a binding holds at most {limits.binding_nbytes:,.0f}",
            ),
        )
    for call in program.calls:
        work = cost_of(call).multiply_adds
        yield (
            work / limits.dispatch_work,
            LimitError(
                f"{call.result.name} of {program.name}",
                f"{work:,} multiply-adds",
                f"a dispatch may have {limits.dispatch_work:,.0f}",
            ),
        )


Outputs = Mapping[str, Array]


class PieceResult:
    """The result of a piece that may still be queued on a device."""

    def __init__(self, outputs: Awaitable[Outputs], finish: Callable[[Outputs], Array]) -> None:
        self._outputs: Awaitable[Outputs] | None = outputs
        self._finish = finish
        self._result: Array | None = None

    async def get(self) -> Array:
        """Wait for the result. Errors as `Executable.run`, at the first call."""
        if self._outputs is not None:
            outputs, self._outputs = self._outputs, None
            self._result = self._finish(await outputs)
        assert self._result is not None  # a failed result is not read again
        return self._result


class PieceRunner:
    """Runs works in a row; the next one reuses the program and the weights if they are the same.

    While a device runs one, the next is written and queued behind it, if it is the same program and
    there is memory for a second result.
    """

    def __init__(self, backend: Backend, limits: Limits, rewrites: Sequence[Rewrite] = ()) -> None:
        self._backend = backend
        self._limits = limits
        self._rewrites = rewrites
        self._program: Program | None = None
        self._store: WeightStore | None = None
        self._states: StateStore | None = None
        self._executable: Executable | None = None
        self._weights_of: tuple[object, ...] | None = None
        self._last: PieceResult | None = None
        self.applied: dict[AppliedRewrite, None] = {}
        self.planned_nbytes = 0  # of the largest piece

    async def run(self, request: Request, work: Work) -> Array:
        """Return the result of one; the caller holds the backend's turn."""
        return await (await self.start(request, work)).get()

    async def start(self, request: Request, work: Work) -> PieceResult:
        """Run one, or queue it; the one before may still be in flight."""
        program, applied = fit(work.program, self._limits, self._rewrites)
        self.applied.update(dict.fromkeys(applied))
        self.planned_nbytes = max(self.planned_nbytes, device_nbytes(program))
        same_program = program == self._program
        if not same_program:
            await self.settle()
            self.close()
            self._backend.trim()
            self._store = self._backend.store(program.parameters)
            self._program = program
        assert self._store is not None
        weights_only = not program.calls  # quantizing is all the work
        same_weights = request.weights_of is not None and request.weights_of == self._weights_of
        if weights_only or not (same_program and same_weights):
            blocks = await _fill(
                self._backend, self._store, program.parameters, work.weights, read=weights_only
            )
            self._weights_of = request.weights_of
            if weights_only:
                return PieceResult(_ready(blocks), work.finish)
        if self._states is None or self._executable is None:
            self._states = self._backend.states(program.states, {})
            self._executable = await self._backend.prepare(program, self._store, self._states)
            self.applied.update(dict.fromkeys(await _simplified(self._backend, program)))
        before, self._last = self._last, None
        if before is not None and not self._fits_twice(program):
            await before.get()
        queued = None if work.states else self._executable.queued({}, work.inputs)
        if queued is not None:
            self._last = PieceResult(queued, work.finish)
            return self._last
        if before is not None:
            await before.get()
        outputs = await _execute(work, self._states, self._executable)
        return PieceResult(_ready(outputs), work.finish)

    async def settle(self) -> None:
        """Wait for the work in flight."""
        last, self._last = self._last, None
        if last is not None:
            await last.get()

    async def stop(self) -> None:
        """Wait for the work in flight, ignore its errors, and free all buffers."""
        try:
            with suppress(Exception):
                await self.settle()
        finally:
            self.close()

    def _fits_twice(self, program: Program) -> bool:
        """Whether the memory holds two results in flight."""
        read = sum(_word_aligned(v.nbytes) for v in program.outputs)
        return device_nbytes(program) + read <= self._limits.memory_nbytes

    def close(self) -> None:
        """Free all buffers on the backend."""
        for each in (self._executable, self._states, self._store):
            if each is not None:
                each.close()
        self._program = self._store = self._states = self._executable = None


async def _ready(outputs: Outputs) -> Outputs:
    return outputs


async def _simplified(backend: Backend, program: Program) -> list[AppliedRewrite]:
    """Count the shaders of a prepared program that the device simplified, by reason."""
    counts = Counter(await backend.simplified(program))
    return [AppliedRewrite("simplified_shader", reason, count) for reason, count in counts.items()]


async def _fill(
    backend: Backend,
    store: WeightStore,
    parameters: Sequence[Parameter],
    weights: Mapping[str, Array],
    *,
    read: bool,
) -> dict[str, Array]:
    """Write the dense weights; quantize the others one after another, slab by slab.

    With `read` returns the blocks' bytes by name.
    """
    quantized = [p for p in parameters if p.dtype != "f32"]
    for parameter in parameters:
        if parameter.dtype == "f32":
            rows = stored_rows(parameter, weights)
            store.write(store.targets[parameter.name], 0, rows.data)
    if not quantized:
        return {}
    staging = _staging_nbytes(quantized, backend.limits.binding_nbytes)
    quantizer = await backend.quantizer(
        store, quantized, staging_nbytes=staging, max_blocks=SLAB_BLOCKS
    )
    try:
        for parameter in quantized:
            rows = stored_rows(parameter, weights)
            async for _ in quantize_slabs(
                quantizer, parameter, rows, staging, backend.done, _SLABS
            ):
                pass
        for name, sums in (await quantizer.sums()).items():
            if sums.n_unfit:
                problem = f"{sums.n_unfit:,} others"
                raise InputError(
                    f"weights {name!r}", "finite numbers that fit their blocks", problem
                )
        return {p.name: await read_blocks(quantizer, p) for p in quantized if read}
    finally:
        quantizer.close()


async def _execute(work: Work, states: StateStore, executable: Executable) -> dict[str, Array]:
    """Run once; return the outputs by name, or the states after the run if the work keeps those."""
    shapes: dict[str, tuple[int, ...]] = {}
    for name, make in work.states.items():
        array = np.ascontiguousarray(make())
        shapes[name] = array.shape
        states.write(name, 0, array.data)
    if not work.keeps_states:
        return await executable.run({}, work.inputs)
    await executable.submit({}, work.inputs)
    result = {name: np.empty(shape, np.float32) for name, shape in shapes.items()}
    for name, array in result.items():
        await states.read(name, 0, array.data)
    return result


def stored_rows(parameter: Parameter, weights: Mapping[str, Array]) -> Array:
    """Return the rows of a parameter, from its stacked tensors."""
    tensors = [weights[name] for name in parameter.tensors]
    stacked = tensors[0] if len(tensors) == 1 else np.concatenate(tensors)
    rows = stacked[parameter.first :][: parameter.rows or None]
    if rows.shape != parameter.shape:
        raise InputError(f"parameter {parameter.name}", str(parameter.shape), str(rows.shape))
    return np.ascontiguousarray(rows)
