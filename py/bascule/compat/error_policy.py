"""The kinds of errors, the action that recovers from each, and counts of both."""

from __future__ import annotations

import re
from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum
from math import isfinite
from time import monotonic
from types import MappingProxyType
from typing import Any

from bascule.backend.base import Tier
from bascule.errors import (
    BasculeError,
    CapabilityMismatchError,
    ContextLengthError,
    DeviceLostError,
    GpuError,
    GpuOutOfMemoryError,
    InputError,
    LimitError,
    ModelFileError,
    ModelNotFoundError,
    NotFiniteError,
    ShaderError,
    SourceError,
    TierUnavailableError,
    UnsupportedModelError,
)
from bascule.machine.capabilities import Capabilities
from bascule.machine.requirements import CapabilityRequirements, validate_capabilities

# The time span of recent errors, and how many are kept.
_RECENT_S = 60.0
_KEPT = 1000
# Chunks are halved at most this often: a sixteenth of the memory helps or nothing does.
_MAX_HALVINGS = 4


class ErrorKind(StrEnum):
    """The meaning of an error for a retry."""

    PLATFORM_UNAVAILABLE = "platform-unavailable"  # no such tier, or no accelerator for it
    INITIALIZATION = "initialization"  # an adapter is there, and gives no device
    THERMAL = "thermal"  # too hot, or held back by power management
    DEVICE_LOST = "device-lost"
    CAPABILITY_MISMATCH = "capability-mismatch"
    OPERATION_FAILED = "operation-failed"  # the device refused a command
    MEMORY = "memory"
    NOT_FINITE = "not-finite"  # a device that computes wrongly, or weights that were damaged
    NETWORK = "network"
    MODEL = "model"  # the file is what is wrong
    INPUT = "input"  # the caller is
    OTHER = "other"  # a bug, most likely


class RecoveryAction(StrEnum):
    """What to do about it."""

    RETRY = "retry"  # the same again, after a wait that doubles
    COOL_DOWN = "cool-down"  # a longer wait, then half the chunk
    LESS_MEMORY = "less-memory"  # free what can be freed, and again with half the chunk
    SIMPLER_GPU = "simpler-gpu"  # WebGPU with its default limits and no optional features
    CPU = "cpu"
    GIVE_UP = "give-up"


@dataclass(frozen=True, slots=True, kw_only=True)
class FallbackStrategy:
    """Which steps recovery may take, and how often.

    `enable_metal_fallback` allows the same GPU within WebGPU's minimum limits (in the guide that
    Bascule grew out of: Metal without its performance shaders; here the tier "webgpu-limited").
    `retry_delay`, a timedelta or seconds, doubles from one retry to the next.
    """

    enable_cpu_fallback: bool = True
    enable_metal_fallback: bool = True
    max_retry_attempts: int = 3
    retry_delay: timedelta | float = 0.1
    monitor_fallback_performance: bool = True

    def __post_init__(self) -> None:
        """InputError for a negative number."""
        attempts: Any = self.max_retry_attempts
        if isinstance(attempts, bool) or not isinstance(attempts, int) or attempts < 0:
            raise InputError("max_retry_attempts", "a whole number of at least 0", repr(attempts))
        if not isfinite(self.delay_s) or self.delay_s < 0:
            raise InputError("retry_delay", "a time of at least 0", repr(self.retry_delay))

    @property
    def delay_s(self) -> float:
        """The first wait in seconds."""
        delay = self.retry_delay
        return delay.total_seconds() if isinstance(delay, timedelta) else float(delay)


@dataclass(frozen=True, slots=True)
class Attempt:
    """What an operation with a parameter receives: `tier` is where to run, None for where it ran
    first; `memory_scale` scales its usual chunk.
    """

    number: int = 1
    tier: Tier | None = None
    memory_scale: float = 1.0


@dataclass(slots=True)
class RecoveryStats:
    """Counts since the start; `recent_errors` of the last minute. Times are means in seconds."""

    total_errors: int = 0
    recent_errors: int = 0
    recovered: int = 0
    gave_up: int = 0
    freed_nbytes: int = 0  # for the sake of another try
    pressure_pauses: int = 0  # attempts that waited for the machine to cool down
    errors_by_kind: dict[str, int] = field(default_factory=dict[str, int])
    actions: dict[str, int] = field(default_factory=dict[str, int])
    fallback_s: dict[str, float] = field(default_factory=dict[str, float])


# A caller's own classification of an error; None if it has none.
Classifier = Callable[[BaseException], ErrorKind | None]


