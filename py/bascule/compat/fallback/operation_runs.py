"""Running pieces of an operation on a backend, one after the other; two may be in flight."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import chain
from math import inf, prod

from bascule.backend.base import Backend, Executable, StateStore, WeightStore
from bascule.base.arrays import np
from bascule.compat.fallback.operation_work import Array, Request, Work
from bascule.errors import InputError
from bascule.program.ops import cost_of
from bascule.program.program import Parameter, Program
from bascule.program.rewrites.rewrite import Limits, Rewrite, Taken, fit
from bascule.weights.quantized import SLAB_BLOCKS
from bascule.weights.slabs import quantize_slabs, read_blocks, staging_nbytes

# What a dispatch takes for its sizes, and a quantizer for its sums, at most.
_PARAMS_NBYTES = 256
_SUMS_NBYTES = 16 * -(-(SLAB_BLOCKS + 1) // 64) + 16
_READ_NBYTES = 1 << 22
_SLAB_NBYTES = 1 << 16
# Slabs that are queued before one is waited for: a quarter of a piece's floats with the eighths.
_SLABS = 2


def device_nbytes(program: Program) -> int:
    """Bytes of every buffer that a program takes on a device: those that are read back are copied
    to a staging buffer first, and floats that become blocks pass through another.
    """
    kept = sum(_whole_words(v.nbytes) for v in (*program.states, *program.inputs))
    kept += sum(_whole_words(p.nbytes) for p in program.parameters)
    blocks = [p for p in program.parameters if p.dtype != "f32"]
    filling = _staging_nbytes(blocks) + _SUMS_NBYTES * len(blocks) * 2 + 16 if blocks else 0
    if not program.calls:
        return kept + filling + sum(min(_READ_NBYTES, _whole_words(p.nbytes)) for p in blocks)
    read = sum(_whole_words(v.nbytes) for v in (*program.outputs, *program.states))
    running = program.planned_nbytes + _PARAMS_NBYTES * len(program.calls) + read
    return kept + running + filling  # a piece's weights become blocks beside what ran the last


def _staging_nbytes(blocks: Sequence[Parameter], most: float = inf) -> int:
    """Bytes of that staging buffer: an eighth of the floats, so that blocks save memory while they
    are made, too, but no less than a slab that is worth a dispatch.
    """
    eighth = max(4 * prod(p.shape) for p in blocks) // 8
    return staging_nbytes(blocks, min(most, max(_SLAB_NBYTES, eighth)))


def _whole_words(nbytes: int) -> int:
    return max(4, -(-nbytes // 4) * 4)


def broken(program: Program, limits: Limits) -> tuple[str, str, str]:
    """The limit that a program breaks: what does, what that needs and what is allowed; or nothing.

    `Limits.memory_nbytes` bounds all of its buffers here.
    """
    worst = max(_demands(program, limits), key=lambda demand: demand[0])
    return ("", "", "") if worst[0] <= 1 else worst[1:]


def strain(program: Program, limits: Limits) -> float:
    """How much of the limit that it comes nearest to a program takes; past 1 it breaks that."""
    return max(share for share, *_ in _demands(program, limits))


def _demands(program: Program, limits: Limits) -> Iterator[tuple[float, str, str, str]]:
    """For each limit the share of it, what takes that, how much it needs and what is allowed."""
    held = device_nbytes(program)
    yield (
        held / limits.memory_nbytes,
        program.name,
        f"{held:,} bytes on the device",
        f"{limits.memory_nbytes:,.0f} bytes are allowed",
    )
    values = chain(program.parameters, program.states, program.inputs)
    for value in (*values, *(call.result for call in program.calls)):
        yield (
            value.nbytes / limits.binding_nbytes,
            f"{value.name} of {program.name}",
            f"{value.nbytes:,} bytes",
            f"a binding holds at most {limits.binding_nbytes:,.0f}",
        )
    for call in program.calls:
        work = cost_of(call).multiply_adds
        yield (
            work / limits.dispatch_work,
            f"{call.result.name} of {program.name}",
            f"{work:,} multiply-adds",
            f"a dispatch may have {limits.dispatch_work:,.0f}",
        )


Outputs = Mapping[str, Array]


class PieceResult:
    """The result of a piece that a device may not have got to yet."""

    def __init__(self, outputs: Awaitable[Outputs], finish: Callable[[Outputs], Array]) -> None:
        self._outputs: Awaitable[Outputs] | None = outputs
        self._finish = finish
        self._result: Array | None = None

    async def get(self) -> Array:
        """Wait for it. Errors as `Executable.run`, at the first call."""
        if self._outputs is not None:
            outputs, self._outputs = self._outputs, None
            self._result = self._finish(await outputs)
        assert self._result is not None  # nobody asks again for one that has failed
        return self._result


class Pieces:
    """Runs works in a row. What the next one has alike, program or weights, is not made again.

    While a device works on one, the next is written and queued behind it, where that is the same
    program and the memory allows a second result on its way back.
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
        self.taken: dict[Taken, None] = {}
        self.planned_nbytes = 0  # of the largest

    async def run(self, request: Request, work: Work) -> Array:
        """The result of one; the backend's turn is the caller's."""
        return await (await self.start(request, work)).get()

    async def start(self, request: Request, work: Work) -> PieceResult:
        """Run one, or queue it; the one before it may still be on its way."""
        program, taken = fit(work.program, self._limits, self._rewrites)
        self.taken.update(dict.fromkeys(taken))
        self.planned_nbytes = max(self.planned_nbytes, device_nbytes(program))
        alike = program == self._program
        if not alike:
            await self.settle()
            self.close()
            self._backend.trim()
            self._store = self._backend.store(program.parameters)
            self._program = program
        assert self._store is not None
        only = not program.calls  # the weights are the work
        named = request.weights_of is not None and request.weights_of == self._weights_of
        if only or not (alike and named):
            blocks = await _fill(
                self._backend, self._store, program.parameters, work.weights, read=only
            )
            self._weights_of = request.weights_of
            if only:
                return PieceResult(_ready(blocks), work.finish)
        if self._states is None or self._executable is None:
            self._states = self._backend.states(program.states, {})
            self._executable = await self._backend.prepare(program, self._store, self._states)
            self.taken.update(dict.fromkeys(await simpler_shaders(self._backend, program)))
        before, self._last = self._last, None
        if before is not None and not self._has_room(program):
            await before.get()
        queued = None if work.states else self._executable.queued({}, work.inputs)
        if queued is not None:
            self._last = PieceResult(queued, work.finish)
            return self._last
        if before is not None:
            await before.get()
        outputs = await _ran(work, self._states, self._executable)
        return PieceResult(_ready(outputs), work.finish)

    async def settle(self) -> None:
        """Wait for the one that is on its way."""
        last, self._last = self._last, None
        if last is not None:
            await last.get()

    async def stop(self) -> None:
        """Wait for what is on its way, whatever becomes of it, and free everything."""
        try:
            with suppress(Exception):
                await self.settle()
        finally:
            self.close()

    def _has_room(self, program: Program) -> bool:
        """Whether two results may be on their way back at a time."""
        read = sum(_whole_words(v.nbytes) for v in program.outputs)
        return device_nbytes(program) + read <= self._limits.memory_nbytes

    def close(self) -> None:
        """Free everything that was taken on the backend."""
        for each in (self._executable, self._states, self._store):
            if each is not None:
                each.close()
        self._program = self._store = self._states = self._executable = None


