"""Measure which candidate is the fastest for each kind of call on this device.

For each signature all candidates run in turn, round after round, on scratch buffers of its largest
shapes. A sample is a tape of many dispatches and the wait for them, less the time of a wait alone.
A candidate must agree with the numbers of the default, and replaces it only if repeated pairs of
samples show it at least 5% faster.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from statistics import median
from time import perf_counter

from bascule.backend.tuning import Finding, TuneReport
from bascule.backend.webgpu.choices import signature
from bascule.backend.webgpu.gpu import Gpu
from bascule.backend.webgpu.kernel import Kernel
from bascule.backend.webgpu.kernels import candidates
from bascule.backend.webgpu.pipelines import Pipelines
from bascule.backend.webgpu.proving import deviation
from bascule.backend.webgpu.tape import Binding, TapeBuilder
from bascule.base.arrays import Array, np
from bascule.base.progress import Progress, ProgressCallback
from bascule.errors import DeviceLostError, GpuError
from bascule.program.ops import cost_of, is_part
from bascule.program.program import Call, Program, Value

GAIN = 0.05
_ROUNDS = 3
_PAIRS = 5
_SAMPLE_MS = 25.0
_MAX_DISPATCHES = 200
# A candidate that takes this many times as long as the best so far is not measured again.
_MUCH_SLOWER = 1.5
# A signature that alone would take this share of the remaining budget is measured last.
_SHARE = 0.25
# Relative to the RMS of the default's results: reordered f32 sums differ by a hundredth of it.
_TOLERANCE = 1e-3


class _OutOfTimeError(Exception):
    """The budget ended within a signature."""


async def tune(
    gpu: Gpu,
    pipelines: Pipelines,
    programs: Iterable[Program],
    *,
    budget_s: float,
    progress: ProgressCallback | None = None,
) -> TuneReport:
    """Measure what is not known yet; choices are stored after each signature.

    Programs are measured in order, the most expensive signatures first. A cancelled tuning keeps
    what it has finished.
    """
    notify = progress or (lambda _: None)
    began = perf_counter()
    report, todo = TuneReport(), _todo(gpu, programs)
    bench = _Bench(gpu, pipelines, began + budget_s)
    missing = [job for job in todo if not pipelines.choices.is_tuned(job.call, job.variants(gpu))]
    report.known = len(todo) - len(missing)
    waiting = list(missing)
    try:
        await bench.open()
        for share in (_SHARE, 1.0):
            for job in list(waiting):
                notify(Progress("tuning", len(missing) - len(waiting), len(missing), "signatures"))
                try:
                    finding = await _measure(bench, job, report, share)
                except _OutOfTimeError:
                    continue
                except DeviceLostError:
                    raise
                except GpuError:  # too large for this device: no run will ask for it either
                    waiting.remove(job)
                    report.skipped.append(signature(job.call))
                    continue
                if finding is not None:
                    report.findings.append(finding)
                    await pipelines.choices.save()
                waiting.remove(job)
    finally:
        bench.close()
        await pipelines.choices.save()
    report.skipped += [signature(job.call) for job in waiting]
    report.spent_s = perf_counter() - began
    done = len(missing) - len(waiting)
    notify(Progress("tuning", done, len(missing), "signatures"))
    return report


@dataclass(frozen=True, slots=True)
class _Job:
    call: Call
    count: int

    def variants(self, gpu: Gpu) -> tuple[Kernel, ...]:
        return candidates(self.call, gpu.adapter)


def _todo(gpu: Gpu, programs: Iterable[Program]) -> list[_Job]:
    """Return each signature with a choice once, in the order of measuring."""
    results: dict[str, _Job] = {}
    for program in programs:
        fresh: dict[str, _Job] = {}
        for call in program.calls:
            name = signature(call)
            known = fresh.get(name)
            fresh[name] = _Job(call, known.count + 1 if known else 1)
        expensive = sorted(fresh.items(), key=lambda item: -_work(item[1].call) * item[1].count)
        for name, job in expensive:
            if name not in results and len(job.variants(gpu)) > 1:
                results[name] = job
    return list(results.values())


def _work(call: Call) -> float:
    """Estimate the operations of a call, to order calls: moving a byte counts as one."""
    cost = cost_of(call)
    return 2.0 * cost.multiply_adds + cost.nbytes


async def _measure(bench: _Bench, job: _Job, report: TuneReport, share: float) -> Finding | None:
    """Return None if no candidate works; _OutOfTimeError if the budget ended."""
    call, choices = job.call, bench.pipelines.choices
    variants = [k for k in job.variants(bench.gpu) if k.digest not in choices.failed]
    for kernel, error in await bench.pipelines.attempt(variants):
        choices.note_failure(kernel, error.messages)
        variants.remove(kernel)
    if not variants:
        choices.give_up(call, job.variants(bench.gpu))
        return None
    if not bench.fits_budget(bench.guess_ms(call), len(variants), share):
        raise _OutOfTimeError
    scratch = _Scratch(bench.gpu, variants[0], part=is_part(call))
    try:
        default = variants[0]
        once, expected = await bench.prove(scratch, default)
        bench.note(call, once)
        if not np.isfinite(expected).all():
            report.wrong.append(
                f"{signature(call)}: {default.variant}: it gave numbers that are not finite"
            )
            return None
        if not bench.fits_budget(once, len(variants), share):
            raise _OutOfTimeError
        first_ms = {default.variant: once}
        for kernel in variants[1:]:
            if 4e-3 * once > bench.remaining_s:  # another may well be that much slower
                raise _OutOfTimeError
            fault, first_ms[kernel.variant] = await _fault(bench, scratch, kernel, expected)
            if fault:
                choices.note_failure(kernel, [(0, fault)], wrong=True)
                report.wrong.append(f"{signature(call)}: {kernel.variant}: {fault}")
        variants = [k for k in variants if k.digest not in choices.failed]
        times = await _times(bench, scratch, variants, first_ms)
        best = min(variants, key=lambda k: times[k.variant])
        leads = times[best.variant] <= (1 - GAIN) * times[default.variant]
        if not leads or not await _is_faster(bench, scratch, best, default):
            best = default
    finally:
        scratch.close()
    choices.note_tuned(call, best, [(k, times[k.variant]) for k in variants])
    return Finding(signature(call), job.count, default.variant, best.variant, times)


async def _fault(
    bench: _Bench, scratch: _Scratch, kernel: Kernel, expected: Array
) -> tuple[str, float]:
    """Return what is wrong with a kernel's numbers, empty if they agree; and its time."""
    try:
        once, result = await bench.prove(scratch, kernel)
    except DeviceLostError:
        raise
    except GpuError as error:
        return error.problem, 0.0
    difference = deviation(result, expected)
    return f"its numbers are off by {difference:.3g}" if difference > _TOLERANCE else "", once