def kind_of(error: BaseException) -> ErrorKind:
    """Return the kind of an error of Bascule, Python, wgpu-py or the browser."""
    result = next((kind for type_, kind in _KINDS if isinstance(error, type_)), None)
    if isinstance(error, TierUnavailableError) and _INITIALIZING.search(error.reason):
        return ErrorKind.INITIALIZATION
    if isinstance(error, BasculeError) or result is ErrorKind.OTHER:
        return result or ErrorKind.OTHER
    return _foreign_kind(error) or result or ErrorKind.OTHER


def _foreign_kind(error: BaseException) -> ErrorKind | None:
    """By the name of a WebGPU error, in Python or JavaScript, or of a lost device."""
    names = {type_.__name__ for type_ in type(error).__mro__} | {str(getattr(error, "name", ""))}
    text = str(error).lower()
    if "device is lost" in text or "device lost" in text or "GPUDeviceLostInfo" in names:
        return ErrorKind.DEVICE_LOST
    if "not enough memory" in text or "out of memory" in text:
        return ErrorKind.MEMORY
    if _HOT.search(text):
        return ErrorKind.THERMAL
    if _INITIALIZING.search(text):
        return ErrorKind.INITIALIZATION
    return next((kind for name, kind in _NAMES.items() if name in names), None)


_HOT = re.compile(
    r"\b(thermal|overheat\w*|too hot|(gpu|cpu|device|clocks?)( (is|are))? throttl\w+)",
    re.IGNORECASE,
)
# The messages of wgpu-py and browsers for an adapter that gives no device.
_INITIALIZING = re.compile(
    r"request_?device|(creat\w*|request\w*|open\w*|initiali[sz]\w*) (a |the )?(gpu )?device\b"
    r"(?! (buffer|memory))"
    r"|device initiali[sz]ation|initiali[sz]ation failed",
    re.IGNORECASE,
)

# Of https://www.w3.org/TR/webgpu/#errors-and-debugging and https://webidl.spec.whatwg.org.
_NAMES: Mapping[str, ErrorKind] = MappingProxyType(
    {
        "GPUOutOfMemoryError": ErrorKind.MEMORY,
        "GPUValidationError": ErrorKind.CAPABILITY_MISMATCH,
        "GPUPipelineError": ErrorKind.CAPABILITY_MISMATCH,
        "GPUInternalError": ErrorKind.OPERATION_FAILED,
        "GPUError": ErrorKind.OPERATION_FAILED,
        "OperationError": ErrorKind.OPERATION_FAILED,
        "InvalidStateError": ErrorKind.OPERATION_FAILED,
        "AbortError": ErrorKind.OPERATION_FAILED,
        "NetworkError": ErrorKind.NETWORK,
        "TimeoutError": ErrorKind.NETWORK,
        "QuotaExceededError": ErrorKind.MEMORY,
        "NotSupportedError": ErrorKind.CAPABILITY_MISMATCH,
    }
)


# The first match counts: subclasses come before their bases.
_KINDS: tuple[tuple[type[BaseException], ErrorKind], ...] = (
    (MemoryError, ErrorKind.MEMORY),
    (GpuOutOfMemoryError, ErrorKind.MEMORY),
    (NotFiniteError, ErrorKind.NOT_FINITE),
    (TierUnavailableError, ErrorKind.PLATFORM_UNAVAILABLE),
    (DeviceLostError, ErrorKind.DEVICE_LOST),
    (CapabilityMismatchError, ErrorKind.CAPABILITY_MISMATCH),
    (LimitError, ErrorKind.CAPABILITY_MISMATCH),
    (ShaderError, ErrorKind.CAPABILITY_MISMATCH),  # the same text would fail again
    (GpuError, ErrorKind.OPERATION_FAILED),
    (SourceError, ErrorKind.NETWORK),
    (ModelFileError, ErrorKind.MODEL),
    (ModelNotFoundError, ErrorKind.MODEL),
    (UnsupportedModelError, ErrorKind.MODEL),
    (InputError, ErrorKind.INPUT),
    (ContextLengthError, ErrorKind.INPUT),
    (BasculeError, ErrorKind.OPERATION_FAILED),
    # Python's own. A missing file, and a bug, are not retried.
    (TimeoutError, ErrorKind.NETWORK),
    (ConnectionError, ErrorKind.NETWORK),
    (FileNotFoundError, ErrorKind.OTHER),
    (FileExistsError, ErrorKind.OTHER),
    (IsADirectoryError, ErrorKind.OTHER),
    (NotADirectoryError, ErrorKind.OTHER),
    (PermissionError, ErrorKind.OTHER),
    (OSError, ErrorKind.OPERATION_FAILED),
    (NotImplementedError, ErrorKind.OTHER),
    (RecursionError, ErrorKind.OTHER),
    (RuntimeError, ErrorKind.OPERATION_FAILED),
)
_AGAIN = {
    ErrorKind.OPERATION_FAILED,
    ErrorKind.DEVICE_LOST,
    ErrorKind.NETWORK,
    ErrorKind.INITIALIZATION,
}
_HOPELESS = {ErrorKind.MODEL, ErrorKind.INPUT, ErrorKind.OTHER}


