"""Operations that fail are tried again as the strategy allows, and everything is counted."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

import bascule
from bascule import (
    Attempt,
    CapabilityMismatchError,
    CapabilityRequirements,
    ErrorKind,
    ErrorRecovery,
    FallbackStrategy,
    RecoveryAction,
    RecoveryManager,
)
from bascule.compat import recovery
from bascule.compat.error_policy import kind_of
from bascule.errors import (
    ContextLengthError,
    DeviceLostError,
    GpuError,
    GpuOutOfMemoryError,
    HashMismatchError,
    HostMemoryError,
    InputError,
    ModelFileError,
    ModelNotFoundError,
    NotFiniteError,
    ShaderError,
    SourceError,
    TierUnavailableError,
    UnsupportedModelError,
)
from bascule.machine.pressure import PressureState

BUSY = GpuError("replay", "the device is busy")
NO_MEMORY = GpuOutOfMemoryError("alloc", 1 << 30)


def manager(**options: Any) -> RecoveryManager:
    return RecoveryManager(FallbackStrategy(**{"retry_delay": 0.001, **options}))


class Failing:
    """Raises these errors, one a call, then gives its attempts."""

    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)
        self.attempts: list[Attempt] = []

    async def __call__(self, attempt: Attempt) -> list[Attempt]:
        self.attempts.append(attempt)
        if self.errors:
            raise self.errors.pop(0)
        return self.attempts

    async def alone(self) -> list[Attempt]:
        """The same, and not to be told where it runs."""
        return await self(Attempt())


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (TierUnavailableError("webgpu", "no adapter"), ErrorKind.PLATFORM_UNAVAILABLE),
        (TierUnavailableError("webgpu", "requestDevice failed: x"), ErrorKind.INITIALIZATION),
        (DeviceLostError("reset"), ErrorKind.DEVICE_LOST),
        (CapabilityMismatchError("GPU", []), ErrorKind.CAPABILITY_MISMATCH),
        (ShaderError("matmul", [(3, "no f16")]), ErrorKind.CAPABILITY_MISMATCH),
        (BUSY, ErrorKind.OPERATION_FAILED),
        (NO_MEMORY, ErrorKind.MEMORY),
        (MemoryError(), ErrorKind.MEMORY),
        (HostMemoryError("weights", 1 << 30), ErrorKind.MEMORY),
        (GpuError("alloc", "out of memory, says a device in prose"), ErrorKind.OPERATION_FAILED),
        (NotFiniteError("tiny", "text 3", "webgpu"), ErrorKind.NOT_FINITE),
        (SourceError("x", "the connection broke"), ErrorKind.NETWORK),
        (ModelFileError("x", "is cut short"), ErrorKind.MODEL),
        (HashMismatchError("x", "has other bytes"), ErrorKind.MODEL),
        (ModelNotFoundError("x", "no such folder"), ErrorKind.MODEL),
        (UnsupportedModelError("x", "is a diffusion model"), ErrorKind.MODEL),
        (InputError("x", "a", "b"), ErrorKind.INPUT),
        (ContextLengthError(9, 8), ErrorKind.INPUT),
        (ZeroDivisionError(), ErrorKind.OTHER),
    ],
)
def test_kinds_of_errors(error: Exception, kind: ErrorKind) -> None:
    assert kind_of(error) is kind


async def test_what_passes_is_tried_again_where_it_ran() -> None:
    operation = Failing(BUSY, DeviceLostError("reset"))
    result = await manager().execute_with_recovery("product", operation)
    assert result == [Attempt(1), Attempt(2), Attempt(3)]


async def test_waits_double(monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []

    async def note(seconds: float) -> None:
        waits.append(seconds)

    monkeypatch.setattr("bascule.compat.recovery.asyncio.sleep", note)
    recovering = manager(retry_delay=timedelta(milliseconds=200), max_retry_attempts=4)
    await recovering.execute_with_recovery("product", Failing(*[BUSY] * 4))
    assert waits == [0.2, 0.4, 0.8, 1.6]


async def test_less_memory_after_freeing_some() -> None:
    freed: list[str] = []
    recovering = manager()

    async def free_cache() -> None:
        freed.append("cache")

    recovering.on_memory_pressure(free_cache)
    recovering.on_memory_pressure(lambda: freed.append("idle model"))
    result = await recovering.execute_with_recovery("embed", Failing(NO_MEMORY, MemoryError()))
    assert [attempt.memory_scale for attempt in result] == [1.0, 0.5, 0.25]
    assert freed == ["cache", "idle model"] * 2


async def test_tiers_are_the_last_steps() -> None:
    recovering = manager(max_retry_attempts=1)
    result = await recovering.execute_with_recovery("product", Failing(*[BUSY] * 4))
    assert [attempt.tier for attempt in result] == [None, None, *["webgpu-limited"] * 2, "cpu"]
    assert recovering.error_recovery.get_recovery_stats().fallback_s["cpu"] >= 0


@pytest.mark.parametrize(
    ("options", "tiers"),
    [
        ({}, [None, "webgpu-limited", "cpu"]),
        ({"enable_metal_fallback": False}, [None, "cpu"]),
        ({"enable_cpu_fallback": False}, [None, "webgpu-limited"]),
        ({"enable_cpu_fallback": False, "enable_metal_fallback": False}, [None]),
    ],
)
async def test_switches_take_steps_away(options: dict[str, bool], tiers: list[str | None]) -> None:
    operation = Failing(*[TierUnavailableError("webgpu", "no adapter")] * 9)
    with pytest.raises(TierUnavailableError, match="no adapter"):
        await manager(**options).execute_with_recovery("product", operation)
    assert [attempt.tier for attempt in operation.attempts] == tiers


async def test_an_operation_without_a_parameter_stays_where_it_is() -> None:
    operation = Failing(*[BUSY] * 9)
    recovering = manager()
    with pytest.raises(GpuError, match="busy"):
        await recovering.execute_with_recovery("product", operation.alone)
    assert len(operation.attempts) == 4
    assert recovering.error_recovery.get_recovery_stats().gave_up == 1


@pytest.mark.parametrize("error", [InputError("x", "a", "b"), ZeroDivisionError("bug")])
async def test_what_cannot_pass_is_not_tried_again(error: Exception) -> None:
    operation = Failing(error)
    with pytest.raises(type(error)):
        await manager().execute_with_recovery("product", operation)
    assert len(operation.attempts) == 1


async def test_the_last_error_tells_of_those_before() -> None:
    operation = Failing(BUSY, ModelFileError("x", "is cut short"))
    with pytest.raises(ModelFileError) as result:
        await manager().execute_with_recovery("product", operation)
    assert result.value.__notes__ == [
        "product: before that, attempt 1: GpuError: GPU replay failed: the device is busy"
    ]


def test_plain_code_gets_the_result_itself() -> None:
    calls: list[int] = []

    def operation() -> int:
        calls.append(1)
        if len(calls) == 1:
            raise BUSY
        return 7

    assert manager().execute_with_recovery("product", operation) == 7


async def test_everything_is_counted() -> None:
    recovering = manager()
    await recovering.execute_with_recovery("good", Failing())
    await recovering.execute_with_recovery("bad", Failing(BUSY, NO_MEMORY))
    with pytest.raises(InputError):
        await recovering.execute_with_recovery("worse", Failing(InputError("x", "a", "b")))
    stats = recovering.error_recovery.get_recovery_stats()
    assert (stats.total_errors, stats.recent_errors) == (3, 3)
    assert (stats.recovered, stats.gave_up) == (1, 1)
    assert stats.errors_by_kind == {"operation-failed": 1, "memory": 1, "input": 1}
    assert stats.actions == {"retry": 1, "less-memory": 1, "give-up": 1}


def test_a_decision_can_be_asked_for_alone() -> None:
    recovery = ErrorRecovery()
    assert recovery.handle_error(BUSY) is RecoveryAction.RETRY
    assert recovery.handle_error(BUSY, retries=3) is RecoveryAction.SIMPLER_GPU
    assert recovery.handle_error(BUSY, Attempt(9, "cpu"), retries=3) is RecoveryAction.GIVE_UP


@pytest.mark.parametrize(
    "options",
    [
        {"max_retry_attempts": -1},
        {"max_retry_attempts": 1.5},
        {"max_retry_attempts": True},
        {"retry_delay": -0.1},
        {"retry_delay": float("nan")},
        {"retry_delay": timedelta(seconds=-1)},
    ],
)
def test_strategies_that_make_no_sense(options: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        FallbackStrategy(**options)


async def test_requirements_are_held_against_this_machine() -> None:
    recovering = manager()
    await recovering.validate_operation_requirements(
        CapabilityRequirements(matrix_multiplication=True)
    )
    with pytest.raises(CapabilityMismatchError, match="minimum_memory_mb"):
        await recovering.validate_operation_requirements(
            CapabilityRequirements(minimum_memory_mb=1 << 40)
        )
    assert (await recovering.system_info()).host == "native"


async def test_a_real_tier_is_left_for_the_cpu() -> None:
    """The device dies for good in the first attempts; the product is right all the same."""
    expected = await _embedding(None)

    async def embed(attempt: Attempt) -> Any:
        if attempt.tier != "cpu":
            raise DeviceLostError("planted")
        return await _embedding(attempt.tier)

    result = await manager(max_retry_attempts=1).execute_with_recovery("embed", embed)
    assert abs(result - expected).max() < 1e-5


async def _embedding(tier: str | None) -> Any:
    from tests.goldens import TINY_BERT

    async with await bascule.load(TINY_BERT, tier=tier or "webgpu") as model:
        return await model.embed("w4 w5")


class Planned:
    """A machine's pressure, as planned: one state for each time that it is asked."""

    def __init__(self, *states: PressureState) -> None:
        self.states = list(states)

    @property
    def state(self) -> PressureState:
        return self.states.pop(0) if len(self.states) > 1 else self.states[0]

    def close(self) -> None: ...


async def test_under_critical_pressure_an_attempt_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recovery, "_PAUSE_S", 0.001)
    manager, pressure = RecoveryManager(), Planned("serious", "critical", "critical", "nominal")
    manager.watch_pressure(pressure)
    for pauses in (0, 1, 1):
        assert await manager.execute_with_recovery("step", lambda: 3) == 3
        assert manager.error_recovery.get_recovery_stats().pressure_pauses == pauses
    assert pressure.states == ["nominal"]


async def test_pressure_that_never_falls_stops_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recovery, "_LONGEST_PAUSE_S", 0.01)
    manager = RecoveryManager()
    manager.watch_pressure(Planned("critical"))
    assert await manager.execute_with_recovery("step", lambda: 3) == 3
    assert manager.error_recovery.get_recovery_stats().pressure_pauses == 1
    manager.watch_pressure(None)
    assert await manager.execute_with_recovery("step", lambda: 3) == 3
    assert manager.error_recovery.get_recovery_stats().pressure_pauses == 1
