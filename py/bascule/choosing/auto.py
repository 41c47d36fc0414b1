"""Choose the tier for a model: the requested one, or for "auto" the fastest that can hold it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from math import isfinite, sqrt

from bascule.backend.base import Backend, Tier
from bascule.backend.streaming import NO_STREAMING
from bascule.backend.tiers import TABLE
from bascule.base.remembered import open_remembered
from bascule.choosing.decisions import Candidate, Decision, decide, memory_refusal
from bascule.choosing.openers import OpenedTier, open_named
from bascule.choosing.speed_records import SpeedWatch
from bascule.choosing.speeds import Kind
from bascule.choosing.survey import Survey, survey
from bascule.choosing.switches import Switches, read_switches
from bascule.choosing.tier_records import TierFacts, TierRecords
from bascule.choosing.work import work_of_program
from bascule.errors import BasculeError, InputError, TierUnavailableError
from bascule.machine.host import identity_of
from bascule.program.program import Program
from bascule.program.stages import part_nbytes

# Multiply-adds of a pass of an unknown model: those of a small sentence encoder.
_TYPICAL_WORK = 2e8


@dataclass(frozen=True, slots=True)
class ModelNeed:
    """What a model needs of a tier: the work of a pass, and memory.

    `work` is that of its smallest pass, in `calls` products, and `large_work` that of a batch, 0 if
    that does not matter. The largest tensor does not matter: one that exceeds a buffer is split.
    `unable` has the reason of each tier that cannot run the model at all.
    """

    name: str = "a model"
    kind: Kind = "product"
    work: float = _TYPICAL_WORK
    total_nbytes: int = 0
    unable: Mapping[str, str] = field(default_factory=dict[str, str])
    calls: int = 1
    large_work: float = 0.0
    weights_nbytes: int = 0

    def refusal(self, facts: TierFacts) -> str:
        """Return why a tier cannot run it; empty if it can."""
        unable = facts.refused or self.unable.get(facts.tier, "")
        return unable or memory_refusal(facts, 0, self.total_nbytes)

    def check(self, tier: str) -> None:
        """TierUnavailableError for a tier that cannot run it on any machine."""
        if unable := self.unable.get(tier):
            raise TierUnavailableError(tier, f"it cannot run {self.name}: {unable}")


async def open_tier(
    wanted: str | Sequence[str], need: ModelNeed | None = None, *, remember: bool = True
) -> OpenedTier:
    """Open `wanted`, the first of several that works, or for "auto" the tier that is expected to be
    fastest.

    For "auto" every tier is opened and measured on a new machine (about a second); after that
    natively only the chosen one is opened (see `bascule.choosing.survey`). The environment's
    switches apply (see `bascule.choosing.switches`). `remember` stores what is learned about the
    device (its speed, fast and failed kernels) for later runs. InputError for an unknown name,
    TierUnavailableError for a tier that does not work here, or if none is left for "auto".
    """
    if not isinstance(wanted, str):
        return await _open_first(wanted, need, remember)
    if need:  # before anything is opened or fetched
        need.check(wanted)
    if wanted != "auto":
        return OpenedTier(await open_named(wanted, remember=remember), f"{wanted} was asked for")
    switches = read_switches()
    if switches.forced is not None:
        backend = await open_named(switches.forced.tier, remember=remember)
        return OpenedTier(backend, switches.forced_reason)
    return await open_best(switches, need or ModelNeed(), remember=remember)


async def open_best(switches: Switches, need: ModelNeed, *, remember: bool = True) -> OpenedTier:
    """Open the tier that is expected to be fastest; TierUnavailableError if none is suitable.

    A remembered tier that no longer opens is rejected, and the next one tried.
    """
    result = await survey(switches, remember=remember, hold=True)
    try:
        opened, result = await open_chosen(result, need, remember=remember)
    except BaseException:
        result.close()
        raise
    tier = opened.backend.tier
    result.close(but=tier)
    watch = await _watch(result, tier, need) if remember else None
    return replace(opened, watch=watch)


async def open_chosen(
    surveyed: Survey, need: ModelNeed, *, remember: bool = True
) -> tuple[OpenedTier, Survey]:
    """Open the fastest suitable tier of a survey; return it with the updated survey.

    The survey's backends stay open. TierUnavailableError if no tier is suitable.
    """
    while True:
        decision, tier, reason = _decided(surveyed, need)
        backend, refused = surveyed.backends.get(tier), ""
        if backend is None:
            backend, refused = await _open_remembered(surveyed, tier, remember)
        if backend is not None:
            surveyed = replace(surveyed, backends={**surveyed.backends, tier: backend})
            return OpenedTier(backend, reason, decision), surveyed
        surveyed = _without(surveyed, tier, refused)


async def _open_remembered(
    surveyed: Survey, tier: Tier, remember: bool
) -> tuple[Backend | None, str]:
    """Open a remembered tier; if that fails, forget what was remembered."""
    facts = next(each for each in surveyed.tiers if each.tier == tier)
    backend, refused = None, ""
    try:
        backend = await open_named(tier, remember=remember)
    except BasculeError as error:
        refused = str(getattr(error, "reason", error))
    if backend is None or identity_of(backend) != facts.identity:
        records = await TierRecords.open(await open_remembered())
        records.forget(tier)
        await records.save()
    return backend, refused


def _without(surveyed: Survey, tier: Tier, refused: str) -> Survey:
    """Return the survey with that tier rejected, and tiers that were skipped for it to be tried."""

    def changed(each: TierFacts) -> TierFacts:
        if each.tier == tier:
            return TierFacts(tier, refused)
        return TierFacts(each.tier) if each.better == tier else each

    return replace(surveyed, tiers=tuple(map(changed, surveyed.tiers)))


async def _watch(surveyed: Survey, tier: Tier, need: ModelNeed) -> SpeedWatch:
    facts = next(each for each in surveyed.tiers if each.tier == tier)
    return SpeedWatch(tier, facts.identity, need.kind, await open_remembered())


async def _open_first(wanted: Sequence[str], need: ModelNeed | None, remember: bool) -> OpenedTier:
    refused: list[str] = []
    for tier in wanted:
        try:
            opened = await open_tier(tier, need, remember=remember)
        except TierUnavailableError as error:
            refused.append(f"{tier} refused ({error.reason})")
            continue
        return replace(opened, reason="; ".join([opened.reason, *refused]))
    if not refused:
        raise InputError("tier", "the name of a tier, or some of them", repr(wanted))
    raise TierUnavailableError(" or ".join(wanted), "; ".join(refused))


def _decided(surveyed: Survey, need: ModelNeed) -> tuple[Decision, Tier, str]:
    """Return the decision and its reason in words; TierUnavailableError if no tier is suitable."""
    decision = decision_for(surveyed.tiers, need)
    refused = [str(c) for c in decision.considered if c.refused]
    if decision.chosen is None:
        hint = "Ask for a tier by its name to try it all the same, or quantize the model."
        raise TierUnavailableError("auto", "; ".join(refused), hint=hint)
    reason = "; ".join([f"auto took {decision.chosen}: {decision.reason}", *refused])
    if decision.warning:
        reason += f". {decision.warning[0].upper()}{decision.warning[1:]}"
    return decision, decision.chosen, reason


def decision_for(tiers: Sequence[TierFacts], need: ModelNeed) -> Decision:
    """Decide which of these tiers should run a model."""
    return decide(f"a pass of {need.name}", tiers, partial(_consider, need))


def need_of(name: str, programs: Sequence[Program], *, streamed: bool = False) -> ModelNeed:
    """Return what a model needs: its smallest pass, a token or a text, and an encoder's largest.

    Of `streamed` weights two slots are in memory.
    """
    works = {id(program): work_of_program(program) for program in programs}
    one = min(programs, key=lambda program: works[id(program)])
    large = max(programs, key=lambda program: works[id(program)])
    parameters = one.parameters
    blocks = sum(p.nbytes for p in parameters if p.dtype.startswith("q"))
    nbytes = sum(p.nbytes for p in parameters)
    held = nbytes
    unable = {row.name: row.refusal(one) for row in TABLE}
    if streamed:
        held = min(nbytes, 2 * part_nbytes(programs))
        unable["webnn"] = NO_STREAMING
    work, calls = works[id(one)]
    return ModelNeed(
        name,
        "blocks" if 2 * blocks > nbytes else "product",
        work,
        held + max(p.planned_nbytes + sum(s.nbytes for s in p.states) for p in programs),
        unable,
        calls=calls,
        # A language model runs step after step, and prefills once.
        large_work=0.0 if one.states else works[id(large)][0],
        weights_nbytes=nbytes,
    )


def _consider(need: ModelNeed, facts: TierFacts) -> Candidate:
    if refused := need.refusal(facts):
        return Candidate(facts.tier, refused)
    expected_s = facts.speeds.pass_seconds(need.kind, need.work, need.calls)
    if need.large_work > need.work:
        # A single text and a batch count equally: what matters is how many times faster a tier is.
        large_s = facts.speeds.pass_seconds(need.kind, need.large_work, need.calls)
        expected_s = sqrt(expected_s * large_s * need.work / need.large_work)
    if not isfinite(expected_s):
        return Candidate(facts.tier)
    return Candidate(facts.tier, "", expected_s, facts.speeds.source)
