"""What is known of one tier, and remembered of a machine's tiers between processes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from time import time
from typing import Any

from bascule.backend.base import TIERS, Tier
from bascule.base.entries import Remembered
from bascule.base.page_settings import IN_PAGE
from bascule.choosing.speeds import Speeds
from bascule.machine.machine_key import machine_key

# A tier that did not work is tried again after a day: not all that keeps one from working shows.
REFUSAL_S = 86_400.0
_LONGEST = 4096


@dataclass(frozen=True, slots=True)
class TierFacts:
    """One tier. `refused` says why it does not run here, and is empty where it does.

    `largest_nbytes` is the most that one tensor may have, `total_nbytes` all of them together; None
    where that is unknown. `software` is a GPU that the CPU imitates. `identity` is what its speeds
    were kept under. One that was not tried, because another tier is better, names it as `better`.
    """

    tier: Tier
    refused: str = ""
    device_name: str = ""
    software: bool = False
    identity: str = ""
    largest_nbytes: int | None = None
    total_nbytes: int | None = None
    speeds: Speeds = field(default_factory=lambda: Speeds({}))
    better: Tier | None = None

    def as_json(self) -> dict[str, Any]:
        """Plain values; times in seconds."""
        return {
            "tier": self.tier,
            "works": not self.refused,
            "reason": self.refused,
            "device": self.device_name,
            "software": self.software,
            "largest_nbytes": self.largest_nbytes,
            "total_nbytes": self.total_nbytes,
            "speeds": self.speeds.as_json(),
        }


class TierRecords:
    """The tiers of this machine as they were when it was surveyed last.

    They count as long as `machine_key` stays; without a memory there are none.
    """

    def __init__(
        self,
        remembered: Remembered | None,
        key: str,
        rows: Mapping[str, Any],
        clock: Callable[[], float],
    ) -> None:
        self._remembered = remembered
        self._key = key
        self._clock = clock
        self._rows = dict(rows)
        self._changed = False

    @classmethod
    async def open(
        cls, remembered: Remembered | None, *, clock: Callable[[], float] = time
    ) -> TierRecords:
        """Read what is remembered."""
        if remembered is None:
            return cls(None, "", {}, clock)
        key = machine_key()
        rows = (await remembered.get(f"tiers {key}") or {}).get("tiers")
        return cls(remembered, key, rows if isinstance(rows, dict) else {}, clock)

    def get(self, tier: Tier) -> TierFacts | None:
        """What is remembered of a tier, if it is sound; refusals, for a day."""
        match self._rows.get(tier):
            case {"refused": str(refused), "at": int() | float() as at} if (
                refused and abs(at) < 1e12
            ):
                # A page finds out at once whether a tier works, so there it is tried again.
                recent = not IN_PAGE and at <= self._clock() < at + REFUSAL_S
                return TierFacts(tier, refused) if recent else None
            case {
                "refused": "",
                "device": str(device),
                "software": bool(software),
                "identity": str(identity),
                "largest_nbytes": (int() | None) as largest,
            } if not isinstance(largest, bool) and (largest is None or 0 < largest < 1 << 63):
                return TierFacts(tier, "", device, software, identity, largest)
            case _:
                return None

    def put(self, facts: TierFacts) -> None:
        """Remember a tier, once `save` is called."""
        row: dict[str, Any] = {"refused": facts.refused[:_LONGEST], "at": self._clock()}
        if not facts.refused:
            row = {
                "refused": "",
                "device": facts.device_name,
                "software": facts.software,
                "identity": facts.identity,
                "largest_nbytes": facts.largest_nbytes,
            }
        self._changed |= self._rows.get(facts.tier) != row
        self._rows[facts.tier] = row

    def forget(self, tier: Tier) -> None:
        """Remember nothing of a tier, once `save` is called."""
        self._changed |= self._rows.pop(tier, None) is not None

    async def save(self) -> None:
        """Write what has changed."""
        if self._remembered is None or not self._changed:
            return
        rows = {tier: self._rows[tier] for tier in TIERS if tier in self._rows}
        await self._remembered.put(f"tiers {self._key}", {"tiers": rows})
        self._changed = False
