"""Running the work of an operation on a backend, within limits, by what rewrites it takes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import prod

from bascule.backend.base import Backend, StateStore, WeightStore
from bascule.base.arrays import np
from bascule.compat.fallback.operation_work import Array, Request, Work
from bascule.errors import InputError
from bascule.program.program import Parameter, Program, Value
from bascule.program.rewrites.rewrite import Limits, Rewrite, Taken, fit
from bascule.weights.quantized import SLAB_BLOCKS
from bascule.weights.slabs import landing_nbytes, quantize_slabs, read_blocks


@dataclass(frozen=True, slots=True)
class Ran:
    """A result, and what it took: bytes of all buffers of the program as it was and as it ran."""

    result: Array
    taken: tuple[Taken, ...]
    plain_nbytes: int
    nbytes: int


def fixed_nbytes(program: Program) -> int:
    """What no rewrite of the calls makes smaller: weights, states and inputs."""
    kept = sum(p.nbytes for p in program.parameters)
    return kept + sum(v.nbytes for v in (*program.states, *program.inputs))


def total_nbytes(program: Program) -> int:
    """Bytes of all that a program holds while it runs."""
    return fixed_nbytes(program) + program.planned_nbytes


async def run_work(
    backend: Backend, work: Work, limits: Limits, rewrites: Sequence[Rewrite]
) -> Ran:
    """Run once; everything that was taken for it on the backend is freed again."""
    async with backend.turns.turn():
        return await _run_work(backend, work, limits, rewrites)


async def _run_work(
    backend: Backend, work: Work, limits: Limits, rewrites: Sequence[Rewrite]
) -> Ran:
    program, taken = fit(work.program, limits, rewrites)
    store = backend.store(program.parameters)
    try:
        only = not program.calls  # the weights are the work
        blocks = await _fill(backend, store, program.parameters, work.weights, read=only)
        if only:
            return Ran(work.finish(blocks), taken, *_filling_nbytes(program))
        states = backend.states(program.states, {})
        try:
            found = await _ran(backend, work, program, store, states)
            taken = (*taken, *await simpler_shaders(backend, program))
        finally:
            states.close()
    finally:
        store.close()
    return Ran(work.finish(found), taken, total_nbytes(work.program), total_nbytes(program))


async def run_in_chunks(
    request: Request, work: Work, most: float, run: Callable[[Work], Awaitable[Ran]]
) -> Ran:
    """Run an operation in as few chunks as keep each of them within `most` bytes, or, where even
    the smallest do not, in the smallest there are.
    """
    operation = request.operation
    chunks = operation.chunks(request) if operation.chunks is not None else None
    if chunks is None or chunks.count == 1:
        return await run(work)
    n, held = 1, total_nbytes(work.program)
    largest = work
    while n < chunks.count and total_nbytes(largest.program) > most:
        n = min(2 * n, chunks.count)
        # The last one is the largest where chunks see more and more.
        largest = operation.record(chunks.part(chunks.count - -(-chunks.count // n), chunks.count))
    ends = [chunks.count * i // n for i in range(n + 1)]
    ran = [await run(operation.record(chunks.part(a, b))) for a, b in pairwise(ends)]
    reason = f"{held:,} bytes, and {most:,.0f} are allowed"
    taken = dict.fromkeys(each for one in ran for each in one.taken)
    return Ran(
        np.concatenate([one.result for one in ran], axis=chunks.axis),
        (Taken(operation.strategies[0], reason, n), *taken),
        held,
        max(one.nbytes for one in ran),
    )


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
    landing = landing_nbytes(in_blocks, backend.limits.binding_nbytes)
    quantizer = await backend.quantizer(
        store, in_blocks, landing_nbytes=landing, most_blocks=SLAB_BLOCKS
    )
    try:
        for parameter in in_blocks:
            rows = rows_of(parameter, weights)
            async for _ in quantize_slabs(quantizer, parameter, rows, landing):
                pass
        for name, sums in (await quantizer.sums()).items():
            if sums.n_unfit:
                told = f"{sums.n_unfit:,} others"
                raise InputError(f"weights {name!r}", "finite numbers that fit their blocks", told)
        return {p.name: await read_blocks(quantizer, p) for p in in_blocks if read}
    finally:
        quantizer.close()


def _filling_nbytes(program: Program) -> tuple[int, int]:
    """Bytes of quantizing: with the floats whole on the device, and as it is done."""
    blocks = sum(p.nbytes for p in program.parameters)
    floats = sum(4 * prod(p.shape) for p in program.parameters)
    return blocks + floats, blocks + landing_nbytes(program.parameters)


async def _ran(
    backend: Backend, work: Work, program: Program, store: WeightStore, states: StateStore
) -> dict[str, Array]:
    """Outputs, and the states that the work keeps, by name."""
    halves = {name: _partitions(program, name, array) for name, array in work.states.items()}
    for parts in halves.values():
        for state, part in parts:
            states.write(state.name, 0, np.ascontiguousarray(part).data)
    executable = await backend.prepare(program, store, states)
    try:
        found = await executable.run({}, work.inputs)
        for name in work.kept:
            found[name] = np.empty(work.states[name].shape, work.states[name].dtype)
            for state, part in _partitions(program, name, found[name]):
                read = np.empty(part.shape, part.dtype)
                await states.read(state.name, 0, read.data)
                part[...] = read
    finally:
        executable.close()
    return found


def _partitions(program: Program, name: str, array: Array) -> list[tuple[Value, Array]]:
    """The states that a state (S, 2, ...) has become, each with its part of `array`, as a view: one
    whole, or some KV heads of keys and values each (see `partitioned_kv_cache`).
    """
    found = [s for s in program.states if s.name == name or s.name.startswith(f"{name}.")]
    flat = array.reshape(len(array), 2, -1)
    widths = [state.limits[1] // 2 for state in found]
    ends = np.cumsum(widths)
    return [
        (state, flat[:, :, end - width : end])
        for state, width, end in zip(found, widths, ends, strict=True)
    ]


def rows_of(parameter: Parameter, weights: Mapping[str, Array]) -> Array:
    """What a parameter holds: its tensors one above the other, of them the rows that it keeps."""
    whole = [weights[name] for name in parameter.tensors]
    stacked = whole[0] if len(whole) == 1 else np.concatenate(whole)
    kept = stacked[parameter.first :][: parameter.rows or None]
    if kept.shape != parameter.shape:
        raise InputError(f"parameter {parameter.name}", str(parameter.shape), str(kept.shape))
    return np.ascontiguousarray(kept)