async def _times(
    bench: _Bench, scratch: _Scratch, variants: Sequence[Kernel], first_ms: Mapping[str, float]
) -> dict[str, float]:
    """Return each candidate's median over the rounds, in milliseconds per dispatch.

    `first_ms` has the times of first runs: much slower candidates do not run again.
    """
    limit_ms = 2 * _MUCH_SLOWER * min(first_ms[k.variant] for k in variants) + bench.uncertainty_ms
    slow = {k.variant: ms for k in variants[1:] if (ms := first_ms[k.variant]) > limit_ms}
    results: dict[str, list[float]] = {k.variant: [] for k in variants if k.variant not in slow}
    for _ in range(_ROUNDS):
        fastest = min([median(ms) for ms in results.values() if ms], default=limit_ms)
        for kernel in variants:
            samples = results.get(kernel.variant)
            if samples is None:
                continue
            before = median(samples) if samples else None
            if before is None or before <= _MUCH_SLOWER * fastest or kernel is variants[0]:
                samples.append(await bench.sample(scratch, kernel, before))
    return {**slow, **{variant: median(samples) for variant, samples in results.items()}}


async def _is_faster(bench: _Bench, scratch: _Scratch, best: Kernel, default: Kernel) -> bool:
    """Whether `best` is faster again, pair by pair: the fastest of many is so partly by chance."""
    ratios: list[float] = []
    for _ in range(_PAIRS):
        mine = await bench.sample(scratch, best)
        ratios.append(mine / max(1e-6, await bench.sample(scratch, default)))
    return median(ratios) <= 1 - GAIN


class _Scratch:
    """Buffers for one call at its largest shapes: random operands, a result.

    `before` is what the result holds before the call: what a part leaves unchanged counts as right.
    """

    def __init__(self, gpu: Gpu, kernel: Kernel, *, part: bool) -> None:
        self._gpu = gpu
        self.before = 0.0 if part else np.nan
        self.buffers: dict[str, int] = {}
        self.result: Value = kernel.operands[-1]
        self.params = gpu.alloc(256, uniform=True)
        try:
            for value in kernel.operands:
                if value.name not in self.buffers:
                    self.buffers[value.name] = gpu.alloc(value.nbytes)
                    if value is not self.result:
                        gpu.write(self.buffers[value.name], 0, _filling(value).data)
        except GpuError:
            self.close()
            raise

    def close(self) -> None:
        if self._gpu.lost:
            return
        for buffer in (self.params, *self.buffers.values()):
            self._gpu.free(buffer)
        self.buffers.clear()


