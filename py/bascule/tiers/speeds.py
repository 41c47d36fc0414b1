"""How fast a tier is here: a few tiny frozen programs, timed in bounded time and kept.

Three kinds of work stand for all others. A "product" is dense arithmetic (n, n) @ (n, n), a "pass"
goes once over n numbers, "blocks" is a quantized matrix times a vector, as a language model's step.
Work is counted in multiply-adds, and in numbers for a pass.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass
from math import exp, inf, isfinite, log
from time import perf_counter
from typing import Any, Literal

from bascule import __version__
from bascule.arrays import Array, np
from bascule.backend.base import Backend, Executable
from bascule.backend.quant import BlockMatrix
from bascule.backend.reference import FUNCTIONS
from bascule.dtypes import BlockType
from bascule.errors import BasculeError, TierUnavailableError
from bascule.program.compile import freeze
from bascule.program.graph import Graph
from bascule.program.program import Program
from bascule.remembered import Entry, Remembered

Kind = Literal["product", "pass", "blocks"]

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
_LEAST_RUNS, _ENOUGH_S = 5, 0.02
_IN_A_ROW = 5
# float32 sums of up to 1024 products of numbers around 1.
_TOLERANCE = 1e-3


@dataclass(frozen=True, slots=True)
class Sample:
    """One size: seconds to send, compute and read back once; seconds of one of several in a row."""

    work: int
    once_s: float
    again_s: float


@dataclass(frozen=True, slots=True)
class Speeds:
    """A tier's samples by kind, in order of work."""

    samples: Mapping[Kind, tuple[Sample, ...]]

    def seconds(self, kind: Kind, work: float, *, again: bool = False) -> float:
        """The time of that much work: between samples by their slope, past the last by its rate.

        Infinite where nothing of that kind was measured.
        """
        found = self.samples.get(kind, ())
        if not found:
            return inf
        points = [(s.work, s.again_s if again else s.once_s) for s in found]
        at = bisect_left(points, (work, 0.0))
        if at == 0:
            return points[0][1]
        if at == len(points):
            last_work, last_s = points[-1]
            return last_s * max(1.0, work / last_work)
        (low, low_s), (high, high_s) = points[at - 1], points[at]
        share = log(work / low) / log(high / low)
        return exp((1 - share) * log(low_s) + share * log(high_s))

    def as_json(self) -> dict[str, list[list[float]]]:
        """Rows of work, once_s and again_s by kind."""
        return {k: [[s.work, s.once_s, s.again_s] for s in row] for k, row in self.samples.items()}


def work_of(kind: Kind, n: int) -> int:
    """How much work a sample of size n is."""
    return {"product": n**3, "pass": n, "blocks": n * n}[kind]


async def speeds_of(
    backend: Backend, identity: str, remembered: Remembered, budget_s: float, *, keep: bool = True
) -> Speeds:
    """What was measured of this tier before, else what is measured now, and kept if that is wanted.

    TierUnavailableError for a tier whose products are wrong.
    """
    key = f"speeds {__version__} {backend.tier} {identity}"
    kept = _speeds_from(await remembered.get(key))
    if kept is not None:
        return kept
    found = await measure(backend, budget_s)
    if keep:
        await remembered.put(key, {"speeds": found.as_json()})
    return found


async def measure(backend: Backend, budget_s: float) -> Speeds:
    """Time the samples: the first of each kind, and as many more as fit `budget_s`.

    The run that crosses its end is the last.
    TierUnavailableError when a tier's numbers are wrong; what the device refuses is left out.
    """
    until = perf_counter() + budget_s
    found: dict[Kind, list[Sample]] = {}
    for kind, n in SAMPLES:
        if kind in found:
            last = found[kind][-1]
            # Between no growth (all is overhead) and that of the work (all is arithmetic).
            expected_s = last.once_s * (work_of(kind, n) / last.work) ** (2 / 3)
            if perf_counter() + 2 * expected_s >= until:
                continue
        try:
            found.setdefault(kind, []).append(await _sample(backend, kind, n, until))
        except TierUnavailableError:
            raise
        except BasculeError:
            continue
    return Speeds({kind: tuple(row) for kind, row in found.items() if row})


async def _sample(backend: Backend, kind: Kind, n: int, until: float) -> Sample:
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
        once_s, again_s = await _timed(executable, inputs, until)
        return Sample(work_of(kind, n), once_s, again_s)
    finally:
        if executable is not None:
            executable.close()
        store.close()


async def _timed(
    executable: Executable, inputs: Mapping[str, Array], until: float
) -> tuple[float, float]:
    """Seconds of a run by itself (the least disturbed one), and of one among several in a row."""
    started = perf_counter()
    # Clocks in a page are coarse: nothing takes no time at all.
    once_s, runs, now = inf, 0, started
    while not runs or (now < until and (runs < _LEAST_RUNS or now - started < _ENOUGH_S)):
        await executable.run({}, inputs)
        before, now = now, perf_counter()
        once_s, runs = min(once_s, max(now - before, 1e-6)), runs + 1
    if now + _IN_A_ROW * once_s > until:
        return once_s, once_s
    await executable.submit({}, inputs, _IN_A_ROW - 1)
    await executable.run({}, inputs)
    return once_s, min(max((perf_counter() - now) / _IN_A_ROW, 1e-7), once_s)


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


def _speeds_from(entry: Entry | None) -> Speeds | None:
    """What was kept, if all of it is sound."""
    told = (entry or {}).get("speeds")
    if not isinstance(told, dict):
        return None
    found: dict[Kind, tuple[Sample, ...]] = {}
    kinds: tuple[Kind, ...] = ("product", "pass", "blocks")
    for kind in kinds:
        rows = told.get(kind, [])
        if not (isinstance(rows, list) and all(_is_row(row) for row in rows)):
            return None
        works = [row[0] for row in rows]
        if works != sorted(set(works)):
            return None
        if rows:
            found[kind] = tuple(Sample(int(w), once, again) for w, once, again in rows)
    return Speeds(found) if found else None


def _is_row(row: Any) -> bool:
    match row:
        case [int(work), int() | float() as once_s, int() | float() as again_s]:
            sound = isfinite(once_s) and isfinite(again_s)
            return sound and work > 0 and 0 < again_s <= once_s
        case _:
            return False
