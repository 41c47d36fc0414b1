"""A decision: the tiers considered, their measured or predicted times, refusals, and the choice."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import inf, isfinite
from typing import Any

from bascule.backend.base import Tier
from bascule.base.numbers import three_digits
from bascule.choosing.tier_records import TierFacts


@dataclass(frozen=True, slots=True)
class Candidate:
    """One tier: why it was refused, or its expected time and where that comes from.

    `source` is "measured here" (the same work, earlier), "predicted" (from the machine's samples),
    "typical" of such tiers elsewhere, or the reason why there is no time.
    """

    tier: Tier
    refused: str = ""
    expected_s: float = inf
    source: str = "not measured"

    def __str__(self) -> str:
        if self.refused:
            return f"{self.tier} refused ({self.refused})"
        if not isfinite(self.expected_s):
            return f"{self.tier} ({self.source})"
        return f"{self.tier} {_time(self.expected_s)} {self.source}"


@dataclass(frozen=True, slots=True)
class Decision:
    """The decision for `subject`; `chosen` is None if every tier was refused."""

    subject: str
    considered: tuple[Candidate, ...]
    chosen: Tier | None
    reason: str
    warning: str = ""

    def __str__(self) -> str:
        reasons = "; ".join(map(str, self.considered))
        warning = f" Warning: {self.warning}" if self.warning else ""
        return f"{self.subject}: {self.chosen or 'nothing'}, {self.reason}. {reasons}.{warning}"

    def as_json(self) -> dict[str, Any]:
        """Return plain values; unknown times are null."""
        considered = [
            {
                "tier": c.tier,
                "refused": c.refused,
                "expected_ms": 1e3 * c.expected_s if isfinite(c.expected_s) else None,
                "source": c.source,
            }
            for c in self.considered
        ]
        return {
            "subject": self.subject,
            "chosen": self.chosen,
            "reason": self.reason,
            "warning": self.warning,
            "considered": considered,
        }


def decide(
    subject: str, tiers: Sequence[TierFacts], consider: Callable[[TierFacts], Candidate]
) -> Decision:
    """Choose the fastest tier that is not refused; the first among equals."""
    considered = tuple(consider(facts) for facts in tiers)
    able = [c for c in considered if not c.refused]
    if not able:
        return Decision(subject, considered, None, "no tier is left")
    best = min(able, key=lambda c: c.expected_s)
    if len(able) == 1:
        reason = "the only tier that is not refused"
    elif not isfinite(best.expected_s):
        reason = "no tier has a time, and it comes first"
    else:
        others = [c for c in able if c is not best and isfinite(c.expected_s)]
        next_best = min(others, key=lambda c: c.expected_s, default=None)
        reason = f"{_time(best.expected_s)} {best.source}"
        if next_best is None:
            reason = "the only tier that was measured"
        else:
            reason += f" against {_time(next_best.expected_s)} on {next_best.tier}"
    return Decision(subject, considered, best.tier, reason, software_warning(tiers))


def software_warning(tiers: Sequence[TierFacts]) -> str:
    """Return a warning if the only GPU is emulated by the CPU; otherwise an empty text."""
    for facts in tiers:
        if facts.software and not facts.refused:
            return (
                f"the GPU here is a software adapter ({facts.device_name}), emulated on the CPU. "
                "Install the graphics driver, or turn hardware acceleration on in the browser."
            )
    return ""


def memory_refusal(facts: TierFacts, largest_nbytes: int, total_nbytes: int) -> str:
    """Return why that much memory does not fit a tier; empty if it does."""
    max_nbytes = facts.largest_nbytes
    if max_nbytes is not None and largest_nbytes > max_nbytes:
        return (
            f"one tensor has {_size(largest_nbytes)}, and a buffer here at most {_size(max_nbytes)}"
        )
    room = facts.total_nbytes
    if room is not None and total_nbytes > room:
        return f"it takes {_size(total_nbytes)}, and there is room for {_size(room)}"
    return ""


def _size(nbytes: int) -> str:
    return f"{nbytes / (1 << 20):,.1f} MiB"


def _time(seconds: float) -> str:
    scales = (("s", 1.0), ("ms", 1e3), ("us", 1e6))
    unit, scale = next((s for s in scales if seconds * s[1] >= 0.9995), scales[-1])
    return f"{three_digits(seconds * scale)} {unit}"