def _filling(value: Value) -> Array:
    """Standard normals, repeated; integers are text lengths and token ids.

    Any two bytes of blocks are a small positive float16: scales are finite in every format.
    """
    count = prod(value.limits)
    if value.dtype == "u32":
        return np.full(count, 1 << 20, np.uint32)
    if value.dtype not in ("f32", "f16"):
        sane = np.random.default_rng(count).integers(0x20, 0x3C, min(value.nbytes, 65521), np.uint8)
        return np.resize(sane, value.nbytes)
    some = np.random.default_rng(count).standard_normal(min(count, 65521))
    some = some.astype(np.float16 if value.dtype == "f16" else np.float32)
    return np.resize(some, count)


class _Bench:
    """Times tapes on a device."""

    def __init__(self, gpu: Gpu, pipelines: Pipelines, end: float) -> None:
        self.gpu = gpu
        self.pipelines = pipelines
        self._end = end
        self._idle = 0
        self._base_ms = 0.0
        self._rates: dict[str, float] = {}

    async def open(self) -> None:
        """Measure the time of a wait alone."""
        self._idle = self.gpu.record(TapeBuilder().words())
        self._base_ms = min([await self._timed(self._idle) for _ in range(8)])

    def close(self) -> None:
        if self._idle and not self.gpu.lost:
            self.gpu.forget(self._idle)

    @property
    def remaining_s(self) -> float:
        """Seconds that remain of the budget."""
        return self._end - perf_counter()

    @property
    def uncertainty_ms(self) -> float:
        """How far the time of a first dispatch may be off: some drivers finish compiling in it."""
        return max(50.0, 2 * self._base_ms)

    def fits_budget(self, once_ms: float, variants: int, share: float) -> bool:
        """Whether a share of the remaining time suffices if one dispatch takes that long.

        An estimate, before the other candidates' times are known: each runs at least once.
        """
        return once_ms * (variants + _ROUNDS + _PAIRS) <= share * self.remaining_s * 1e3

    def note(self, call: Call, once_ms: float) -> None:
        """Record how long such a call takes, to estimate others."""
        self._rates[call.op] = once_ms / _work(call)

    def guess_ms(self, call: Call) -> float:
        """Estimate the time of a dispatch; 0 if nothing similar was measured yet."""
        return self._rates.get(call.op, 0.0) * _work(call)

    async def prove(self, scratch: _Scratch, kernel: Kernel) -> tuple[float, Array]:
        """Return the milliseconds of one dispatch, and its result, which held `before`."""
        result = scratch.buffers[scratch.result.name]
        output = np.full(prod(scratch.result.limits), scratch.before, np.float32)
        self.gpu.write(result, 0, output.data)
        ms = await self._run(scratch, kernel, 1)
        await self._wait(self.gpu.read(result, 0, output.data))
        return ms, output

    async def sample(
        self, scratch: _Scratch, kernel: Kernel, hint_ms: float | None = None
    ) -> float:
        """Return milliseconds per dispatch, over as many as make a sample long enough."""
        guess = hint_ms if hint_ms is not None else await self._run(scratch, kernel, 1)
        if hint_ms is None and 16 * guess < _SAMPLE_MS:  # the time of one is too short then
            guess = await self._run(scratch, kernel, 8) / 8
        count = max(1, min(_MAX_DISPATCHES, round(_SAMPLE_MS / max(guess, 1e-3))))
        return await self._run(scratch, kernel, count) / count

    async def _run(self, scratch: _Scratch, kernel: Kernel, count: int) -> float:
        if self.remaining_s <= 0:
            raise _OutOfTimeError
        sizes = {
            d.name: d.limit for v in kernel.operands for d in v.shape if not isinstance(d, int)
        }
        params = kernel.params(sizes)
        self.gpu.write(scratch.params, 0, params)
        places = [at for at, letter in enumerate(kernel.bindings) if letter != "-"]
        bindings: list[Binding] = [(0, scratch.params, 0, 256)]
        for at, value in zip(places[1:], kernel.operands, strict=True):
            bindings.append((at, scratch.buffers[value.name], 0, value.nbytes))
        tape = TapeBuilder()
        for _ in range(count):
            tape.dispatch(self.pipelines.handle(kernel), bindings, kernel.launch())
        recorded = self.gpu.record(tape.words())
        try:
            ms = await self._timed(recorded)
        finally:
            if not self.gpu.lost:
                self.gpu.forget(recorded)
        return max(1e-6, ms - self._base_ms)

    async def _timed(self, tape: int) -> float:
        """Return milliseconds from a replay until the device has finished it."""
        began = perf_counter()
        self.gpu.replay(tape)
        await self._wait(self.gpu.done())
        return 1e3 * (perf_counter() - began)

    async def _wait(self, work: Awaitable[None]) -> None:
        waiting = asyncio.ensure_future(work)
        try:
            await asyncio.shield(waiting)
        except asyncio.CancelledError:
            # The device is still working: wait before its buffers are freed.
            with contextlib.suppress(GpuError):
                await waiting
            raise
