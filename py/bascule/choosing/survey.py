"""The tiers of this machine: which work, how fast they are, how much fits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache

from bascule.backend.base import Backend
from bascule.backend.tiers import TIERS, BackendType, Tier, tier_info
from bascule.base.entries import MemoryRemembered, Remembered
from bascule.base.page_settings import IN_PAGE
from bascule.base.remembered import open_remembered
from bascule.choosing.openers import open_named
from bascule.choosing.speed_records import speed_record, speeds_of, speeds_without_measuring
from bascule.choosing.switches import Switches
from bascule.choosing.tier_records import TierFacts as TierFacts
from bascule.choosing.tier_records import TierRecords
from bascule.errors import BasculeError, DeviceLostError, TierUnavailableError
from bascule.machine.host import free_nbytes, identity_of, is_busy

# Time to measure a new machine, all tiers together.
BUDGET_S = 1.5


@dataclass(frozen=True, slots=True)
class Survey:
    """All tiers, best first while nothing is measured; `backends` are those held open.

    A remembered tier is listed without being open.
    """

    tiers: tuple[TierFacts, ...]
    backends: Mapping[Tier, Backend] = field(default_factory=dict[Tier, Backend])

    @property
    def identity(self) -> str:
        """A text that changes with everything that learned facts depend on."""
        return " | ".join(f"{t.tier} {t.identity}" for t in self.tiers if not t.refused)

    def facts(self, backend: BackendType) -> TierFacts | None:
        """Return the facts of that tier; None if this version has no such tier."""
        return next((t for t in self.tiers if t.tier == backend.tier), None)

    def close(self, but: Tier | None = None) -> None:
        """Close the open backends except one."""
        for tier, backend in self.backends.items():
            if tier != but:
                backend.close()


async def survey(
    switches: Switches,
    *,
    remember: bool = True,
    budget_s: float = BUDGET_S,
    hold: bool = False,
    fresh: bool = False,
) -> Survey:
    """Find out the facts of each tier that the switches allow: remembered, or by opening and
    measuring it.

    With `fresh` each is opened, whatever is remembered. On a busy machine nothing is measured, and
    in a page neither is a tier without a rival: older or typical figures serve. With `hold` opened
    backends stay open, for the caller to close.
    """
    remembered = await open_remembered() if remember else MemoryRemembered()
    # A tier that another one beats everywhere is measured only if that one is missing.
    rivals = [better for tier in TIERS if (better := tier_info(tier).better)]
    share_s = budget_s / (len(TIERS) - sum(not better.in_page for better in rivals))
    records = await TierRecords.open(remembered if remember else None)
    surveyor = _Surveyor(switches, remembered, records, share_s, remember, fresh, is_busy())
    results: list[TierFacts] = []
    backends: dict[Tier, Backend] = {}
    try:
        for tier in TIERS:
            if refused := switches.refuses(BackendType(tier)):
                results.append(TierFacts(tier, refused))
                continue
            if needless := _needless(tier, results):
                results.append(needless)
                continue
            facts, backend = await surveyor.look(tier, alone=not fresh and _is_alone(tier, results))
            results.append(facts)
            if backend is not None and hold:
                backends[tier] = backend
            elif backend is not None:
                backend.close()
        await records.save()
    except BaseException:
        Survey((), backends).close()
        raise
    return Survey(tuple(results), backends)


@dataclass(frozen=True, slots=True)
class _Surveyor:
    """Examines one tier after the other."""

    switches: Switches
    remembered: Remembered
    records: TierRecords
    share_s: float
    remember: bool
    fresh: bool
    busy: bool

    async def look(self, tier: Tier, *, alone: bool) -> tuple[TierFacts, Backend | None]:
        """Return a tier's facts, and its backend if it had to be opened.

        A tier that is `alone` need not be measured.
        """
        known = None if self.fresh else await self._recalled(tier, alone=alone)
        if known is not None:
            return known, None
        try:
            backend = await open_named(tier, remember=self.remember)
        except BasculeError as error:
            return self._refused(tier, error), None
        try:
            facts = _facts(backend)
            speeds = await speeds_of(
                backend,
                facts.identity,
                self.remembered,
                self.share_s,
                software=facts.software,
                busy=self.busy,
                alone=alone,
            )
            if backend.lost:
                raise DeviceLostError(backend.lost)
        except BasculeError as error:
            backend.close()
            return self._refused(tier, error), None
        except BaseException:
            backend.close()
            raise
        self.records.put(facts)
        return _with_room(replace(facts, speeds=speeds), self.switches), backend

    async def _recalled(self, tier: Tier, *, alone: bool) -> TierFacts | None:
        """Return what is remembered of a tier, if that suffices."""
        facts = self.records.get(tier)
        if facts is None or facts.refused:
            return facts
        record = await speed_record(tier, facts.identity, self.remembered)
        speeds = speeds_without_measuring(
            record, tier, software=facts.software, busy=self.busy, alone=alone
        )
        if speeds is None:
            return None
        return _with_room(replace(facts, speeds=speeds), self.switches)

    def _refused(self, tier: Tier, error: BasculeError) -> TierFacts:
        """Return its refusal, remembered if the machine is the cause: devices may come back."""
        facts = TierFacts(tier, str(getattr(error, "reason", error)))
        if isinstance(error, TierUnavailableError):
            self.records.put(facts)
        else:
            self.records.forget(tier)
        return facts


async def this_machine(switches: Switches, *, budget_s: float = BUDGET_S) -> Survey:
    """Return the survey of this machine, made once per process and setting of the switches."""
    surveys, key = surveys_made(), repr(switches)
    if key not in surveys:
        surveys[key] = await survey(switches, budget_s=budget_s)
    return surveys[key]


@cache
def surveys_made() -> dict[str, Survey]:
    """Return the surveys by switches; clear them if the machine has changed."""
    return {}


def _needless(tier: Tier, tiers: Sequence[TierFacts]) -> TierFacts | None:
    """Return why a tier is not even tried: another one does the same, and better."""
    better = tier_info(tier).better
    if better is None or better.in_page > IN_PAGE:
        return None
    if any(facts.tier == better.tier and not facts.refused for facts in tiers):
        return TierFacts(tier, better.why, better=better.tier)
    return None


def _is_alone(tier: Tier, tiers: Sequence[TierFacts]) -> bool:
    """Whether a page will use a tier whatever its speed: the tiers before it do not work or emulate
    a GPU on the same CPU, and it is better than those after it.
    """
    after = [tier_info(later).better for later in TIERS[TIERS.index(tier) + 1 :]]
    best = bool(after) and all(better and better.tier == tier for better in after)
    return IN_PAGE and best and all(each.refused or each.software for each in tiers)


def _facts(backend: Backend) -> TierFacts:
    """Return what is known without measuring, except free memory."""
    adapter, identity = backend.adapter, identity_of(backend)
    if adapter is None:
        return TierFacts(backend.tier, "", backend.device_name, identity=identity)
    limits = adapter.limits
    largest = min(limits["maxBufferSize"], limits["maxStorageBufferBindingSize"])
    return TierFacts(backend.tier, "", adapter.name, adapter.software, identity, largest)


def _with_room(facts: TierFacts, switches: Switches) -> TierFacts:
    """Add the memory that the switches allow, or that the machine has free."""
    room = switches.memory_nbytes
    row = tier_info(facts.tier)
    if room is None and (facts.software or not row.is_gpu):
        room = free_nbytes()  # a real GPU has memory of its own, whose size is unknown
    if room is not None:
        room //= row.copies
    return replace(facts, total_nbytes=room)
