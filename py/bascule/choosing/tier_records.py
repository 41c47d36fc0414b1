"""The facts of one tier, and those remembered between processes."""

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

# A refused tier is tried again after a day: the machine key does not show every cause.
REFUSAL_S = 86_400.0
_LONGEST = 4096


@dataclass(frozen=True, slots=True)
class TierFacts:
    """One tier. `refused` says why it does not run here, and is empty if it does.

    `largest_nbytes` is the limit of one tensor, `total_nbytes` that of all together; None if
    unknown. `software` is a GPU emulated by the CPU. `identity` is the key of its speeds. `better`
    names the tier for which this one was skipped.
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
        """Return plain values; times in seconds."""
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
    """This machine's tiers as of the last survey.

    They are valid as long as `machine_key` stays the same.
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
        """Return what is remembered of a tier, if it is valid; a refusal for a day."""
        match self._rows.get(tier):
            case {"refused": str(refused), "at": int() | float() as at} if (
                refused and abs(at) < 1e12
            ):
                # A page can tell at once whether a tier works, so it is tried again there.
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
        """Remember a tier once `save` is called."""
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
        """Forget a tier once `save` is called."""
        self._changed |= self._rows.pop(tier, None) is not None

    async def save(self) -> None:
        """Write what has changed."""
        if self._remembered is None or not self._changed:
            return
        rows = {tier: self._rows[tier] for tier in TIERS if tier in self._rows}
        await self._remembered.put(f"tiers {self._key}", {"tiers": rows})
        self._changed = False
