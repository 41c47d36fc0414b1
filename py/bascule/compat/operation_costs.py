"""The cost of each kind of operation on each tier: small samples, measured here and remembered.

A sample runs the kind's own work (a transform, a sort, ...) on an array of `bascule.array` on the
tier: sent, computed and read back once, and computed again on resident data.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from math import inf, log2
from time import perf_counter
from typing import Any, Literal

import bascule.array as xp
from bascule import __version__
from bascule.backend.tiers import COMPUTE_TIERS, Tier
from bascule.base.arrays import np
from bascule.base.entries import Entry, Remembered
from bascule.base.remembered import open_remembered
from bascule.choosing.speeds import Sample, interpolated, samples_from
from bascule.choosing.survey import Survey, TierFacts
from bascule.choosing.workload import WorkloadCharacteristics
from bascule.device.device import Device, open_device
from bascule.errors import BasculeError
from bascule.machine.host import is_busy

OperationKind = Literal["elementwise", "reduction", "fft", "sort", "derivative", "iterative"]
# Samples of one kind, by tier; a tier whose sample failed has none.
Costs = Mapping[Tier, tuple[Sample, ...]]

# The words of an operation_type that name its kind.
_WORDS: Mapping[OperationKind, str] = {
    "fft": "fft ifft rfft irfft fft2 fftn fourier spectrum spectral",
    "sort": "sort sorting argsort topk median quantile unique",
    "iterative": "iterative iteration ode sde euler solver recurrence",
    "derivative": "derivative gradient laplacian stencil diff",
    "reduction": "reduction reduce sum mean norm std var max min prod",
    "elementwise": "elementwise pointwise add multiply exp activation",
}
_SIZES = (1 << 10, 1 << 14, 1 << 17)
_TIMES = 3
_IN_A_ROW = 4
# A sample that may take longer than this is left out, and extrapolated from the one before.
_LONGEST_S = 0.3
# For a workload that does not say how many steps its iteration has.
_STEPS = 20


def kind_of_operation(operation_type: str) -> OperationKind | None:
    """Return the kind of an operation by the words of its name; None for another operation."""
    name = operation_type.lower().replace("element_wise", "elementwise")
    words = set(re.findall("[a-z]+2?", name))
    return next((kind for kind, known in _WORDS.items() if words & set(known.split())), None)


def expected_seconds(samples: tuple[Sample, ...], workload: WorkloadCharacteristics) -> float:
    """Predict the time of a workload from the samples of its kind; infinite without samples."""
    if not samples:
        return inf
    again = workload.is_iterative
    kind = kind_of_operation(workload.operation_type)
    if kind != "iterative":
        work = _work(kind, workload.data_size, workload.data_shape)
        return interpolated(samples, work, again=again)
    # A solver returns (steps, ...); for other shapes each step goes over all numbers.
    shape = workload.data_shape
    solves = "ode" in workload.operation_type.lower() and len(shape) > 1
    steps = max(1, *shape[:1]) if solves else _STEPS
    numbers = workload.data_size / steps if solves else workload.data_size
    first_s = interpolated(samples, numbers, again=again)
    return first_s + (steps - 1) * interpolated(samples, numbers, again=True)


async def costs_of(
    kind: OperationKind, surveyed: Survey, *, busy: Callable[[], bool] = is_busy
) -> Costs | None:
    """Return the remembered costs of a kind on every working tier, and measure missing ones.

    None if something is missing and cannot be measured now: without numpy, on a busy machine, and
    for tiers whose speeds were not measured either (see `speeds.why_typical`).
    """
    remembered = await open_remembered()
    costs: dict[Tier, tuple[Sample, ...]] = {}
    for facts in surveyed.tiers:
        if facts.refused or facts.tier not in COMPUTE_TIERS:
            continue
        known = _known(await remembered.get(costs_key(facts)), kind)
        if known is None:
            if busy() or facts.speeds.source.startswith("typical") or find_spec("numpy") is None:
                return None
            known = await _measured(kind, facts.tier)
            await _remember(remembered, facts, kind, known)
        costs[facts.tier] = known
    return costs


async def _measured(kind: OperationKind, tier: Tier) -> tuple[Sample, ...]:
    """Return the samples of a tier, small ones first; none if it does not support the kind."""
    samples: list[Sample] = []
    before = _SIZES[0]
    try:
        async with await open_device(tier) as device:
            for n in _SIZES:
                if samples and samples[-1].once_s * n / before > _LONGEST_S:
                    break
                samples.append(await _sample(kind, device, n))
                before = n
    except BasculeError:
        return ()
    return tuple(samples)


async def _sample(kind: OperationKind, device: Device, n: int) -> Sample:
    """Time a kind's operation on n numbers: the shortest of a few times after a first run."""
    numbers = np.sin(np.arange(n, dtype=np.float32) * 17)
    operate = _OPERATIONS[kind]
    await operate(device.asarray(numbers)).numpy()
    resident = device.asarray(numbers)
    await xp.eval(resident)
    once: list[float] = []
    again: list[float] = []
    for _ in range(_TIMES):
        began = perf_counter()
        await operate(device.asarray(numbers)).numpy()
        once.append(perf_counter() - began)
        again.append(await _in_a_row(kind, operate, resident))
    # Clocks in a page are coarse: a run may seem to take no time.
    once_s = max(min(once), 1e-6)
    return Sample(_work(kind, n, (n,)), once_s, min(max(min(again), 1e-7), once_s))


