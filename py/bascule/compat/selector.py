"""Choose a backend for a piece of work: by measurements on this machine, and by past runs."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import cache, partial
from math import isfinite, prod
from typing import Any, Self

from bascule import __version__
from bascule.backend.base import Tier
from bascule.base.remembered import open_remembered
from bascule.base.waiting import start
from bascule.choosing.decisions import Candidate, Decision, decide, memory_refusal
from bascule.choosing.speeds import Kind
from bascule.choosing.survey import BUDGET_S, Survey, TierFacts, this_machine
from bascule.choosing.switches import read_switches
from bascule.choosing.workload import BackendType, WorkloadCharacteristics, backend_named
from bascule.compat.history import History
from bascule.compat.monitored import MonitoredRun
from bascule.compat.operation_costs import (
    Costs,
    OperationKind,
    costs_of,
    expected_seconds,
    kind_of_operation,
)
from bascule.errors import TierUnavailableError

# Work whose arithmetic grows faster than its data; all else is a pass over the data.
_PRODUCTS = frozenset({"matmul", "linear", "conv", "attention", "neural_network"})
_MAX_CHOICES = 4096
_DECISIONS_KEPT = 100
_ARRAYS = 3  # two operands and a result


class IntelligentBackendSelector:
    """Chooses by measurement: small work stays on the CPU, large work goes where it is faster.

    The first selection on a new machine measures its tiers for about a second and remembers that;
    if it cannot wait (in a running event loop, in most pages) it measures in the background and
    answers CPU until then: `await selector.ready()` waits. The first work of each kind (see
    `operation_costs`: fft, sort, reduction, ...) is sampled on each tier in the same way, and
    priced as one pass over its data until then. The environment's switches (see
    `bascule.choosing.switches`) are read when a selector is created. With `enable_learning` the
    times of `execute_with_monitoring` correct the measurement, from 5 runs on, and are remembered
    as well. Keep one selector: each has its own history.
    """

    def __init__(
        self,
        enable_learning: bool = True,
        *,
        known: Survey | None = None,
        costs: Mapping[OperationKind, Costs] | None = None,
    ) -> None:
        """`known` replaces the survey of this machine, `costs` the samples of operations.

        With either nothing is sampled.
        """
        self.enable_learning = enable_learning
        self.decisions: deque[Decision] = deque(maxlen=_DECISIONS_KEPT)
        self._switches = read_switches()
        self._survey = known
        self._history = History()
        self._chosen: dict[WorkloadCharacteristics, BackendType] = {}
        self._surveying: asyncio.Task[Self] | None = None
        self._costs: dict[OperationKind, Costs] = dict(costs or {})
        self._samples = known is None and costs is None
        self._sampled: dict[OperationKind, asyncio.Task[None] | None] = {}
        self._saving: set[asyncio.Task[None]] = set()

    async def ready(self, budget_s: float = BUDGET_S, *, operations: Iterable[str] = ()) -> Self:
        """Measure what is new on this machine, for about `budget_s`; read what was learned.

        The kinds of these `operations` are sampled as well, for about half a second each.
        """
        if self._survey is None:
            self._survey = await this_machine(self._switches, budget_s=budget_s)
        if self.enable_learning:
            remembered = await open_remembered()
            self._history.take(await remembered.get(_learned_key(self._survey)))
        self._chosen.clear()
        for operation in operations:
            kind = kind_of_operation(operation)
            if kind is not None and self._samples and kind not in self._costs:
                await self._sample(kind, self._survey)
        return self

    def select_backend(
        self,
        workload: WorkloadCharacteristics,
        preferred_backend: BackendType | str | None = None,
    ) -> BackendType:
        """Return the backend for that work; `preferred_backend`, if given and it works.

        InputError for a malformed workload or an unknown name, TierUnavailableError if the switches
        or the memory leave no tier.
        """
        if preferred_backend is None:
            try:
                return self._chosen[workload]
            except (KeyError, TypeError):  # new, or with a list for a shape
                return self._choose(workload, None)
        return self._choose(workload, preferred_backend)

    def execute_with_monitoring(
        self,
        operation_name: str,
        backend: BackendType | str,
        func: Callable[..., Any],
        workload: WorkloadCharacteristics | None = None,
        fallback_backends: Iterable[BackendType | str] = (),
    ) -> Any:
        """Call `func`, time it, and if it fails try the fallbacks in order.

        A `func` with a parameter gets the BackendType to run on; one without is simply called
        again. If it returns an awaitable, so does this. With a `workload` the time counts as
        evidence for it. Without a fallback an error is raised unchanged; if the fallbacks fail,
        too, BackendsFailedError has all errors.
        """
        first = backend_named(backend, "execute_with_monitoring: backend")
        others = [backend_named(b, "fallback_backends") for b in fallback_backends]
        # A disabled backend is no fallback; a missing one may be: `func` knows.
        order = [first, *(b for b in others if not self._switches.refuses(b))]
        checked = workload and workload.checked()

        def note(backend: BackendType, seconds: float, failed: bool) -> None:
            self.note(backend, operation_name, checked, seconds, failed=failed)

        return MonitoredRun(operation_name, order, func, note, self.decisions).go()

    def get_performance_summary(self) -> dict[str, Any]:
        """Return statistics of all runs by (backend, operation), times in seconds; tiers, latest
        choices.

        `recent_backends` has the latest runs' backends, `tiers` the machine's (empty before the
        first selection), `decisions` the log.
        """
        rows = self._history.statistics.items()
        return {
            "total_records": self._history.total_records,
            "operation_stats": {(BackendType(t), name): row.as_dict() for (t, name), row in rows},
            "recent_backends": [BackendType(t) for t in self._history.recent],
            "tiers": [t.as_json() for t in self._survey.tiers] if self._survey else [],
            "decisions": [d.as_json() for d in self.decisions],
        }

    def reset_performance_history(self) -> None:
        """Forget all runs and what was learned from them, also on disk; the measurement stays."""
        self._history = History()
        self._chosen.clear()
        self._save()

    def note(
        self,
        backend: BackendType,
        operation_name: str,
        workload: WorkloadCharacteristics | None,
        seconds: float,
        *,
        failed: bool = False,
    ) -> None:
        """Add a run that was timed elsewhere to the history."""
        self._history.count(backend.tier, operation_name, seconds, failed=failed)
        if workload is None or not self.enable_learning:
            return
        key = workload.operation_type, workload.bucket
        if self._history.learn(backend.tier, key, seconds, failed=failed):
            self._chosen.clear()
            self._save()

    def _choose(
        self, workload: WorkloadCharacteristics, preferred: BackendType | str | None
    ) -> BackendType:
        workload = workload.checked()
        if preferred in (None, "auto"):
            wanted = None
        else:
            wanted = backend_named(preferred, "preferred_backend")
        result = self._known()
        if result is None:
            return self._unmeasured(workload, wanted)
        costs = self._costs_of(workload, result)
        decision = decide(
            _subject(workload), result.tiers, partial(self._consider, workload, costs)
        )
        if wanted is not None:
            decision = self._preferring(wanted, decision, result)
        self.decisions.append(decision)
        if decision.chosen is None:
            raise TierUnavailableError("auto", "; ".join(map(str, decision.considered)))
        chosen = BackendType(decision.chosen)
        if wanted is None:
            if len(self._chosen) >= _MAX_CHOICES:
                self._chosen.clear()
            self._chosen[workload] = chosen
        return chosen

    def _known(self) -> Survey | None:
        """Return the machine's survey, measured first if this may wait."""
        if self._survey is None and self._surveying is None:
            begun = start(self.ready())
            self._surveying = begun if isinstance(begun, asyncio.Task) else None
        return self._survey

    def _costs_of(self, workload: WorkloadCharacteristics, surveyed: Survey) -> Costs | None:
        """Return the samples of the workload's kind, taken first if this may wait; None without."""
        kind = kind_of_operation(workload.operation_type)
        if kind is None:
            return None
        if self._samples and kind not in self._costs and kind not in self._sampled:
            self._sampled[kind] = None
            begun = start(self._sample(kind, surveyed))
            self._sampled[kind] = begun if isinstance(begun, asyncio.Task) else None
        return self._costs.get(kind)

    async def _sample(self, kind: OperationKind, surveyed: Survey) -> None:
        costs = await costs_of(kind, surveyed)
        if costs is not None:
            self._costs[kind] = costs
            self._chosen.clear()

    def _unmeasured(
        self, workload: WorkloadCharacteristics, wanted: BackendType | None
    ) -> BackendType:
        """Return the forced backend, the preferred one, else the CPU, which runs anywhere."""
        asked = (self._switches.forced, wanted, BackendType.CPU)
        chosen = next((b for b in asked if b and not self._switches.refuses(b)), None)
        if chosen is None:
            reason = self._switches.refuses(BackendType.CPU)
            raise TierUnavailableError("auto", f"nothing is measured yet, and for the CPU {reason}")
        reason = "this machine is not measured yet (await selector.ready())"
        self.decisions.append(Decision(_subject(workload), (), chosen.tier, reason))
        return chosen

    def _consider(
        self, workload: WorkloadCharacteristics, costs: Costs | None, facts: TierFacts
    ) -> Candidate:
        refused = (
            self._switches.refuses(BackendType(facts.tier))
            or facts.refused
            or _too_wide(facts.tier, workload)
            or memory_refusal(facts, workload.nbytes, _ARRAYS * workload.nbytes)
        )
        if refused:
            return Candidate(facts.tier, refused)
        key = workload.operation_type, workload.bucket
        evidence = self._history.evidence(key).get(facts.tier) if self.enable_learning else None
        if evidence and evidence.problem:
            return Candidate(facts.tier, source=evidence.problem)
        if evidence and evidence.typical_s is not None:
            return Candidate(facts.tier, "", evidence.typical_s, "measured here")
        if costs is not None:
            samples = costs.get(facts.tier, ())
            source = "predicted from samples of its kind" if samples else "does no such work"
            return Candidate(facts.tier, "", expected_seconds(samples, workload), source)
        kind, work = _work(workload)
        expected_s = facts.speeds.seconds(kind, work, again=workload.is_iterative)
        source = "predicted" if isfinite(expected_s) else "not measured"
        return Candidate(facts.tier, "", expected_s, source)

    def _preferring(self, wanted: BackendType, decision: Decision, surveyed: Survey) -> Decision:
        facts = surveyed.facts(wanted)
        refused = self._switches.refuses(wanted) or (facts.refused if facts else "it is absent")
        if refused:
            reason = f"{decision.reason} ({wanted.tier} was preferred and is refused: {refused})"
            return replace(decision, reason=reason)
        return replace(decision, chosen=wanted.tier, reason="it was preferred")

    def _save(self) -> None:
        """Store what was learned: now in synchronous code, soon in a running event loop."""
        if self._survey is None or not self.enable_learning:
            return
        begun = start(self._saved(_learned_key(self._survey)))
        if isinstance(begun, asyncio.Task):
            self._saving.add(begun)
            begun.add_done_callback(self._saving.discard)

    async def _saved(self, key: str) -> None:
        await (await open_remembered()).put(key, self._history.as_json())


