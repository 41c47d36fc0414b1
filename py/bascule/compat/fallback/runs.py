"""How FallbackManager runs an operation: within limits, with recovery, and counted."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from inspect import isawaitable
from time import perf_counter
from typing import Any

from bascule.backend.base import Backend, Tier
from bascule.backend.tiers import TABLE
from bascule.compat.calling import n_arguments
from bascule.compat.error_policy import Attempt, FallbackStrategy
from bascule.compat.fallback.answers import limits_of, memory_budget
from bascule.compat.fallback.dividing import Plan, plan
from bascule.compat.fallback.operation_runs import Pieces, broken, device_nbytes
from bascule.compat.fallback.operation_work import Array, Request
from bascule.compat.fallback.settings import Settings
from bascule.compat.fallback.strategies import rewrites_of
from bascule.compat.fallback.telemetry import Telemetry
from bascule.compat.fallback.tiers import OpenDevices
from bascule.compat.recovery import RecoveryManager
from bascule.machine.capabilities import Capabilities
from bascule.program.rewrites.rewrite import Limits, Taken

# Once more in the same way, then elsewhere: an operation is short, and its caller waits for it.
_RECOVERY = FallbackStrategy(max_retry_attempts=1, retry_delay=0.05)
_LAST_TIERS = tuple(row.name for row in TABLE if row.anywhere)


@dataclass(frozen=True, slots=True)
class Ran:
    """A result, what was done for it, and the most bytes that it held at a time."""

    result: Array
    taken: tuple[Taken, ...]
    peak_nbytes: int
    tier: Tier
    n_attempts: int


class FallbackRuns:
    """Runs operations for a FallbackManager; `handle` is called with every error.

    `last_taken` are the rewrites that the last named operation took.
    """

    def __init__(
        self, settings: Settings, telemetry: Telemetry, handle: Callable[[BaseException], Any]
    ) -> None:
        self._settings = settings
        self._telemetry = telemetry
        self._handle = handle
        self._tiers = OpenDevices(settings.device)
        self._recovery = RecoveryManager(_RECOVERY, classify=settings.classify)
        self.last_taken: tuple[Taken, ...] = ()

    def close(self) -> None:
        """Close the tiers that were opened here."""
        self._tiers.close()

    async def named(
        self,
        name: str,
        request: Request,
        wanted: str,
        wanted_by: str,
        found: Capabilities | None,
    ) -> Array:
        """Run an operation of the table on the tier `wanted`, and count it under `name`; a reason
        that it is `wanted_by` takes its strategy where no limit demands it.
        """
        began = perf_counter()
        budget = memory_budget(self._settings, found) * self._settings.memory_threshold
        try:
            # What no tier can mend is refused before one is opened.
            plain = self._plan(request, limits_of(self._settings, budget, Limits()), wanted_by)
        except Exception as error:
            self._handle(error)
            raise
        attempt = partial(self._attempt, request, plain, wanted, budget, wanted_by)
        ran = await self._recovery.execute_with_recovery(name, attempt)
        self.last_taken = ran.taken
        moved = ran.n_attempts > 1 or (wanted == "auto" and _lacks_gpu(found))
        self._telemetry.note(
            name,
            perf_counter() - began,
            fallback=moved or bool(ran.taken),
            by_layers=any(taken.strategy == "layer_decomposition" for taken in ran.taken),
            wasm=moved and ran.tier in _LAST_TIERS and ran.tier != wanted,
        )
        held = device_nbytes(plain.work.program)
        self._telemetry.note_memory(name, held, ran.peak_nbytes, int(budget))
        return ran.result

    def _plan(self, request: Request, limits: Limits, wanted_by: str) -> Plan:
        return plan(
            request,
            limits,
            rewrites_of(request.operation.strategies),
            split_matrices=self._settings.layer_processing,
            wanted=wanted_by,
        )

    async def _attempt(
        self,
        request: Request,
        plain: Plan,
        wanted: str,
        budget: float,
        wanted_by: str,
        attempt: Attempt,
    ) -> Ran:
        try:
            if attempt.tier == "cpu":
                backend = await self._tiers.simplest()
            else:
                backend = await self._tiers.backend(attempt.tier or wanted)
            limits = limits_of(self._settings, budget * attempt.memory_scale, backend.limits)
            made = plain
            if attempt.memory_scale < 1 or broken(plain.work.program, backend.limits)[0]:
                made = self._plan(request, limits, wanted_by)
            return await self._ran(backend, request, made, limits, attempt.number)
        except Exception as error:
            self._handle(error)
            raise

    async def _ran(
        self, backend: Backend, request: Request, plan: Plan, limits: Limits, number: int
    ) -> Ran:
        pieces = Pieces(backend, limits, rewrites_of(request.operation.strategies))
        async with backend.turns.turn():
            backend.trim()
            before = backend.memory.now_nbytes
            backend.mark_memory()
            try:
                result = await plan.joined(pieces.start, request)
                peak = backend.memory.marked_peak_nbytes - before
            finally:
                await pieces.stop()
        # Tiers without a device count no intermediate values.
        peak = peak if backend.adapter is not None else pieces.planned_nbytes
        taken = (*plan.taken, *pieces.taken)
        return Ran(result, taken, peak, backend.tier, number)

    async def called(
        self, operation: Callable[..., Any], inputs: Any, context: Mapping[str, Any]
    ) -> Any:
        """Run a function of the caller's as it is, and after a failure as recovery says."""
        name = getattr(operation, "__name__", type(operation).__name__)
        began, last, attempts = perf_counter(), Attempt(), 0
        movable = n_arguments(operation) > 1

        async def go(attempt: Attempt) -> Any:
            nonlocal last, attempts
            last, attempts = attempt, attempts + 1
            try:
                if movable:
                    made = operation(inputs, await self._told(context, attempt))
                else:
                    made = operation(inputs)
                return await made if isawaitable(made) else made
            except Exception as error:
                self._handle(error)
                raise

        once: Callable[..., Any] = go if movable else lambda: go(Attempt())
        result = await self._recovery.execute_with_recovery(name, once)
        self._telemetry.note(
            name,
            perf_counter() - began,
            fallback=attempts > 1,
            wasm=last.tier == "cpu",
        )
        return result

    async def _told(self, context: Mapping[str, Any], attempt: Attempt) -> dict[str, Any]:
        """The context of a function's attempt; "tier" is the caller's own at the first."""
        tier: str | None = attempt.tier
        if tier == "cpu":
            tier = (await self._tiers.simplest()).tier
        moved = {} if tier is None else {"tier": tier}
        return {**context, **moved, "memory_scale": attempt.memory_scale}


def _lacks_gpu(found: Capabilities | None) -> bool:
    """Whether it was probed that there is none."""
    return found is not None and not found.has_adapter
