"""The remembered speed of a tier, and its correction by runs that contradict it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import isfinite, prod
from time import time
from typing import Any

from bascule import __version__
from bascule.backend.base import Backend, Tier
from bascule.base.entries import Entry, Remembered
from bascule.choosing.measuring import check, measure
from bascule.choosing.speeds import (
    Kind,
    Speeds,
    size_class,
    speeds_from,
    typical_speeds,
    why_typical,
)
from bascule.choosing.work import work_of_program
from bascule.machine.host import is_busy
from bascule.program.program import Program

# A run that takes this many times longer or shorter than predicted contradicts the prediction.
CONTRADICTION = 3.0
# This many contradictions in a row, at least this far apart, are more than a busy moment.
ENOUGH_CONTRADICTIONS = 3
APART_S = 5.0
_FACTORS = (1e-3, 1e3)


@dataclass(frozen=True, slots=True)
class SpeedRecord:
    """A tier's remembered speeds.

    `contradictions` are rows of a time, a size class and the ratio of measured to predicted time.
    `again` asks for another measurement; `checked` says that there was one because of
    contradictions, so the next ones correct the predictions instead.
    """

    speeds: Speeds
    contradictions: tuple[tuple[float, str, float], ...] = ()
    again: bool = False
    checked: bool = False

    def as_json(self) -> Entry:
        """Return plain values; `_record_from` reads them."""
        return {
            "speeds": self.speeds.as_json(),
            "factors": dict(self.speeds.factors),
            "contradictions": [list(row) for row in self.contradictions],
            "again": self.again,
            "checked": self.checked,
        }

    def contradicted(self, now: float, sizes: str, ratio: float) -> SpeedRecord:
        """Return the record after a run that took `ratio` times as long as predicted."""
        if 1 / CONTRADICTION < ratio < CONTRADICTION:
            others = tuple(row for row in self.contradictions if row[1] != sizes)
            return replace(self, contradictions=others)
        alike = [r for r in self.contradictions if r[1] == sizes and (r[2] > 1) == (ratio > 1)]
        if alike and 0 <= now - alike[-1][0] < APART_S:
            return self
        rows = [*alike, (now, sizes, ratio)]
        others = tuple(row for row in self.contradictions if row[1] != sizes)
        if len(rows) < ENOUGH_CONTRADICTIONS:
            return replace(self, contradictions=(*others, *rows))
        if not self.checked:
            return replace(self, contradictions=(), again=True)
        typical = prod(row[2] for row in rows) ** (1 / len(rows))
        minimum, maximum = _FACTORS
        factor = min(max(self.speeds.factors.get(sizes, 1.0) * typical, minimum), maximum)
        speeds = replace(self.speeds, factors={**self.speeds.factors, sizes: factor})
        return replace(self, speeds=speeds, contradictions=others)


def speed_key(tier: Tier, identity: str) -> str:
    """Return the key of a tier's record."""
    return f"speeds {__version__} {tier} {identity}"


async def speed_record(tier: Tier, identity: str, remembered: Remembered) -> SpeedRecord | None:
    """Return the remembered record of this tier; None if it is missing or invalid."""
    return _record_from(await remembered.get(speed_key(tier, identity)))


def speeds_without_measuring(
    record: SpeedRecord | None, tier: Tier, *, software: bool, busy: bool, alone: bool = False
) -> Speeds | None:
    """Return the speeds of a tier that is not to be measured now; None for one that is.

    If there is a reason not to measure (`why_typical`), an older record serves, or the speeds
    typical elsewhere.
    """
    why = why_typical(software=software, busy=busy, alone=alone)
    if record is not None and (why or not record.again):
        return record.speeds
    return typical_speeds(tier, software=software, why=why) if why else None


async def speeds_of(
    backend: Backend,
    identity: str,
    remembered: Remembered,
    budget_s: float,
    *,
    software: bool = False,
    busy: bool = False,
    alone: bool = False,
) -> Speeds:
    """Return the remembered speeds of this tier, or measure them.

    A measurement that was cut short is not remembered; `speeds_without_measuring` says when there
    is none, and a tier that is `alone` still has its numbers checked. TierUnavailableError for a
    tier with wrong numbers, DeviceLostError.
    """
    record = await speed_record(backend.tier, identity, remembered)
    known = speeds_without_measuring(
        record, backend.tier, software=software, busy=busy, alone=alone
    )
    if known is not None:
        if alone and record is None:
            await check(backend)
        return known
    speeds, complete = await measure(backend, budget_s)
    if complete:
        measured = SpeedRecord(speeds, checked=record is not None)
        await remembered.put(speed_key(backend.tier, identity), measured.as_json())
    return speeds


@dataclass(slots=True)
class SpeedWatch:
    """Compares the runs of a model with what was predicted when its tier was chosen."""

    tier: Tier
    identity: str
    kind: Kind
    remembered: Remembered
    clock: Callable[[], float] = time
    busy: Callable[[], bool] = is_busy
    _work: dict[int, tuple[Program, float, int]] = field(
        default_factory=dict[int, tuple[Program, float, int]]
    )

    async def note(
        self, tier: Tier, passes: Sequence[tuple[Program, float]], seconds: float
    ) -> None:
        """Record passes, each with the share of its largest sizes, that took `seconds` together.

        Runs on another tier, under load, or of small and large passes together are ignored.
        """
        if tier != self.tier or seconds <= 0 or self.busy():
            return
        record = await speed_record(self.tier, self.identity, self.remembered)
        if record is None or record.again:
            return
        rows = [(share * work, calls) for work, calls, share in map(self._counted, passes)]
        classes = {size_class(self.kind, work) for work, _ in rows}
        if len(classes) != 1:
            return
        expected_s = sum(record.speeds.pass_seconds(self.kind, *row) for row in rows)
        if not (isfinite(expected_s) and expected_s > 0):
            return
        after = record.contradicted(self.clock(), classes.pop(), seconds / expected_s)
        if after != record:
            await self.remembered.put(speed_key(self.tier, self.identity), after.as_json())

    def _counted(self, ran: tuple[Program, float]) -> tuple[float, int, float]:
        program, share = ran
        known = self._work.get(id(program))
        if known is None:
            if len(self._work) >= 64:
                self._work.clear()
            known = self._work[id(program)] = (program, *work_of_program(program))
        return known[1], known[2], share


def _record_from(entry: Entry | None) -> SpeedRecord | None:
    """Return a valid record, or None."""
    if entry is None:
        return None
    speeds, factors = speeds_from(entry.get("speeds")), entry.get("factors", {})
    rows = entry.get("contradictions", [])
    if speeds is None or not isinstance(factors, dict) or not isinstance(rows, list):
        return None
    sound = all(isinstance(n, str) and _is_factor(f) for n, f in factors.items())
    if not (sound and all(map(_is_contradiction, rows))):
        return None
    contradictions = tuple((float(at), str(sizes), float(ratio)) for at, sizes, ratio in rows)
    again, checked = entry.get("again") is True, entry.get("checked") is True
    named: Mapping[str, float] = factors
    return SpeedRecord(replace(speeds, factors=dict(named)), contradictions[-8:], again, checked)


def _is_contradiction(row: Any) -> bool:
    match row:
        case [int() | float() as at, str(), ratio]:
            return -1e12 < at < 1e12 and _is_factor(ratio)
        case _:
            return False


def _is_factor(value: Any) -> bool:
    return isinstance(value, int | float) and 1e-9 < value < 1e9
