"""Retry a failed operation: later, with less memory, finally on a simpler tier.

This is for a program's own operations. Loaded models recover from a lost device themselves (see
`LoadedModel.revive`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from inspect import isawaitable
from time import monotonic
from typing import Any

from bascule.base.waiting import start
from bascule.compat.calling import takes_an_argument
from bascule.compat.error_policy import (
    Attempt,
    Classifier,
    ErrorRecovery,
    FallbackStrategy,
    RecoveryAction,
)
from bascule.compat.matrix_ops import MatrixOps
from bascule.compat.platform_info import DeviceCompatibilityChecker, npu_integration
from bascule.device.device import Device
from bascule.machine.capabilities import capabilities
from bascule.machine.pressure import Pressure
from bascule.machine.requirements import CapabilityRequirements, validate_operation_requirements

_LONGEST_WAIT_S = 30.0
# How long a hot or overloaded machine may recover before work continues.
_LONGEST_PAUSE_S = 2.0
_PAUSE_S = 0.05
# A device that is too hot waits this many times as long as another retry.
_COOLER = 4


class RecoveryManager:
    """Runs operations with recovery, and describes the machine.

    Pass to `on_memory_pressure` what frees memory (a model's `trim`, a cache of your own): it is
    called before an operation is retried with less. Errors of Bascule are recognized by their
    meaning, as are RuntimeError, OSError, TimeoutError, MemoryError, wgpu-py's and the browser's;
    for others `classify(error)` returns an ErrorKind, or None.
    """

    def __init__(
        self,
        fallback_strategy: FallbackStrategy | None = None,
        *,
        classify: Classifier | None = None,
    ) -> None:
        self.error_recovery = ErrorRecovery(fallback_strategy, classify)
        self._frees: list[Callable[[], Any]] = []
        self._pressure: Pressure | None = None
        self._matrix_ops: MatrixOps | None = None
        self._matrix_device: Device | None = None

    def on_memory_pressure(self, free: Callable[[], Any]) -> None:
        """Call `free`, which may be async, when memory runs out; it may return the bytes freed."""
        self._frees.append(free)

    def watch_pressure(self, pressure: Pressure | None) -> None:
        """Before each attempt wait while that is "critical", at most two seconds; None: stop that.

        Pass what `bascule.open_pressure` returned. It stays the caller's to close.
        """
        self._pressure = pressure

    def matrix_ops(self, device: Device | None = None) -> MatrixOps:
        """Return matrix products on `device`, or on one that is opened once: `matrix_ops().gemm(a,
        b)`.

        The object is the same for the same device, so that calls share it.
        """
        if self._matrix_ops is None or device is not self._matrix_device:
            self._matrix_ops, self._matrix_device = MatrixOps(device), device
        return self._matrix_ops

    def is_ane_available(self) -> Any:
        """Whether WebNN makes a context on an NPU; an awaitable if an event loop is running."""
        return DeviceCompatibilityChecker.is_ane_available()

    def ane_integration(self) -> Any:
        """Return the NPU that WebNN reaches, an ANEIntegration, or None if there is none.

        An awaitable if an event loop is running.
        """
        return start(npu_integration())

    def execute_with_recovery(self, name: str, operation: Callable[..., Any]) -> Any:
        """Run `operation`, again as the strategy allows; return its result.

        An operation with a parameter receives its Attempt; one without is only repeated unchanged:
        no other tier is tried for it. Either may be async. Returns an awaitable if an event loop is
        running, and runs to completion otherwise. The last error is raised unchanged, with the
        earlier ones in its notes.
        """
        return start(_Run(self, name, operation).go())

    async def free_memory(self) -> int:
        """Call everything passed to `on_memory_pressure`; return the bytes that they report."""
        total = 0
        for free in self._frees:
            freed = free()
            nbytes = await freed if isawaitable(freed) else freed
            total += nbytes if isinstance(nbytes, int) else 0
        self.error_recovery.note_freed(total)
        return total

    async def wait_under_pressure(self) -> None:
        """Wait as `watch_pressure` says."""
        until, paused = monotonic() + _LONGEST_PAUSE_S, False
        while self._pressure is not None and self._pressure.state == "critical":
            paused = True
            if monotonic() >= until:
                break
            await asyncio.sleep(_PAUSE_S)
        if paused:
            self.error_recovery.note_pause()

    def validate_operation_requirements(self, required: CapabilityRequirements) -> Any:
        """CapabilityMismatchError, describing everything that is missing, if anything is.

        Returns the probed capabilities; an awaitable if an event loop is running.
        """
        return start(validate_operation_requirements(required))

    def system_info(self) -> Any:
        """Return this machine's probed Capabilities; an awaitable if an event loop is running."""
        return start(capabilities())


class _Run:
    """One operation until it succeeds or nothing is left to try."""

    def __init__(self, manager: RecoveryManager, name: str, operation: Callable[..., Any]) -> None:
        self._manager = manager
        self._recovery = manager.error_recovery
        self._name = name
        self._movable = takes_an_argument(operation)
        self._call: Callable[[Attempt], Any] = operation if self._movable else lambda _: operation()
        self._errors: list[str] = []

    async def go(self) -> Any:
        attempt, retries = Attempt(), 0
        while True:
            await self._manager.wait_under_pressure()
            started = monotonic()
            try:
                value = self._call(attempt)
                result = await value if isawaitable(value) else value
            except Exception as error:
                action = self._recovery.handle_error(
                    error, attempt, retries=retries, movable=self._movable
                )
                if action is RecoveryAction.GIVE_UP:
                    if self._errors:
                        error.add_note(f"{self._name}: before that, {'; '.join(self._errors)}")
                    raise
                following = await self._following(action, attempt, retries)
                retries = retries + 1 if following.tier == attempt.tier else 0
                self._errors.append(f"attempt {attempt.number}: {type(error).__name__}: {error}")
                attempt = following
                continue
            self._recovery.note_success(attempt, monotonic() - started)
            return result

    async def _following(self, action: RecoveryAction, attempt: Attempt, retries: int) -> Attempt:
        """Return the next attempt, after the steps that precede it."""
        tier, scale = attempt.tier, attempt.memory_scale
        match action:
            case RecoveryAction.RETRY:
                delay_s = self._recovery.strategy.delay_s * 2**retries
                await asyncio.sleep(min(delay_s, _LONGEST_WAIT_S))
            case RecoveryAction.COOL_DOWN:
                delay_s = _COOLER * self._recovery.strategy.delay_s * 2**retries
                await asyncio.sleep(min(delay_s, _LONGEST_WAIT_S))
                scale /= 2
            case RecoveryAction.LESS_MEMORY:
                await self._manager.free_memory()
                scale /= 2
            case RecoveryAction.SIMPLER_GPU:
                tier = "webgpu-limited"
            case _:
                tier = "cpu"
        return Attempt(attempt.number + 1, tier, scale)
