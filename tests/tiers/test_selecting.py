"""Which backend is chosen, what running teaches, and what happens when one fails."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import replace

import pytest

from bascule import (
    BackendsFailedError,
    BackendType,
    IntelligentBackendSelector,
    WorkloadCharacteristics,
)
from bascule.choosing.decisions import Candidate
from bascule.choosing.survey import Survey, TierFacts
from bascule.compat.history import ENOUGH_RUNS, History
from bascule.errors import InputError, TierUnavailableError
from tests.tiers.machines import CPU, FAST_GPU, GPU, SOFTWARE_GPU

LARGE = WorkloadCharacteristics("matmul", 10**6, (1000, 1000))
SMALL = WorkloadCharacteristics("matmul", 100, (10, 10))


def run(selector: IntelligentBackendSelector, backend: BackendType, seconds: float) -> None:
    """A run of LARGE that took so long."""
    selector.note(backend, "matmul", LARGE, seconds)


@pytest.fixture
def selector() -> IntelligentBackendSelector:
    return IntelligentBackendSelector(known=FAST_GPU)


def test_small_work_stays_on_the_cpu_and_large_work_goes_to_the_gpu(
    selector: IntelligentBackendSelector,
) -> None:
    assert selector.select_backend(SMALL) is BackendType.CPU
    assert selector.select_backend(LARGE) is BackendType.WEBGPU
    # The crossover of this machine: 1e-3 + w * 1e-11 = w * 1e-9 at about 101^3 multiply-adds.
    sides = [10, 50, 90, 120, 400, 1000]
    chosen = [
        selector.select_backend(LARGE._replace(data_size=n * n, data_shape=(n, n))) for n in sides
    ]
    assert chosen == [BackendType.CPU] * 3 + [BackendType.WEBGPU] * 3


def test_work_that_stays_where_it_is_does_not_pay_for_the_way(
    selector: IntelligentBackendSelector,
) -> None:
    assert selector.select_backend(SMALL._replace(is_iterative=True)) is BackendType.WEBGPU


def test_a_software_gpu_loses_where_the_measurement_says_so_and_the_log_warns() -> None:
    selector = IntelligentBackendSelector(known=SOFTWARE_GPU)
    assert selector.select_backend(LARGE) is BackendType.CPU
    decision = selector.decisions[-1]
    assert "software" in decision.warning
    assert "predicted against" in decision.reason
    result = json.loads(json.dumps(decision.as_json()))
    assert [c["tier"] for c in result["considered"]] == ["webgpu", "cpu"]
    assert all(c["expected_ms"] > 0 for c in result["considered"])


def test_memory_that_does_not_fit_and_wide_numbers_lose_with_the_reason() -> None:
    narrow = replace(GPU, largest_nbytes=1 << 20)
    selector = IntelligentBackendSelector(known=Survey((narrow, CPU)))
    assert selector.select_backend(LARGE) is BackendType.CPU
    assert "3.8 MiB" in str(selector.decisions[-1])
    selector = IntelligentBackendSelector(known=FAST_GPU)
    assert selector.select_backend(LARGE._replace(dtype_size=8)) is BackendType.CPU
    assert "8 bytes" in str(selector.decisions[-1])


def test_no_tier_left_is_an_error_that_names_each_reason() -> None:
    full = Survey((replace(GPU, total_nbytes=100), TierFacts("cpu", "planted refusal")))
    with pytest.raises(TierUnavailableError, match=r"room for .*planted refusal"):
        IntelligentBackendSelector(known=full).select_backend(LARGE)


def test_a_preferred_backend_is_taken_where_it_works() -> None:
    selector = IntelligentBackendSelector(
        known=Survey((TierFacts("webnn", "no navigator.ml"), CPU))
    )
    assert selector.select_backend(LARGE, preferred_backend="pytorch") is BackendType.CPU
    assert selector.select_backend(LARGE, preferred_backend="webnn") is BackendType.CPU
    assert "no navigator.ml" in selector.decisions[-1].reason
    assert selector.select_backend(LARGE, preferred_backend=BackendType.JAX) is BackendType.CPU
    selector = IntelligentBackendSelector(known=FAST_GPU)
    assert selector.select_backend(SMALL, preferred_backend="jax") is BackendType.WEBGPU
    assert selector.select_backend(SMALL) is BackendType.CPU  # for that one time
    with pytest.raises(InputError, match="tensorflow"):
        selector.select_backend(SMALL, preferred_backend="tensorflow")


@pytest.mark.parametrize(
    "workload",
    [
        WorkloadCharacteristics("", 1),
        WorkloadCharacteristics("fft", -1),
        WorkloadCharacteristics("fft", 1, dtype_size=0),
        WorkloadCharacteristics("fft", 1, (-1,)),
        WorkloadCharacteristics("fft", "many"),  # pyright: ignore[reportArgumentType]
    ],
)
def test_what_is_no_workload_is_refused(
    selector: IntelligentBackendSelector, workload: WorkloadCharacteristics
) -> None:
    with pytest.raises(InputError, match="workload"):
        selector.select_backend(workload)


def test_a_shape_may_be_a_list(selector: IntelligentBackendSelector) -> None:
    workload = WorkloadCharacteristics("matmul", 10**6, [1000, 1000])  # pyright: ignore[reportArgumentType]
    assert selector.select_backend(workload) is BackendType.WEBGPU


def test_a_choice_is_made_once(selector: IntelligentBackendSelector) -> None:
    for _ in range(100):
        selector.select_backend(LARGE)
    assert len(selector.decisions) == 1


def test_measured_slowness_changes_the_choice_and_only_with_enough_evidence(
    selector: IntelligentBackendSelector,
) -> None:
    for _ in range(ENOUGH_RUNS - 1):
        run(selector, BackendType.WEBGPU, 2.0)  # the CPU is predicted to need 1 s
        assert selector.select_backend(LARGE) is BackendType.WEBGPU
    run(selector, BackendType.WEBGPU, 2.0)
    assert selector.select_backend(LARGE) is BackendType.CPU
    # Other work is another matter.
    other = LARGE._replace(data_size=10**7, data_shape=(1000, 10000))
    assert selector.select_backend(other) is BackendType.WEBGPU
    # The CPU turns out slower still: after as many runs, back again.
    for _ in range(ENOUGH_RUNS):
        assert selector.select_backend(LARGE) is BackendType.CPU
        run(selector, BackendType.CPU, 3.0)
    assert selector.select_backend(LARGE) is BackendType.WEBGPU
    assert "measured here" in selector.decisions[-1].reason


def test_one_slow_run_among_many_changes_nothing(selector: IntelligentBackendSelector) -> None:
    for seconds in (60.0, *[1e-3] * (2 * ENOUGH_RUNS - 1)):
        run(selector, BackendType.WEBGPU, seconds)
    assert selector.select_backend(LARGE) is BackendType.WEBGPU


def test_without_learning_runs_are_counted_and_change_nothing() -> None:
    selector = IntelligentBackendSelector(enable_learning=False, known=FAST_GPU)
    for _ in range(2 * ENOUGH_RUNS):
        run(selector, BackendType.WEBGPU, 2.0)
    assert selector.select_backend(LARGE) is BackendType.WEBGPU
    assert selector.get_performance_summary()["total_records"] == 2 * ENOUGH_RUNS


def test_a_tier_that_keeps_failing_stands_back_and_may_come_again(
    selector: IntelligentBackendSelector,
) -> None:
    for _ in range(3):
        assert selector.select_backend(LARGE) is BackendType.WEBGPU
        selector.note(BackendType.WEBGPU, "matmul", LARGE, 1e-3, failed=True)
    assert selector.select_backend(LARGE) is BackendType.CPU
    assert "3 runs of this failed" in str(selector.decisions[-1])
    run(selector, BackendType.WEBGPU, 1e-3)
    assert selector.select_backend(LARGE) is BackendType.WEBGPU


def test_failing_everywhere_leaves_a_choice(selector: IntelligentBackendSelector) -> None:
    for backend in (BackendType.WEBGPU, BackendType.CPU):
        for _ in range(3):
            selector.note(backend, "matmul", LARGE, 1e-3, failed=True)
    assert selector.select_backend(LARGE) is BackendType.WEBGPU


def test_the_summary_has_the_keys_of_the_guide(selector: IntelligentBackendSelector) -> None:
    for seconds in (0.5, 1.5):
        run(selector, BackendType.WEBGPU, seconds)
    selector.note(BackendType.CPU, "matmul", LARGE, 3.0, failed=True)
    summary = selector.get_performance_summary()
    assert summary["total_records"] == 3
    assert summary["recent_backends"] == [BackendType.JAX, BackendType.JAX, BackendType.TORCH]
    jax, torch = (BackendType.JAX, "matmul"), (BackendType.TORCH, "matmul")
    assert summary["operation_stats"] == {
        jax: {"total_time": 2.0, "count": 2, "failures": 0, "avg_time": 1.0},
        torch: {"total_time": 3.0, "count": 1, "failures": 1, "avg_time": 3.0},
    }
    assert [row["tier"] for row in summary["tiers"]] == ["webgpu", "cpu"]


def failing_on(*backends: BackendType) -> Callable[[BackendType], str]:
    def work(backend: BackendType) -> str:
        if backend in backends:
            raise ValueError(f"planted on {backend.tier}")
        return backend.tier

    return work


def test_fallbacks_are_tried_in_their_order(selector: IntelligentBackendSelector) -> None:
    asked: list[BackendType] = []

    def work(backend: BackendType) -> str:
        asked.append(backend)
        return failing_on(BackendType.WEBGPU, BackendType.WASM)(backend)

    fallbacks = [BackendType.WASM, "webgpu", "numpy"]
    result = selector.execute_with_monitoring("sum", "webgpu", work, LARGE, fallbacks)
    assert result == "cpu"
    assert asked == [BackendType.WEBGPU, BackendType.WASM, BackendType.CPU]
    assert "planted on wasm" in str(selector.decisions[-1])
    stats = selector.get_performance_summary()["operation_stats"]
    assert [stats[b, "sum"]["failures"] for b in asked] == [1, 1, 0]


def test_errors_of_every_backend_are_reported_together(
    selector: IntelligentBackendSelector,
) -> None:
    work = failing_on(BackendType.WEBGPU, BackendType.CPU)
    with pytest.raises(BackendsFailedError) as caught:
        selector.execute_with_monitoring("sum", "webgpu", work, LARGE, ["cpu"])
    assert list(caught.value.errors) == ["webgpu", "cpu"]
    assert "planted on webgpu" in str(caught.value)
    assert "planted on cpu" in str(caught.value)
    assert isinstance(caught.value.__cause__, ExceptionGroup)


def test_an_error_without_a_fallback_passes_as_it_is(selector: IntelligentBackendSelector) -> None:
    with pytest.raises(ValueError, match="planted on cpu"):
        selector.execute_with_monitoring("sum", "cpu", failing_on(BackendType.CPU))


def test_a_function_without_a_parameter_is_called_again(
    selector: IntelligentBackendSelector,
) -> None:
    calls = iter([ZeroDivisionError("planted"), 7])

    def work() -> int:
        match next(calls):
            case int(found):
                return found
            case error:
                raise error

    found = selector.execute_with_monitoring("sum", "webgpu", work, fallback_backends=["cpu"])
    assert found == 7


async def test_what_is_awaited_falls_back_as_well(selector: IntelligentBackendSelector) -> None:
    async def work(backend: BackendType) -> str:
        await asyncio.sleep(0.01)
        return failing_on(BackendType.WEBGPU)(backend)

    result = await selector.execute_with_monitoring("sum", "webgpu", work, LARGE, ["cpu"])
    assert result == "cpu"
    stats = selector.get_performance_summary()["operation_stats"]
    assert stats[BackendType.CPU, "sum"]["total_time"] >= 0.01
    with pytest.raises(BackendsFailedError):
        await selector.execute_with_monitoring(
            "sum", "webgpu", lambda _: work(BackendType.WEBGPU), LARGE, ["cpu"]
        )


async def test_cancelling_is_no_failure(selector: IntelligentBackendSelector) -> None:
    async def work(_: BackendType) -> None:
        await asyncio.sleep(60)

    task = asyncio.ensure_future(
        selector.execute_with_monitoring("sum", "webgpu", work, LARGE, ["cpu"])
    )
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert selector.get_performance_summary()["total_records"] == 0


async def test_what_was_learned_is_there_for_the_next_selector_of_this_machine_only() -> None:
    first = IntelligentBackendSelector(known=FAST_GPU)
    updated = Survey((replace(GPU, identity="planted webgpu 2.0"), CPU))

    async def chosen(machine: Survey) -> BackendType:
        await asyncio.sleep(0.05)  # it is kept soon, where a loop runs
        selector = await IntelligentBackendSelector(known=machine).ready()
        return selector.select_backend(LARGE)

    for _ in range(ENOUGH_RUNS):
        run(first, BackendType.WEBGPU, 2.0)
    assert await chosen(FAST_GPU) is BackendType.CPU
    assert await chosen(updated) is BackendType.WEBGPU  # another driver: nothing is learned yet
    first.reset_performance_history()
    assert first.select_backend(LARGE) is BackendType.WEBGPU
    assert await chosen(FAST_GPU) is BackendType.WEBGPU


@pytest.mark.parametrize(
    "kept",
    [
        {"evidence": 7},
        {"evidence": [["matmul", 20], ["matmul", "20", {}], 5]},
        {"evidence": [["matmul", 20, {"webgpu": [2.0] * 4 + ["2.0"], "quantum": [1.0] * 9}]]},
        {"evidence": [["matmul", 20, {"webgpu": [float("nan"), float("inf"), -1.0] * 9}]]},
    ],
)
def test_of_what_was_kept_only_the_sound_part_is_taken(kept: dict[str, object]) -> None:
    history = History()
    history.take(kept)
    taken = history.evidence((LARGE.operation_type, LARGE.bucket))
    assert all(evidence.typical_s is None for evidence in taken.values())
    assert set(taken) <= {"webgpu"}


async def test_where_it_cannot_wait_it_answers_cpu_and_measures_meanwhile(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def machine(*_: object, **__: object) -> Survey:
        await asyncio.sleep(0)
        return FAST_GPU

    monkeypatch.setattr("bascule.compat.selector.this_machine", machine)
    selector = IntelligentBackendSelector()
    assert selector.select_backend(LARGE) is BackendType.CPU
    assert "not measured yet" in selector.decisions[-1].reason
    await selector.ready()
    assert selector.select_backend(LARGE) is BackendType.WEBGPU


@pytest.mark.parametrize(
    ("seconds", "told"),
    [
        (3.5e-7, "0.35 us"),
        (1.92e-4, "192 us"),
        (9.996e-4, "1 ms"),
        (0.0288, "28.8 ms"),
        (3.43, "3.43 s"),
        (58_000.0, "58,000 s"),
    ],
)
def test_times_are_told_in_a_unit_that_fits(seconds: float, told: str) -> None:
    assert str(Candidate("cpu", "", seconds, "measured here")) == f"cpu {told} measured here"
