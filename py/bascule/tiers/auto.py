"""The tier that a model runs on: the one asked for, or for "auto" the fastest that can hold it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from math import isfinite, prod

from bascule.backend.webnn.translate import refusal as webnn_refusal
from bascule.errors import InputError, TierUnavailableError
from bascule.program.program import Call, Program
from bascule.tiers.decisions import Considered, Decision, decide, memory_refusal
from bascule.tiers.openers import OPENERS, OpenedTier, open_named
from bascule.tiers.speeds import Kind
from bascule.tiers.survey import Survey, TierFacts, survey
from bascule.tiers.switches import read_switches

# Multiply-adds of a pass where nothing is known of the model: a small sentence encoder's.
_TYPICAL_WORK = 2e8
_WEIGHING = ("linear", "gated_linear")


@dataclass(frozen=True, slots=True)
class ModelNeed:
    """What a model asks of a tier: a pass of so much work, so much memory.

    How large one tensor is does not matter: one that no buffer holds is cut into parts. `unable`
    says of tiers that cannot run it at all why that is.
    """

    name: str = "a model"
    kind: Kind = "product"
    work: float = _TYPICAL_WORK
    total_nbytes: int = 0
    unable: Mapping[str, str] = field(default_factory=dict[str, str])


TierOpener = Callable[[str | Sequence[str], ModelNeed], Awaitable[OpenedTier]]


async def open_tier(
    wanted: str | Sequence[str], need: ModelNeed | None = None, *, remember: bool = True
) -> OpenedTier:
    """Open `wanted`, of several the first that works, or for "auto" the tier that should run what
    is needed fastest.

    For "auto" every tier is opened, and measured where this machine is new (about a second, see
    `bascule.tiers.survey`); the environment's switches rule (see `bascule.tiers.switches`).
    `remember` keeps what is learned of the device (its speed, kernels that are fast, or fail)
    between runs. InputError for an unknown name, TierUnavailableError for a known one that does
    not work here, and where none is left for "auto".
    """
    if not isinstance(wanted, str):
        return await _open_first(wanted, need, remember)
    if need and (unable := need.unable.get(wanted)):  # told before anything is opened or fetched
        raise TierUnavailableError(wanted, f"it cannot run {need.name}: {unable}")
    if wanted != "auto":
        return OpenedTier(await open_named(wanted, remember=remember), f"{wanted} was asked for")
    switches = read_switches()
    if switches.forced is not None:
        backend = await open_named(switches.forced.tier, remember=remember)
        return OpenedTier(backend, switches.forced_reason)
    found = await survey(switches, remember=remember, hold=True)
    try:
        opened = choose(found, need or ModelNeed())
    except BaseException:
        found.close()
        raise
    found.close(but=opened.backend.tier)
    return opened


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


def choose(found: Survey, need: ModelNeed) -> OpenedTier:
    """The best of the backends that a survey holds open; TierUnavailableError if none will do."""
    decision = decision_for(found.tiers, need)
    refused = [str(c) for c in decision.considered if c.refused and c.tier in OPENERS]
    if decision.chosen is None:
        hint = "Ask for a tier by its name to try it all the same, or quantize the model."
        raise TierUnavailableError("auto", "; ".join(refused), hint=hint)
    reason = "; ".join([f"auto took {decision.chosen}: {decision.reason}", *refused])
    if decision.warning:
        reason += f". {decision.warning[0].upper()}{decision.warning[1:]}"
    return OpenedTier(found.backends[decision.chosen], reason, decision)


def decision_for(tiers: Sequence[TierFacts], need: ModelNeed) -> Decision:
    """Which of these tiers should run a model."""
    return decide(f"a pass of {need.name}", tiers, partial(_consider, need))


def need_of(name: str, programs: Sequence[Program]) -> ModelNeed:
    """What a model needs for the least of its passes: a language model's is one token."""
    one = min(programs, key=_work)
    parameters = one.parameters
    blocks = sum(p.nbytes for p in parameters if p.dtype.startswith("q"))
    nbytes = sum(p.nbytes for p in parameters)
    return ModelNeed(
        name,
        "blocks" if 2 * blocks > nbytes else "product",
        _work(one),
        nbytes + max(p.planned_nbytes + sum(s.nbytes for s in p.states) for p in programs),
        {"webnn": webnn_refusal(one)},
    )


def _work(program: Program) -> float:
    """Multiply-adds of its matrix products, at its largest sizes."""
    return float(sum(map(_products, program.calls)))


def _products(call: Call) -> int:
    x, weight = call.operands[:2] if call.op in _WEIGHING else (None, None)
    return prod(x.limits) * weight.limits[0] if x and weight else 0


def _consider(need: ModelNeed, facts: TierFacts) -> Considered:
    refused = facts.refused or need.unable.get(facts.tier, "")
    refused = refused or memory_refusal(facts, 0, need.total_nbytes)
    if refused:
        return Considered(facts.tier, refused)
    # A pass is many calls in a row, sent and read back once.
    speeds = facts.speeds
    way_s = speeds.seconds(need.kind, 0) - speeds.seconds(need.kind, 0, again=True)
    expected_s = speeds.seconds(need.kind, need.work, again=True) + way_s
    if not isfinite(expected_s):
        return Considered(facts.tier)
    return Considered(facts.tier, "", expected_s, "predicted")
