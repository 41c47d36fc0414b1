"""Measure a tier's speed with a few small programs, in bounded time."""

from __future__ import annotations

import asyncio
from array import array
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from math import inf, log
from time import perf_counter
from typing import Any

from bascule.backend.base import Backend, Executable, WeightStore
from bascule.choosing.measured_programs import MeasuredProgram, measured_program, work_of
from bascule.choosing.speeds import Kind, Sample, Speeds
from bascule.errors import BasculeError, DeviceLostError, TierUnavailableError

# Cheap ones first: if the budget ends, the remaining sizes are extrapolated from the largest one
# measured.
SAMPLES: tuple[tuple[Kind, int], ...] = (
    ("product", 32),
    ("pass", 1 << 10),
    ("blocks", 1024),
    ("product", 128),
    ("pass", 1 << 15),
    ("pass", 1 << 20),
    ("product", 512),
)
# Each sample is timed once when it is opened and once per round; rounds are a pause apart, so that
# a busy moment affects only one of them. A measurement is complete after the first round.
_ROUNDS = 3
_PAUSE_S = 0.05
_IN_A_ROW = 5
# The first sample of each kind and the first round may take this many times the budget.
_PATIENCE = 6


async def measure(backend: Backend, budget_s: float) -> tuple[Speeds, bool]:
    """Time the first sample of each kind, and as many more as fit `budget_s` with a round of all.

    Only runs are timed, not compiling and uploading. Returns the shortest times, and whether each
    sample was timed twice; a measurement that would take several times the budget is cut short, and
    must not be remembered. Samples that the device rejects are left out. TierUnavailableError if a
    tier's numbers are wrong, DeviceLostError.
    """
    spent = _Spent(_PATIENCE * budget_s)
    trials: list[_Trial] = []
    try:
        for kind, n in SAMPLES:
            alike = [trial for trial in trials if trial.kind == kind]
            if alike and spent.seconds + _opening_s(alike, n) + _round_s(trials) > budget_s:
                continue
            await _open(backend, kind, n, trials, spent, budget_s if alike else inf)
        await _rounds(backend, trials, spent, budget_s)
    finally:
        for trial in trials:
            trial.close()
    if backend.lost:
        raise DeviceLostError(backend.lost)
    results: dict[Kind, tuple[Sample, ...]] = {}
    for trial in trials:
        results[trial.kind] = (*results.get(trial.kind, ()), trial.sample)
    return Speeds(results), not spent.cut_off


async def check(backend: Backend) -> None:
    """Run the smallest sample of each kind, untimed.

    Samples that the device rejects are left out. TierUnavailableError if its numbers are wrong,
    DeviceLostError.
    """
    for kind, n in dict(reversed(SAMPLES)).items():  # the first of a kind is the smallest
        await _open(backend, kind, n, [], _Spent(0.0), 0.0)


async def _rounds(backend: Backend, trials: list[_Trial], spent: _Spent, budget_s: float) -> None:
    """Time all trials again, at least once and up to `_ROUNDS` times within the budget."""
    for index in range(_ROUNDS):
        if spent.cut_off or (index and spent.seconds + _round_s(trials) > budget_s):
            return
        await asyncio.sleep(_PAUSE_S)
        for trial in list(trials):
            try:
                await trial.time(spent)
            except BasculeError as error:
                _raise_lost(backend, error)
                trials.remove(trial)
                trial.close()


async def _open(
    backend: Backend, kind: Kind, n: int, trials: list[_Trial], spent: _Spent, budget_s: float
) -> None:
    """Open a sample and time it; drop it if it does not fit the budget."""
    try:
        trial = await _Trial.opened(backend, measured_program(kind, n), spent)
    except TierUnavailableError:
        raise
    except BasculeError as error:
        _raise_lost(backend, error)
        return
    trials.append(trial)
    try:
        row_s = _IN_A_ROW * trial.once_s
        if spent.seconds + row_s + _round_s(trials) > budget_s:
            trials.remove(trial)
            trial.close()
        else:
            await trial.time_row(spent)
    except BasculeError as error:
        _raise_lost(backend, error)
        trials.remove(trial)
        trial.close()


