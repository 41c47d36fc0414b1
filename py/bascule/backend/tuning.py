"""Results of tuning: the fastest variant of each kernel on a device."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Finding:
    """One signature with its `count` of calls; milliseconds per dispatch by variant."""

    signature: str
    count: int
    default: str
    chosen: str
    times: dict[str, float]

    @property
    def gain(self) -> float:
        """The speedup over the default."""
        return self.times[self.default] / self.times[self.chosen]


@dataclass(slots=True)
class TuneReport:
    """The report of a tuning. `skipped` signatures keep the default: the budget did not suffice."""

    findings: list[Finding] = field(default_factory=list[Finding])
    known: int = 0
    skipped: list[str] = field(default_factory=list[str])
    wrong: list[str] = field(default_factory=list[str])
    spent_s: float = 0.0

    def as_json(self) -> dict[str, Any]:
        """Return everything as plain values."""
        findings = [
            {
                "signature": f.signature,
                "count": f.count,
                "default": f.default,
                "chosen": f.chosen,
                "gain": f.gain,
                "times_ms": f.times,
            }
            for f in self.findings
        ]
        return {
            "findings": findings,
            "improved": self.improved,
            "known": self.known,
            "skipped": self.skipped,
            "wrong": self.wrong,
            "spent_s": self.spent_s,
        }

    @property
    def improved(self) -> int:
        """The number of signatures whose default was replaced."""
        return sum(f.chosen != f.default for f in self.findings)