async def run_plainly(backend: Backend, request: Request) -> Array:
    """The result of an operation in one piece, whatever it takes."""
    pieces = Pieces(backend, Limits())
    try:
        async with backend.turns.turn():
            return await pieces.run(request, request.operation.record(request))
    finally:
        await pieces.stop()


async def _ready(outputs: Outputs) -> Outputs:
    return outputs


async def simpler_shaders(backend: Backend, program: Program) -> list[Taken]:
    """What a device made simpler of a program that is prepared on it: a row for each reason."""
    counts = Counter(await backend.simplified(program))
    return [Taken("simplified_shader", reason, count) for reason, count in counts.items()]


async def _fill(
    backend: Backend,
    store: WeightStore,
    parameters: Sequence[Parameter],
    weights: Mapping[str, Array],
    *,
    read: bool,
) -> dict[str, Array]:
    """Write the dense ones; make blocks of the others, one after the other, slab by slab.

    Gives the blocks' bytes by name where they are to be `read`.
    """
    in_blocks = [p for p in parameters if p.dtype != "f32"]
    for parameter in parameters:
        if parameter.dtype == "f32":
            rows = rows_of(parameter, weights)
            store.write(store.targets[parameter.name], 0, rows.data)
    if not in_blocks:
        return {}
    staging = _staging_nbytes(in_blocks, backend.limits.binding_nbytes)
    quantizer = await backend.quantizer(
        store, in_blocks, staging_nbytes=staging, most_blocks=SLAB_BLOCKS
    )
    try:
        for parameter in in_blocks:
            rows = rows_of(parameter, weights)
            async for _ in quantize_slabs(quantizer, parameter, rows, staging, _SLABS):
                pass
        for name, sums in (await quantizer.sums()).items():
            if sums.n_unfit:
                problem = f"{sums.n_unfit:,} others"
                raise InputError(
                    f"weights {name!r}", "finite numbers that fit their blocks", problem
                )
        return {p.name: await read_blocks(quantizer, p) for p in in_blocks if read}
    finally:
        quantizer.close()


async def _ran(work: Work, states: StateStore, executable: Executable) -> dict[str, Array]:
    """Outputs by name, or what the states hold after the run where the work keeps those."""
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


def rows_of(parameter: Parameter, weights: Mapping[str, Array]) -> Array:
    """What a parameter holds: its tensors one above the other, of them the rows that it keeps."""
    whole = [weights[name] for name in parameter.tensors]
    stacked = whole[0] if len(whole) == 1 else np.concatenate(whole)
    kept = stacked[parameter.first :][: parameter.rows or None]
    if kept.shape != parameter.shape:
        raise InputError(f"parameter {parameter.name}", str(parameter.shape), str(kept.shape))
    return np.ascontiguousarray(kept)