def _raise_lost(backend: Backend, error: BasculeError) -> None:
    """Raise if the device is lost: nothing measured on it counts."""
    if isinstance(error, DeviceLostError):
        raise error
    if backend.lost:
        raise DeviceLostError(backend.lost) from error


def _round_s(trials: Sequence[_Trial]) -> float:
    """Return the time of a round."""
    return sum(trial.round_s for trial in trials)


def _opening_s(alike: Sequence[_Trial], n: int) -> float:
    """Estimate the time of opening the next size and its round; `alike` are smaller sizes."""
    *others, last = alike
    again_s = last.sample.again_s
    # 0 if all time is overhead, 1 if all is arithmetic: from the last two sizes.
    slope = 1 / 3
    if others:
        before = others[-1]
        grown = log(again_s / before.sample.again_s) / log(last.work / before.work)
        slope = min(1.0, max(0.0, grown) + 1 / 3)
    more_s = again_s * ((work_of(last.kind, n) / last.work) ** slope - 1)
    once_s = last.once_s + more_s
    return 3 * once_s + 2 * _IN_A_ROW * (again_s + more_s)


@dataclass(slots=True)
class _Spent:
    """The time spent in runs so far, and its limit."""

    max_s: float
    seconds: float = 0.0
    cut_off: bool = False

    async def timed(self, run: Coroutine[Any, Any, object]) -> float:
        """Await a run; return its seconds."""
        began = perf_counter()
        await run
        # Clocks in a page are coarse: a run may seem to take no time.
        seconds = max(perf_counter() - began, 1e-6)
        self.seconds += seconds
        return seconds

    def allows(self, seconds: float) -> bool:
        """Whether that much more time may be spent; if not, the measurement is cut short."""
        self.cut_off |= self.seconds + seconds > self.max_s
        return not self.cut_off


@dataclass(slots=True)
class _Trial:
    """A sample that is ready to run, and its shortest times."""

    measured: MeasuredProgram
    executable: Executable
    store: WeightStore
    result: array[float]
    once_s: float = inf
    again_s: float = inf

    @classmethod
    async def opened(cls, backend: Backend, measured: MeasuredProgram, spent: _Spent) -> _Trial:
        """Return a trial that has run twice: once to check its numbers, once to time it."""
        store = backend.store(measured.program.parameters)
        executable: Executable | None = None
        try:
            if measured.weight is not None:
                store.write(store.targets["w"], 0, measured.weight)
            executable = await backend.prepare(measured.program, store)
            result = array("f", bytes(4 * measured.n_results))
            trial = cls(measured, executable, store, result)
            await spent.timed(trial._run())
            if fault := measured.fault(result):
                raise TierUnavailableError(backend.tier, f"{backend.device_name} gave {fault}")
            trial.once_s = await spent.timed(trial._run())
        except BaseException:
            if executable is not None:
                executable.close()
            store.close()
            raise
        return trial

    @property
    def kind(self) -> Kind:
        """The kind of work it samples."""
        return self.measured.kind

    @property
    def work(self) -> int:
        """The work of a run."""
        return work_of(self.kind, self.measured.n)

    @property
    def sample(self) -> Sample:
        """Its shortest times."""
        return Sample(self.work, self.once_s, min(self.again_s, self.once_s))

    @property
    def round_s(self) -> float:
        """The time of timing it again."""
        return self.once_s + _IN_A_ROW * self.sample.again_s

    async def time(self, spent: _Spent) -> None:
        """Time a run alone, and several in a row, as far as `spent` allows."""
        if spent.allows(self.once_s):
            self.once_s = min(self.once_s, await spent.timed(self._run()))
        await self.time_row(spent)

    async def time_row(self, spent: _Spent) -> None:
        """Time several runs in a row, if `spent` allows."""
        if spent.allows(_IN_A_ROW * self.sample.again_s):
            row_s = await spent.timed(self._run_in_a_row())
            self.again_s = min(self.again_s, max(row_s / _IN_A_ROW, 1e-7))

    async def _run(self) -> None:
        await self.executable.run({}, self.measured.inputs, [self.result])

    async def _run_in_a_row(self) -> None:
        await self.executable.submit({}, self.measured.inputs, _IN_A_ROW - 1)
        await self._run()

    def close(self) -> None:
        """Free its buffers."""
        self.executable.close()
        self.store.close()
