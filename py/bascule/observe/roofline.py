"""The measured roofline of a device, and how close each dispatch of a trace comes to it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Literal

from bascule.backend.base import Backend
from bascule.backend.profile import TimedBy
from bascule.backend.tracing import TracedCall
from bascule.program.compile import freeze
from bascule.program.graph import Graph
from bascule.program.ops import cost_of
from bascule.program.program import Program

_RUNS, _MANY_RUNS = 3, 40
_ROUNDED_S = 2e-3  # shorter times may be a rounding's: Chromium rounds to 0.1 ms, WebKit to 1 ms


@dataclass(frozen=True, slots=True)
class Sizes:
    """How many float32 are copied, a multiple of 1,024, and the rows of each square matrix."""

    copied: int
    side: int


# Past the caches of a GPU; on a software adapter that would take seconds.
_OF_A_GPU, _OF_SOFTWARE = Sizes(16 << 20, 2048), Sizes(4 << 20, 512)
QUICK_SIZES = Sizes(1 << 18, 128)


def usual_sizes(backend: Backend) -> Sizes:
    """Return the sizes at which a backend of that kind reaches its peak."""
    software = backend.adapter is None or backend.adapter.software
    return _OF_SOFTWARE if software else _OF_A_GPU


@dataclass(frozen=True, slots=True)
class Roofline:
    """Measured bytes per second of a copy, and operations per second of a matrix product."""

    bytes_per_s: float
    flops_per_s: float
    timed_by: TimedBy

    def attainable_s(self, flops: float, nbytes: float) -> float:
        """Return the least time of that many operations on that many bytes."""
        return max(flops / self.flops_per_s, nbytes / self.bytes_per_s)


@dataclass(frozen=True, slots=True)
class DispatchPerformance:
    """A dispatch beside the roofline.

    `flops` are two per multiply-add; `share` is the attainable time over the measured one, None if
    that is below the clock's resolution. Above 1: its data was in a cache.
    """

    index: int
    op: str
    kernel: str
    ms: float
    nbytes: int
    flops: int
    attainable_ms: float
    share: float | None
    bound_by: Literal["memory", "compute"]


@dataclass(frozen=True, slots=True)
class ShaderPerformance:
    """The timed dispatches of a trace, in order, and the device's roofline."""

    roofline: Roofline
    dispatches: tuple[DispatchPerformance, ...]

    @property
    def slowest(self) -> tuple[DispatchPerformance, ...]:
        """The dispatches by the time that could be saved, most first: measured less attainable."""
        return tuple(sorted(self.dispatches, key=lambda each: each.attainable_ms - each.ms))


async def measure_roofline(
    backend: Backend,
    product_op: Literal["matmul", "linear"] = "matmul",
    sizes: Sizes | None = None,
) -> Roofline:
    """Time a copy and a matrix product, by the op of that name; sizes by the kind of backend.

    The WASM tier has a kernel only for linear layers: its matmul is numpy's. InputError if another
    profile is running.
    """
    sizes = sizes or usual_sizes(backend)
    copied = _copy(sizes.copied)
    product = _product(sizes.side, product_op)
    async with backend.turns.turn():
        copy_s, timed_by = await _seconds(backend, copied)
        product_s, _ = await _seconds(backend, product)
    copy_cost, product_cost = cost_of(copied.calls[0]), cost_of(product.calls[0])
    flops_per_s = 2 * product_cost.multiply_adds / product_s
    return Roofline(copy_cost.nbytes / copy_s, flops_per_s, timed_by)


def compare_with_roofline(roofline: Roofline, calls: Sequence[TracedCall]) -> ShaderPerformance:
    """Compare each timed dispatch with the roofline, by the op table's costs at the run's sizes."""
    results: list[DispatchPerformance] = []
    for each in calls:
        if each.seconds is None:
            continue
        cost = cost_of(each.call)
        flops = 2 * cost.multiply_adds
        min_s = roofline.attainable_s(flops, cost.nbytes)
        in_memory = cost.nbytes / roofline.bytes_per_s >= flops / roofline.flops_per_s
        results.append(
            DispatchPerformance(
                each.index,
                each.call.op,
                each.kernel.variant,
                1e3 * each.seconds,
                cost.nbytes,
                flops,
                1e3 * min_s,
                min_s / each.seconds if each.seconds else None,
                "memory" if in_memory else "compute",
            )
        )
    return ShaderPerformance(roofline, tuple(results))


def _copy(n: int) -> Program:
    graph = Graph("copy bandwidth")
    graph.output(graph.call("scale", graph.input("x", (n // 1024, 1024)), by=1.0))
    return freeze(graph)


def _product(side: int, op: str) -> Program:
    graph = Graph("product rate")
    x, y = graph.input("x", (side, side)), graph.input("y", (side, side))
    options = {"activation": "none"} if op == "linear" else {}
    graph.output(graph.call(op, x, y, **options))
    return freeze(graph)


async def _seconds(backend: Backend, program: Program) -> tuple[float, TimedBy]:
    """Return the time of a run, after a first one, which compiles and touches the memory.

    The shortest of a few; the mean of many if they are short for a clock that browsers round.
    """
    stores = {v.name: backend.states((v,), {}) for v in (*program.inputs, *program.outputs)}
    operands = {v.name: stores[v.name] for v in program.inputs}
    results = {v.name: stores[v.name] for v in program.outputs}
    computation = await backend.computation(program)

    async def run() -> None:
        await computation.run(operands, results)
        await backend.done()  # what is only queued is not timed

    try:
        await run()
        few, timed_by = await _profiled(backend, run, _RUNS)
        if min(few) >= _ROUNDED_S:
            return min(few), timed_by
        many, timed_by = await _profiled(backend, run, _MANY_RUNS)
    finally:
        computation.close()
        for store in stores.values():
            store.close()
    return max(1e-7, sum(many) / len(many)), timed_by


async def _profiled(
    backend: Backend, run: Callable[[], Awaitable[None]], n_runs: int
) -> tuple[list[float], TimedBy]:
    """Return the seconds of each of that many runs."""
    await backend.start_profile()
    try:
        began = perf_counter()
        for _ in range(n_runs):
            await run()
        ended = perf_counter()
    finally:
        profile = await backend.stop_profile()
    seconds = [span.seconds for span in profile.work]
    return seconds or [(ended - began) / n_runs], profile.timed_by