async def _in_a_row(kind: OperationKind, operate: Callable[[Any], Any], resident: Any) -> float:
    """Return the seconds of one of several runs on resident data; for an iteration of each step."""
    began = perf_counter()
    result = resident
    for _ in range(_IN_A_ROW):
        result = operate(result if kind == "iterative" else resident)
        await xp.eval(result)
    await xp.reshape(result, (-1,))[:1].numpy()
    return (perf_counter() - began) / _IN_A_ROW


def _gradient(x: Any) -> Any:
    """As numpy.gradient: central differences, one-sided at the ends."""
    return xp.concat([x[1:2] - x[:1], 0.5 * (x[2:] - x[:-2]), x[-1:] - x[-2:-1]])


_OPERATIONS: Mapping[OperationKind, Callable[[Any], Any]] = {
    "elementwise": lambda x: xp.exp(-x * x) + 0.5,
    "reduction": xp.sum,
    "fft": lambda x: xp.fft.fft(x).real,
    "sort": xp.sort,
    "derivative": _gradient,
    "iterative": lambda x: x + 0.01 * (1.0 - x * x),  # a step of Euler's
}


def _work(kind: OperationKind | None, size: int, shape: tuple[int, ...]) -> int:
    """Return the work of a kind's operation on that many numbers, along a shape's last axis."""
    if kind in ("fft", "sort"):
        along = shape[-1] if shape else size
        return max(1, round(size * log2(max(2, along))))
    return max(1, size)


def costs_key(facts: TierFacts) -> str:
    """Return the key of a tier's remembered samples."""
    return f"operation costs {__version__} {facts.tier} {facts.identity}"


def _known(entry: Entry | None, kind: OperationKind) -> tuple[Sample, ...] | None:
    """Return a kind's samples from an entry, if they are valid."""
    kinds = (entry or {}).get("kinds")
    rows = kinds.get(kind) if isinstance(kinds, dict) else None
    return None if rows is None else samples_from(rows)


async def _remember(
    remembered: Remembered, facts: TierFacts, kind: OperationKind, samples: tuple[Sample, ...]
) -> None:
    kinds = (await remembered.get(costs_key(facts)) or {}).get("kinds")
    rows = [[s.work, s.once_s, s.again_s] for s in samples]
    others: dict[str, Any] = dict(kinds) if isinstance(kinds, dict) else {}
    await remembered.put(costs_key(facts), {"kinds": {**others, kind: rows}})
