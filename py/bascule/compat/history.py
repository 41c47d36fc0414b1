"""What was learned from runs: times by operation and size class, failures, statistics."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import isfinite
from statistics import median
from typing import Any

from bascule.backend.base import TIERS, Tier
from bascule.base.entries import Entry

# Fewer runs than this change no choice.
ENOUGH_RUNS = 5
# After this many failures in a row a tier comes last for that work, until it succeeds again.
FAILURES_IN_A_ROW = 3
_RECENT_RUNS = 32
_MAX_KEYS = 256
_RECENT_BACKENDS = 20

Key = tuple[str, int]  # operation type, size bucket


@dataclass(slots=True)
class Evidence:
    """The latest times of one tier at one kind of work, and its failures since the last of them."""

    seconds: deque[float] = field(default_factory=lambda: deque[float](maxlen=_RECENT_RUNS))
    runs: int = 0
    failed_in_a_row: int = 0

    @property
    def typical_s(self) -> float | None:
        """The median time; None until there is enough evidence."""
        # The median: a first run compiles, and there are outliers.
        return median(self.seconds) if len(self.seconds) >= ENOUGH_RUNS else None

    @property
    def problem(self) -> str:
        """Why other tiers should be tried first; empty if there is no reason."""
        failed = self.failed_in_a_row >= FAILURES_IN_A_ROW
        return f"its last {self.failed_in_a_row} runs of this failed" if failed else ""


@dataclass(slots=True)
class Statistics:
    """All runs of one backend at one operation, by name, including failed ones."""

    total_time: float = 0.0
    count: int = 0
    failures: int = 0

    def as_dict(self) -> dict[str, float]:
        """Return the counts with the mean time, in seconds."""
        return {
            "total_time": self.total_time,
            "count": self.count,
            "failures": self.failures,
            "avg_time": self.total_time / self.count,
        }


class History:
    """The latest runs of the latest kinds of work."""

    def __init__(self) -> None:
        self.total_records = 0
        self.statistics: dict[tuple[Tier, str], Statistics] = {}
        self.recent: deque[Tier] = deque(maxlen=_RECENT_BACKENDS)
        self._evidence: dict[Key, dict[Tier, Evidence]] = {}

    def evidence(self, key: Key) -> Mapping[Tier, Evidence]:
        """Return what is known of that kind of work, by tier."""
        return self._evidence.get(key, {})

    def count(self, tier: Tier, name: str, seconds: float, *, failed: bool) -> None:
        """Count a run for the statistics."""
        self.total_records += 1
        self.recent.append(tier)
        row = self.statistics.setdefault((tier, name), Statistics())
        row.count += 1
        row.total_time += seconds
        row.failures += failed

    def learn(self, tier: Tier, key: Key, seconds: float, *, failed: bool) -> bool:
        """Add a run to the evidence; return whether to choose again.

        That is after every `ENOUGH_RUNS` runs, and when failures or a success change the order.
        """
        if key not in self._evidence and len(self._evidence) >= _MAX_KEYS:
            del self._evidence[next(iter(self._evidence))]
        result = self._evidence.setdefault(key, {}).setdefault(tier, Evidence())
        if failed:
            result.failed_in_a_row += 1
            return result.failed_in_a_row >= FAILURES_IN_A_ROW
        recovered, result.failed_in_a_row = result.failed_in_a_row, 0
        result.seconds.append(seconds)
        result.runs += 1
        return recovered >= FAILURES_IN_A_ROW or result.runs % ENOUGH_RUNS == 0

    def as_json(self) -> Entry:
        """Return the times; failures are not kept."""
        rows = [
            [operation, bucket, {tier: list(e.seconds) for tier, e in row.items() if e.seconds}]
            for (operation, bucket), row in self._evidence.items()
        ]
        return {"evidence": rows}

    def take(self, entry: Entry | None) -> None:
        """Add valid stored times; what was learned since has precedence."""
        rows = (entry or {}).get("evidence")
        for row in rows[:_MAX_KEYS] if isinstance(rows, list) else []:
            match row:
                case [str(operation), int(bucket), dict(times)]:
                    self._take_row((operation, bucket), times)
                case _:
                    continue

    def _take_row(self, key: Key, times: Mapping[Any, Any]) -> None:
        for tier in TIERS:
            seconds = times.get(tier)
            sound = [float(s) for s in seconds if _is_time(s)] if isinstance(seconds, list) else []
            if sound:
                result = self._evidence.setdefault(key, {}).setdefault(tier, Evidence())
                result.seconds = deque([*sound, *result.seconds], maxlen=_RECENT_RUNS)


def _is_time(value: Any) -> bool:
    return isinstance(value, int | float) and isfinite(value) and value >= 0
