"""How FallbackManager runs an operation: within limits, with recovery, and counted."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from inspect import isawaitable
from time import perf_counter
from typing import Any

from bascule.backend.base import Backend, Tier
from bascule.backend.tiers import TABLE
from bascule.compat.calling import n_arguments
from bascule.compat.error_policy import Attempt, FallbackStrategy
from bascule.compat.fallback.answers import limits_of, memory_budget
from bascule.compat.fallback.operation_runs import (
    Ran,
    fixed_nbytes,
    run_in_chunks,
    run_work,
    total_nbytes,
)
from bascule.compat.fallback.operation_work import Array, Request, Work
from bascule.compat.fallback.operations import MODEL_STRATEGIES
from bascule.compat.fallback.settings import Settings
from bascule.compat.fallback.strategies import rewrites_of
from bascule.compat.fallback.telemetry import Telemetry
from bascule.compat.fallback.tiers import OpenTiers
from bascule.compat.recovery import RecoveryManager
from bascule.machine.capabilities import Capabilities
from bascule.program.program import Program
from bascule.program.rewrites.rewrite import Taken

# Once more in the same way, then elsewhere: an operation is short, and its caller waits for it.
_RECOVERY = FallbackStrategy(max_retry_attempts=1, retry_delay=0.05)
_LAST_TIERS = tuple(row.name for row in TABLE if row.anywhere)


class FallbackRuns:
    """Runs operations for a FallbackManager; `handle` is called with every error.

    `last_taken` tells what rewrites the last named operation took.
    """

    def __init__(
        self, settings: Settings, telemetry: Telemetry, handle: Callable[[BaseException], Any]
    ) -> None:
        self._settings = settings
        self._telemetry = telemetry
        self._handle = handle
        self._tiers = OpenTiers(settings.device)
        self._recovery = RecoveryManager(_RECOVERY)
        self.last_taken: tuple[Taken, ...] = ()

    def close(self) -> None:
        """Close the tiers that were opened here."""
        self._tiers.close()

    async def named(
        self,
        name: str,
        request: Request,
        wanted: str,
        needed: bool,
        found: Capabilities | None,
    ) -> Array:
        """Run an operation of the table on the tier `wanted`, and count it under `name`; `needed`
        says that a table or a limit asks for its fallback.
        """
        began = perf_counter()
        try:
            work = request.operation.record(request)
        except Exception as error:
            self._handle(error)
            raise
        budget = memory_budget(self._settings, found)
        attempt = partial(self._attempt, request, work, wanted, budget)
        ran, tier, n = await self._recovery.execute_with_recovery(name, attempt)
        self.last_taken = ran.taken
        wasm = tier in _LAST_TIERS and tier != wanted
        self._telemetry.note(
            name,
            perf_counter() - began,
            fallback=needed or n > 1 or wasm or bool(ran.taken),
            by_layers=any(taken.strategy == "layer_decomposition" for taken in ran.taken),
            wasm=wasm,
        )
        threshold = int(budget * self._settings.memory_threshold)
        self._telemetry.note_memory(name, ran.plain_nbytes, ran.nbytes, threshold)
        return ran.result

    async def _attempt(
        self, request: Request, work: Work, wanted: str, budget: float, attempt: Attempt
    ) -> tuple[Ran, Tier, int]:
        """What ran, on which tier, and at which attempt."""
        try:
            if attempt.tier == "cpu":
                backend = await self._tiers.simplest(work.program)
            else:
                backend = await self._tiers.backend(attempt.tier or wanted, work.program)
            most = budget * self._settings.memory_threshold * attempt.memory_scale
            ran = await self._ran(backend, request, work, most)
        except Exception as error:
            self._handle(error)
            raise
        return ran, backend.tier, attempt.number

    async def _ran(self, backend: Backend, request: Request, work: Work, most: float) -> Ran:
        """Run the work, or where it would hold more than `most` bytes, smaller ones in a row."""
        settings, operation = self._settings, request.operation
        names = (*operation.strategies, *MODEL_STRATEGIES[settings.model_type])
        rewrites = rewrites_of(names, layer_processing=settings.layer_processing)

        async def run(work: Work) -> Ran:
            room = most - fixed_nbytes(work.program)
            limits = limits_of(settings, room, backend.limits)
            return await run_work(backend, work, limits, rewrites)

        held = total_nbytes(work.program)
        by_layers = operation.strategies[0] == "layer_decomposition"
        if held <= most or (by_layers and not settings.layer_processing):
            return await run(work)
        return await run_in_chunks(request, work, most, run)

    async def called(
        self, operation: Callable[..., Any], inputs: Any, context: Mapping[str, Any]
    ) -> Any:
        """Run a function of the caller's as it is, and after a failure as recovery says."""
        name = getattr(operation, "__name__", type(operation).__name__)
        began, last = perf_counter(), Attempt()
        movable = n_arguments(operation) > 1

        async def go(attempt: Attempt) -> Any:
            nonlocal last
            last = attempt
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
            fallback=last.number > 1,
            wasm=last.tier == "cpu",
        )
        return result

    async def _told(self, context: Mapping[str, Any], attempt: Attempt) -> dict[str, Any]:
        """The context of a function's attempt; "tier" is the caller's own at the first."""
        tier: str | None = attempt.tier
        if tier == "cpu":
            tier = (await self._tiers.simplest(_NOTHING)).tier
        moved = {} if tier is None else {"tier": tier}
        return {**context, **moved, "memory_scale": attempt.memory_scale}


_NOTHING = Program("a function", (), (), (), (), (), {}, ())
