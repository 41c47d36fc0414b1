"""What is known of this machine's tiers: which work, how fast they are, how much fits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

from bascule.backend.base import TIERS, Backend, Tier
from bascule.errors import BasculeError
from bascule.remembered import MemoryRemembered, open_remembered
from bascule.tiers.host import free_nbytes, host_identity, is_busy
from bascule.tiers.openers import OPENERS, adapter_of, open_named
from bascule.tiers.speeds import Speeds, speeds_of
from bascule.tiers.switches import Switches
from bascule.tiers.workload import BackendType

# A machine that is new to Bascule is measured for about so long, all tiers together.
BUDGET_S = 1.5
_LIMITED: Tier = "webgpu-limited"
# Of a model's weights while WebNN builds a graph: Bascule's, the graph's, and its runtime's two.
_WEBNN_COPIES = 4


@dataclass(frozen=True, slots=True)
class TierFacts:
    """One tier. `refused` says why it does not run here, and is empty where it does.

    `largest_nbytes` is the most that one tensor may have, `total_nbytes` all of them together; None
    where nobody tells. `software` is a GPU that the CPU imitates. `identity` is what its speeds
    were kept under.
    """

    tier: Tier
    refused: str = ""
    device_name: str = ""
    software: bool = False
    identity: str = ""
    largest_nbytes: int | None = None
    total_nbytes: int | None = None
    speeds: Speeds = field(default_factory=lambda: Speeds({}))

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


@dataclass(frozen=True, slots=True)
class Survey:
    """All tiers, best first as long as nothing is measured; `backends` are those held open."""

    tiers: tuple[TierFacts, ...]
    backends: Mapping[Tier, Backend] = field(default_factory=dict[Tier, Backend])

    @property
    def identity(self) -> str:
        """Changes with everything that what is learned here depends on."""
        return " | ".join(f"{t.tier} {t.identity}" for t in self.tiers if not t.refused)

    def facts(self, backend: BackendType) -> TierFacts | None:
        """Of that tier; None if this version has none."""
        return next((t for t in self.tiers if t.tier == backend.tier), None)

    def close(self, but: Tier | None = None) -> None:
        """Let go of the open backends, but for one."""
        for tier, backend in self.backends.items():
            if tier != but:
                backend.close()


async def survey(
    switches: Switches, *, remember: bool = True, budget_s: float = BUDGET_S, hold: bool = False
) -> Survey:
    """Open each tier that the switches allow, and measure those that are new here.

    What is measured while others keep the machine busy serves this time only. With `hold` the
    backends stay open, for the caller to close.
    """
    busy = is_busy()
    remembered = await open_remembered() if remember else MemoryRemembered()
    share_s = budget_s / len({*OPENERS} - {_LIMITED})  # it is measured in place of "webgpu" alone
    found: list[TierFacts] = []
    backends: dict[Tier, Backend] = {}
    try:
        for tier in TIERS:
            refused = switches.refuses(BackendType(tier)) or _needless(tier, found)
            if refused or tier not in OPENERS:
                missing = f"this version has {', '.join(OPENERS)} only"
                found.append(TierFacts(tier, refused or missing))
                continue
            try:
                backend = backends[tier] = await open_named(tier, remember=remember)
                facts = _facts(backend, switches)
                speeds = await speeds_of(
                    backend, facts.identity, remembered, share_s, keep=not busy
                )
            except BasculeError as error:
                found.append(TierFacts(tier, str(getattr(error, "reason", error))))
                if tier in backends:
                    backends.pop(tier).close()
                continue
            found.append(replace(facts, speeds=speeds))
    except BaseException:
        Survey((), backends).close()
        raise
    whole = Survey(tuple(found), backends if hold else {})
    if not hold:
        Survey((), backends).close()
    return whole


async def this_machine(switches: Switches, *, budget_s: float = BUDGET_S) -> Survey:
    """The survey of this machine, made once in a process and for each setting of the switches."""
    made, key = surveys_made(), repr(switches)
    if key not in made:
        made[key] = await survey(switches, budget_s=budget_s)
    return made[key]


@cache
def surveys_made() -> dict[str, Survey]:
    """By the switches; to be cleared where the machine is another one now."""
    return {}


def _needless(tier: Tier, found: Sequence[TierFacts]) -> str:
    """Why a tier is not even tried: the same adapter serves already, with all that it has."""
    better = any(facts.tier == "webgpu" and not facts.refused for facts in found)
    return "webgpu works, on the same adapter in full" if better and tier == _LIMITED else ""


def _facts(backend: Backend, switches: Switches) -> TierFacts:
    """What is known without measuring."""
    adapter = adapter_of(backend)
    room = switches.memory_nbytes
    if adapter is None:
        identity = f"{backend.device_name} {host_identity()}"
        room = free_nbytes() if room is None else room
        if backend.tier == "webnn" and room is not None:
            room //= _WEBNN_COPIES
        return TierFacts(
            backend.tier, "", backend.device_name, identity=identity, total_nbytes=room
        )
    if room is None and adapter.software:
        room = free_nbytes()  # no memory of its own; that of a real GPU nobody tells
    limits = adapter.limits
    largest = min(limits["maxBufferSize"], limits["maxStorageBufferBindingSize"])
    return TierFacts(
        backend.tier, "", adapter.name, adapter.software, adapter.identity, largest, room
    )
