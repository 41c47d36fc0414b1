"""Measuring how fast a tier is here: a few tiny frozen programs, timed in bounded time."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from math import inf
from time import perf_counter
from typing import Any

from bascule.arrays import Array, np
from bascule.backend.base import Backend, Executable, WeightStore
from bascule.backend.reference import FUNCTIONS
from bascule.dtypes import BlockType
from bascule.errors import BasculeError, DeviceLostError, TierUnavailableError
from bascule.program.blocks import BlockMatrix
from bascule.program.compile import freeze
from bascule.program.graph import Graph
from bascule.program.program import Program
from bascule.tiers.speeds import Kind, Sample, Speeds

# Cheap ones first: when the budget ends, what is left out is read off the largest one measured.
SAMPLES: tuple[tuple[Kind, int], ...] = (
    ("product", 32),
    ("pass", 1 << 10),
    ("blocks", 1024),
    ("product", 128),
    ("pass", 1 << 15),
    ("pass", 1 << 20),
    ("product", 512),
)
# Each sample is timed once a round, and rounds are a pause apart: a busy moment spoils one of them.
_ROUNDS = 3
_PAUSE_S = 0.05
_IN_A_ROW = 5
# float32 sums of up to 1024 products of numbers around 1.
_TOLERANCE = 1e-3


def work_of(kind: Kind, n: int) -> int:
    """How much work a sample of size n is."""
    return {"product": n**3, "pass": n, "blocks": n * n}[kind]


async def measure(backend: Backend, budget_s: float) -> tuple[Speeds, bool]:
    """Time the samples: the first of each kind, and as many more as fit `budget_s`.

    Gives the least times of several rounds, and whether there was time for all rounds: what was
    cut off is no record. The run that crosses the budget's end is the last. What the device refuses
    is left out. TierUnavailableError when a tier's numbers are wrong, DeviceLostError.
    """
    until = perf_counter() + budget_s
    trials: list[_Trial] = []
    try:
        for kind, n in SAMPLES:
            last = next((t for t in reversed(trials) if t.kind == kind), None)
            if last is None or _fits(last, work_of(kind, n), trials, until):
                await _open(backend, kind, n, trials)
        whole = await _rounds(backend, trials, until)
    finally:
        for trial in trials:
            trial.close()
    found: dict[Kind, tuple[Sample, ...]] = {}
    for trial in trials:
        found[trial.kind] = (*found.get(trial.kind, ()), trial.sample)
    return Speeds(found), whole


async def _rounds(backend: Backend, trials: list[_Trial], until: float) -> bool:
    """Whether all rounds came to their end."""
    for index in range(_ROUNDS):
        if index:
            await asyncio.sleep(_PAUSE_S)
        for trial in list(trials):
            if perf_counter() >= until:
                return False
            try:
                await trial.time(until)
            except BasculeError as error:
                _raise_lost(backend, error)
                trials.remove(trial)
                trial.close()
    return True


async def _open(backend: Backend, kind: Kind, n: int, trials: list[_Trial]) -> None:
    try:
        trials.append(await _Trial.opened(backend, kind, n))
    except TierUnavailableError:
        raise
    except BasculeError as error:
        _raise_lost(backend, error)


def _raise_lost(backend: Backend, error: BasculeError) -> None:
    """Raise where the device is gone: nothing that is measured of it counts."""
    if isinstance(error, DeviceLostError):
        raise error
    if backend.lost:
        raise DeviceLostError(backend.lost) from error


def _fits(last: _Trial, work: int, trials: list[_Trial], until: float) -> bool:
    """Whether the next size of a kind, and the rounds of all, should end in time."""
    # Between no growth (all is overhead) and that of the work (all is arithmetic).
    expected_s = last.once_s * (work / last.work) ** (2 / 3)
    rounds_s = 2 * sum(trial.once_s for trial in trials)
    return perf_counter() + 4 * expected_s + rounds_s < until


@dataclass(slots=True)
class _Trial:
    """A sample made ready, and its least times so far."""

    kind: Kind
    work: int
    executable: Executable
    store: WeightStore
    inputs: Mapping[str, Array]
    once_s: float = inf
    again_s: float = inf

    @classmethod
    async def opened(cls, backend: Backend, kind: Kind, n: int) -> _Trial:
        """A trial that has run twice: once for its numbers, once for its time."""
        program, weight = _program(kind, n)
        store = backend.store(program.parameters)
        executable: Executable | None = None
        try:
            if weight is not None:
                data = weight.data if isinstance(weight, BlockMatrix) else weight
                store.write(store.targets["w"], 0, data)
            executable = await backend.prepare(program, store)
            x = np.sin(np.arange(np.prod(program.inputs[0].limits)), dtype=np.float32)
            inputs = {v.name: x.reshape(v.limits) for v in program.inputs}
            made = next(iter((await executable.run({}, inputs)).values()))
            _check(backend, kind, made, inputs["x"], weight)
            trial = cls(kind, work_of(kind, n), executable, store, inputs)
            await trial.time(-inf)
        except BaseException:
            if executable is not None:
                executable.close()
            store.close()
            raise
        return trial

    @property
    def sample(self) -> Sample:
        """The least times."""
        return Sample(self.work, self.once_s, min(self.again_s, self.once_s))

    async def time(self, until: float) -> None:
        """Time a run by itself, and several in a row where they should end by `until`."""
        started = perf_counter()
        await self.executable.run({}, self.inputs)
        now = perf_counter()
        # Clocks in a page are coarse: nothing takes no time at all.
        self.once_s = min(self.once_s, max(now - started, 1e-6))
        if now + _IN_A_ROW * self.once_s > until:
            return
        await self.executable.submit({}, self.inputs, _IN_A_ROW - 1)
        await self.executable.run({}, self.inputs)
        self.again_s = min(self.again_s, max((perf_counter() - now) / _IN_A_ROW, 1e-7))

    def close(self) -> None:
        """Free what it holds."""
        self.executable.close()
        self.store.close()


def _program(kind: Kind, n: int) -> tuple[Program, Array | BlockMatrix | None]:
    """The frozen program of a sample, and its weight."""
    graph = Graph(f"{kind} {n}")
    if kind == "pass":
        x, y = graph.input("x", (n,)), graph.input("y", (n,))
        graph.output(graph.call("add", x, y))
        return freeze(graph), None
    floats = np.cos(np.arange(n * n), dtype=np.float32).reshape(n, n)
    rows, dtype = (1, "q4_0") if kind == "blocks" else (n, "f32")
    x = graph.input("x", (rows, n))
    weight = graph.parameter("w", (n, n), dtype=dtype)
    graph.output(graph.call("linear", x, weight, activation="none"))
    if kind == "product":
        return freeze(graph), floats
    return freeze(graph), _blocks(n)


def _blocks(n: int) -> BlockMatrix:
    """A Q4_0 matrix (n, n) of all sorts of numbers from -1 to 7/8."""
    raw = np.resize(np.arange(251, dtype=np.uint8), (n * n // 32, 18))
    raw[:, :2] = np.frombuffer(np.float16(1 / 8).tobytes(), np.uint8)
    return BlockMatrix(BlockType.Q4_0, (n, n), raw.reshape(-1))


def _check(backend: Backend, kind: Kind, made: Array, x: Array, weight: Any) -> None:
    if kind == "pass":
        expected = x + x
    else:
        expected = np.asarray(FUNCTIONS["linear"](x, weight, None, None, activation="none"))
    worst = float(np.max(np.abs(made - expected), initial=0.0))
    if not worst <= _TOLERANCE * max(1.0, float(np.abs(expected).max())):
        told = f"{backend.device_name} gave a wrong {kind} of {x.size:,} numbers (off by {worst})"
        raise TierUnavailableError(backend.tier, told)
