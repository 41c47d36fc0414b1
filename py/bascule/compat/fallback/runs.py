"""Run operations for a FallbackManager: within limits, with recovery, and counted."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from inspect import isawaitable
from time import perf_counter
from typing import Any

from bascule.backend.base import Backend, Tier
from bascule.backend.tiers import HOST_TIERS
from bascule.compat.calling import n_arguments
from bascule.compat.error_policy import Attempt, FallbackStrategy
from bascule.compat.fallback.answers import limits_of, memory_budget
from bascule.compat.fallback.dividing import Plan, plan
from bascule.compat.fallback.operation_runs import PieceRunner, device_nbytes, violation_of
from bascule.compat.fallback.operation_work import Array, Request
from bascule.compat.fallback.settings import Settings
from bascule.compat.fallback.telemetry import Telemetry
from bascule.compat.fallback.tiers import OpenDevices
from bascule.compat.recovery import RecoveryManager
from bascule.machine.capabilities import Capabilities
from bascule.program.rewrites.quantization import progressive_quantization
from bascule.program.rewrites.rewrite import AppliedRewrite, Limits, Rewrite

# One retry on the same tier, then the next one: an operation is short, and its caller waits for it.
_RECOVERY = FallbackStrategy(max_retry_attempts=1, retry_delay=0.05)


@dataclass(frozen=True, slots=True)
class RunResult:
    """A result, the strategies that were used for it, and its peak memory in bytes."""

    result: Array
    applied: tuple[AppliedRewrite, ...]
    peak_nbytes: int
    tier: Tier
    n_attempts: int


class FallbackRuns:
    """Runs operations for a FallbackManager; `handle` is called with every error.

    `last_applied` are the strategies that the last named operation used.
    """

    def __init__(
        self, settings: Settings, telemetry: Telemetry, handle: Callable[[BaseException], Any]
    ) -> None:
        self._settings = settings
        self._telemetry = telemetry
        self._handle = handle
        self._tiers = OpenDevices(settings.device)
        self._recovery = RecoveryManager(_RECOVERY, classify=settings.classify)
        self.last_applied: tuple[AppliedRewrite, ...] = ()

    def close(self) -> None:
        """Close the devices that were opened here."""
        self._tiers.close()

    async def run_operation(
        self,
        name: str,
        request: Request,
        tier: str,
        forced_by: str,
        probed: Capabilities | None,
    ) -> Array:
        """Run an operation of the table on a tier, and count it under `name`; with a reason in
        `forced_by` by its strategy, though no limit requires that.
        """
        began = perf_counter()
        budget = memory_budget(self._settings, probed) * self._settings.memory_threshold
        try:
            # An operation that fits no tier is rejected before one is opened.
            plain = self._plan(request, limits_of(self._settings, budget, Limits()), forced_by)
        except Exception as error:
            self._handle(error)
            raise
        attempt = partial(self._attempt, request, plain, tier, budget, forced_by)
        run = await self._recovery.execute_with_recovery(name, attempt)
        self.last_applied = run.applied
        fell_back = run.n_attempts > 1 or (tier == "auto" and _lacks_gpu(probed))
        self._telemetry.count_operation(
            name,
            perf_counter() - began,
            fallback=fell_back or bool(run.applied),
            by_layers=any(applied.strategy == "layer_decomposition" for applied in run.applied),
            wasm=fell_back and run.tier in HOST_TIERS and run.tier != tier,
        )
        plain_nbytes = device_nbytes(plain.work.program)
        self._telemetry.record_memory(name, plain_nbytes, run.peak_nbytes, int(budget))
        return run.result

    def _plan(self, request: Request, limits: Limits, forced_by: str) -> Plan:
        return plan(
            request,
            limits,
            _rewrites(request),
            split_matrices=self._settings.layer_processing,
            forced_by=forced_by,
        )

    async def _attempt(
        self,
        request: Request,
        plain: Plan,
        tier: str,
        budget: float,
        forced_by: str,
        attempt: Attempt,
    ) -> RunResult:
        try:
            if attempt.tier == "cpu":
                backend = await self._tiers.simplest()
            else:
                backend = await self._tiers.backend(attempt.tier or tier)
            limits = limits_of(self._settings, budget * attempt.memory_scale, backend.limits)
            plan = plain
            if attempt.memory_scale < 1 or violation_of(plain.work.program, backend.limits):
                plan = self._plan(request, limits, forced_by)
            return await self._run_on(backend, request, plan, limits, attempt.number)
        except Exception as error:
            self._handle(error)
            raise

    async def _run_on(
        self, backend: Backend, request: Request, plan: Plan, limits: Limits, number: int
    ) -> RunResult:
        runner = PieceRunner(backend, limits, _rewrites(request))
        async with backend.turns.turn():
            backend.trim()
            before = backend.memory.now_nbytes
            backend.mark_memory()
            try:
                result = await plan.run(runner.start, request)
                peak = backend.memory.marked_peak_nbytes - before
            finally:
                await runner.stop()
        # Tiers without a device count no intermediate values.
        peak = peak if backend.adapter is not None else runner.planned_nbytes
        applied = (*plan.applied, *runner.applied)
        return RunResult(result, applied, peak, backend.tier, number)

    async def run_callable(
        self, operation: Callable[..., Any], inputs: Any, context: Mapping[str, Any]
    ) -> Any:
        """Call a user's function, again after a transient failure."""
        name = getattr(operation, "__name__", type(operation).__name__)
        began, last, attempts = perf_counter(), Attempt(), 0
        takes_context = n_arguments(operation) > 1

        async def call(attempt: Attempt) -> Any:
            nonlocal last, attempts
            last, attempts = attempt, attempts + 1
            try:
                if takes_context:
                    result = operation(inputs, await self._context_of(context, attempt))
                else:
                    result = operation(inputs)
                return await result if isawaitable(result) else result
            except Exception as error:
                self._handle(error)
                raise

        attempt_call: Callable[..., Any] = call if takes_context else lambda: call(Attempt())
        result = await self._recovery.execute_with_recovery(name, attempt_call)
        self._telemetry.count_operation(
            name,
            perf_counter() - began,
            fallback=attempts > 1,
            wasm=last.tier == "cpu",
        )
        return result

    async def _context_of(self, context: Mapping[str, Any], attempt: Attempt) -> dict[str, Any]:
        """The context of an attempt; at the first, "tier" is the caller's own."""
        tier: str | None = attempt.tier
        if tier == "cpu":
            tier = (await self._tiers.simplest()).tier
        changed = {} if tier is None else {"tier": tier}
        return {**context, **changed, "memory_scale": attempt.memory_scale}


def _rewrites(request: Request) -> list[Rewrite]:
    """The rewrites of its program; the other strategies divide it: see `dividing`."""
    quantized = "progressive_quantization" in request.operation.strategies
    return [progressive_quantization] if quantized else []


def _lacks_gpu(probed: Capabilities | None) -> bool:
    """Whether probing found no GPU."""
    return probed is not None and not probed.has_adapter