class ErrorRecovery:
    """Decides what to do about an error, and counts errors.

    `classify` returns the kind of a caller's own error; None leaves it to `kind_of`.
    """

    def __init__(
        self, strategy: FallbackStrategy | None = None, classify: Classifier | None = None
    ) -> None:
        self.strategy = strategy or FallbackStrategy()
        self._classify = classify
        self._kinds: Counter[str] = Counter()
        self._actions: Counter[str] = Counter()
        self._times: deque[float] = deque(maxlen=_KEPT)
        self._fallback_s: dict[str, list[float]] = {}
        self._recovered = 0
        self._freed_nbytes = 0
        self._pauses = 0

    def handle_error(
        self,
        error: BaseException,
        attempt: Attempt | None = None,
        *,
        retries: int = 0,
        movable: bool = True,
    ) -> RecoveryAction:
        """Return what to do about `error`, which `attempt` raised after that many `retries` on its
        tier; `movable` says whether the work can run on another tier.
        """
        classified = self._classify(error) if self._classify is not None else None
        kind = kind_of(error) if classified is None else ErrorKind(classified)
        self._kinds[kind] += 1
        self._times.append(monotonic())
        action = self._action(kind, attempt or Attempt(), retries, movable)
        self._actions[action] += 1
        return action

    @staticmethod
    def validate_capabilities(
        available: Capabilities, required: CapabilityRequirements, device_name: str = ""
    ) -> None:
        """CapabilityMismatchError with everything that is missing, if anything is."""
        validate_capabilities(available, required, device_name)

    def note_success(self, attempt: Attempt, seconds: float) -> None:
        """Count an operation that succeeded in the end."""
        self._recovered += attempt.number > 1
        if attempt.tier is not None and self.strategy.monitor_fallback_performance:
            self._fallback_s.setdefault(attempt.tier, []).append(seconds)

    def note_freed(self, nbytes: int) -> None:
        """Count memory that was freed for another attempt."""
        self._freed_nbytes += nbytes

    def note_pause(self) -> None:
        """Count an attempt that waited because of critical pressure."""
        self._pauses += 1

    def get_recovery_stats(self) -> RecoveryStats:
        """Return the counts so far."""
        since = monotonic() - _RECENT_S
        return RecoveryStats(
            total_errors=self._kinds.total(),
            recent_errors=sum(time >= since for time in self._times),
            recovered=self._recovered,
            gave_up=self._actions[RecoveryAction.GIVE_UP],
            errors_by_kind=dict(self._kinds),
            actions=dict(self._actions),
            freed_nbytes=self._freed_nbytes,
            pressure_pauses=self._pauses,
            fallback_s={tier: sum(s) / len(s) for tier, s in self._fallback_s.items()},
        )

    def _action(
        self, kind: ErrorKind, attempt: Attempt, retries: int, movable: bool
    ) -> RecoveryAction:
        if kind in _HOPELESS:
            return RecoveryAction.GIVE_UP
        max_retries = self.strategy.max_retry_attempts
        if kind is ErrorKind.MEMORY and retries < min(max_retries, _MAX_HALVINGS):
            return RecoveryAction.LESS_MEMORY
        if kind is ErrorKind.THERMAL and retries < max_retries:
            return RecoveryAction.COOL_DOWN
        if kind in _AGAIN and retries < max_retries:
            return RecoveryAction.RETRY
        if not movable:
            return RecoveryAction.GIVE_UP
        if attempt.tier is None and self.strategy.enable_metal_fallback:
            return RecoveryAction.SIMPLER_GPU
        if attempt.tier != "cpu" and self.strategy.enable_cpu_fallback:
            return RecoveryAction.CPU
        return RecoveryAction.GIVE_UP
