"""The speed of a tier, and the predicted time of a model's pass on it.

Three kinds of work stand for all others. A "product" is dense arithmetic (n, n) @ (n, n), a "pass"
goes once over n numbers, "blocks" is a quantized matrix times a vector, as in a language model's
step. Work is counted in multiply-adds, for a pass in numbers.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import exp, inf, isfinite, log
from typing import Any, Literal, cast

from bascule.backend.tiers import Tier, tier_info
from bascule.base.page_settings import IN_PAGE

Kind = Literal["product", "pass", "blocks"]
KINDS: tuple[Kind, ...] = ("product", "pass", "blocks")

# From this many multiply-adds on a pass is a large one: a batch of texts, not one text.
LARGE_WORK = 1e9


@dataclass(frozen=True, slots=True)
class Sample:
    """A size: seconds to send, compute and read back once, and seconds of one run in a row."""

    work: int
    once_s: float
    again_s: float


@dataclass(frozen=True, slots=True)
class Speeds:
    """A tier's samples by kind, in order of work.

    `factors` correct the predictions of whole passes, by `size_class`. `source` says where the
    times come from.
    """

    samples: Mapping[Kind, tuple[Sample, ...]]
    factors: Mapping[str, float] = field(default_factory=dict[str, float])
    source: str = "predicted"

    def seconds(self, kind: Kind, work: float, *, again: bool = False) -> float:
        """Predict the time of that much work: by interpolation between samples, past the last by
        its rate.

        Infinite if nothing of that kind was measured.
        """
        return interpolated(self.samples.get(kind, ()), work, again=again)

    def pass_seconds(self, kind: Kind, work: float, calls: int = 1) -> float:
        """Predict the time of a pass: `calls` similar products in a row, sent and read back once.

        `work` is that of all of them.
        """
        way_s = self.seconds(kind, 0) - self.seconds(kind, 0, again=True)
        expected_s = calls * self.seconds(kind, work / calls, again=True) + way_s
        return expected_s * self.factors.get(size_class(kind, work), 1.0)

    def as_json(self) -> dict[str, list[list[float]]]:
        """Return rows of work, once_s and again_s by kind."""
        return {k: [[s.work, s.once_s, s.again_s] for s in row] for k, row in self.samples.items()}


def interpolated(samples: Sequence[Sample], work: float, *, again: bool = False) -> float:
    """Predict the time of that much work: by interpolation between samples, past the last by its
    rate.

    Infinite without samples.
    """
    if not samples:
        return inf
    points = [(s.work, s.again_s if again else s.once_s) for s in samples]
    at = bisect_left(points, (work, 0.0))
    if at == 0:
        return points[0][1]
    if at == len(points):
        last_work, last_s = points[-1]
        return last_s * max(1.0, work / last_work)
    (low, low_s), (high, high_s) = points[at - 1], points[at]
    share = log(work / low) / log(high / low)
    return exp((1 - share) * log(low_s) + share * log(high_s))


def size_class(kind: Kind, work: float) -> str:
    """Return the class of passes that share a correction: by kind, small and large apart."""
    return f"{kind} {'large' if work >= LARGE_WORK else 'small'}"


def speeds_from(fields: object) -> Speeds | None:
    """Parse what `Speeds.as_json` returned; None unless all of it is valid."""
    if not isinstance(fields, dict):
        return None
    results: dict[Kind, tuple[Sample, ...]] = {}
    for kind in KINDS:
        samples = samples_from(fields.get(kind, []))
        if samples is None:
            return None
        if samples:
            results[kind] = samples
    return Speeds(results) if results else None


def samples_from(rows: object) -> tuple[Sample, ...] | None:
    """Parse rows of work, once_s and again_s; None unless all are valid and in order."""
    if not (isinstance(rows, list) and all(_is_row(row) for row in cast("list[Any]", rows))):
        return None
    sound = cast("list[list[Any]]", rows)
    works = [row[0] for row in sound]
    if works != sorted(set(works)):
        return None
    return tuple(Sample(int(work), once, again) for work, once, again in sound)


def _is_row(row: Any) -> bool:
    match row:
        case [int(work), int() | float() as once_s, int() | float() as again_s]:
            sound = isfinite(once_s) and isfinite(again_s)
            return sound and work > 0 and 0 < again_s <= once_s
        case _:
            return False


def why_typical(*, software: bool, busy: bool, alone: bool = False) -> str:
    """Return why typical speeds stand for measured ones; empty if the tier is to be measured.

    `alone` says that it will be chosen whatever its speed.
    """
    if alone:
        return "no other tier here could be faster"
    if busy:
        return "this machine is too busy to be measured"
    if software and IN_PAGE:  # it always loses there, and proving its kernels would fetch numpy
        return "a software GPU is not measured in a page"
    return ""


def typical_speeds(tier: Tier, *, software: bool, why: str) -> Speeds:
    """Return the speeds of such a tier elsewhere; `why` says why it is not measured here."""
    row = tier_info(tier)
    numbers = (
        (row.software if software else None) or (row.in_page if IN_PAGE else None) or row.typical
    )
    units = zip(KINDS, (numbers.product_s, numbers.pass_s, numbers.blocks_s), strict=True)
    samples: dict[Kind, tuple[Sample, ...]] = {
        kind: _line(numbers.once_s, numbers.again_s, unit_s) for kind, unit_s in units if unit_s
    }
    source = f"typical elsewhere ({why})"
    return Speeds(samples, source=source)


def _line(once_s: float, again_s: float, per_work_s: float) -> tuple[Sample, ...]:
    """Return samples of a straight line, close enough to each other for `Speeds.seconds`."""
    works = (10**power for power in range(11))
    return tuple(Sample(w, once_s + w * per_work_s, again_s + w * per_work_s) for w in works)