def select_optimal_backend(
    operation_type: str,
    data_shape: Iterable[int],
    requires_gradient: bool = False,
    *,
    dtype_size: int = 4,
    is_iterative: bool = False,
    preferred_backend: BackendType | str | None = None,
) -> BackendType:
    """Return the backend for work on one array of that shape, by the process's shared selector.

    The selector is created, and the environment read, at the first call. Raises as
    `IntelligentBackendSelector.select_backend`.
    """
    shape = tuple(data_shape)
    workload = WorkloadCharacteristics(
        operation_type, prod(shape), shape, dtype_size, is_iterative, requires_gradient
    )
    return shared_selector().select_backend(workload, preferred_backend)


@cache
def shared_selector() -> IntelligentBackendSelector:
    """The selector behind `select_optimal_backend`."""
    return IntelligentBackendSelector()


def _learned_key(surveyed: Survey) -> str:
    return f"learned {__version__} {surveyed.identity}"


def _subject(workload: WorkloadCharacteristics) -> str:
    subject = f"{workload.operation_type} of {workload.data_size:,} numbers"
    subject += " again and again" if workload.is_iterative else ""
    return f"{subject}, gradient wanted" if workload.requires_gradient else subject


def _too_wide(tier: Tier, workload: WorkloadCharacteristics) -> str:
    if workload.dtype_size > 4 and BackendType(tier).is_gpu:
        return f"WGSL has no numbers of {workload.dtype_size} bytes"
    return ""


def _work(workload: WorkloadCharacteristics) -> tuple[Kind, float]:
    """Return which sample such work is like, and how much of it there is."""
    size, shape = workload.data_size, workload.data_shape
    if workload.operation_type not in _PRODUCTS:
        return "pass", size
    # (..., K) times (K, K); for a flat array K is unknown: a square is assumed.
    return "product", size * shape[-1] if len(shape) > 1 else size**1.5
