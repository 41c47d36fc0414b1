"""Errors that are not Bascule's: what recovery makes of Python's, wgpu's and a caller's own."""

from __future__ import annotations

from typing import Any

import pytest
import wgpu

import bascule
from bascule.compat.error_policy import ErrorKind, FallbackStrategy, kind_of

QUICK = FallbackStrategy(retry_delay=0.001)


class BrowserError(Exception):
    """As Pyodide hands on a DOMException: its name is an attribute."""

    def __init__(self, name: str, text: str = "") -> None:
        self.name = name
        super().__init__(text)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (RuntimeError("the driver said no"), ErrorKind.OPERATION_FAILED),
        (RuntimeError("parent device is lost"), ErrorKind.DEVICE_LOST),
        (RuntimeError("CUDA out of memory"), ErrorKind.MEMORY),
        (RuntimeError("GPU overheated, clocks are throttled"), ErrorKind.THERMAL),
        (RuntimeError("Request device failed (Parent adapter)"), ErrorKind.INITIALIZATION),
        (OSError("Device initialization failed"), ErrorKind.INITIALIZATION),
        (OSError("rate throttling by server"), ErrorKind.OPERATION_FAILED),
        (RuntimeError("could not create a device buffer"), ErrorKind.OPERATION_FAILED),
        (RuntimeError("could not create a GPU device: no adapter"), ErrorKind.INITIALIZATION),
        (OSError(5, "input/output error"), ErrorKind.OPERATION_FAILED),
        (FileNotFoundError("weights.bin"), ErrorKind.OTHER),
        (PermissionError("weights.bin"), ErrorKind.OTHER),
        (TimeoutError(), ErrorKind.NETWORK),
        (ConnectionResetError(), ErrorKind.NETWORK),
        (MemoryError(), ErrorKind.MEMORY),
        (NotImplementedError(), ErrorKind.OTHER),
        (RecursionError(), ErrorKind.OTHER),
        (ValueError("a bug"), ErrorKind.OTHER),
        (KeyError("a bug"), ErrorKind.OTHER),
        (wgpu.GPUOutOfMemoryError("no"), ErrorKind.MEMORY),
        (wgpu.GPUValidationError("no"), ErrorKind.CAPABILITY_MISMATCH),
        (wgpu.GPUInternalError("no"), ErrorKind.OPERATION_FAILED),
        (BrowserError("OperationError"), ErrorKind.OPERATION_FAILED),
        (BrowserError("NetworkError"), ErrorKind.NETWORK),
        (BrowserError("SyntaxError"), ErrorKind.OTHER),
    ],
)
def test_what_a_foreign_error_means(error: BaseException, kind: ErrorKind) -> None:
    assert kind_of(error) is kind


@pytest.mark.parametrize("error", [RuntimeError, OSError, TimeoutError])
def test_a_closure_without_parameters_is_retried(error: type[Exception]) -> None:
    calls = 0

    def flaky() -> str:
        nonlocal calls
        calls += 1
        if calls < 3:
            raise error("planted")
        return "done"

    manager = bascule.RecoveryManager(QUICK)
    assert manager.execute_with_recovery("flaky", flaky) == "done"
    stats = manager.error_recovery.get_recovery_stats()
    assert (calls, stats.recovered, stats.gave_up) == (3, 1, 0)


def test_what_always_fails_is_raised_as_it_is_and_a_bug_at_once() -> None:
    calls: list[Any] = []

    def always(attempt: Any) -> None:
        calls.append(attempt.tier)
        raise OSError(5, "planted")

    manager = bascule.RecoveryManager(QUICK)
    with pytest.raises(OSError, match="planted"):
        manager.execute_with_recovery("always", always)
    assert list(dict.fromkeys(calls)) == [None, "webgpu-limited", "cpu"]

    def bug() -> None:
        calls.append("bug")
        raise ValueError("planted")

    with pytest.raises(ValueError, match="planted"):
        manager.execute_with_recovery("bug", bug)
    assert calls.count("bug") == 1


def test_a_caller_s_classifier_comes_first() -> None:
    calls = 0

    class Busy(Exception):
        pass

    def classify(error: BaseException) -> ErrorKind | None:
        return ErrorKind.OPERATION_FAILED if isinstance(error, Busy) else None

    def work(*_: Any) -> int:
        nonlocal calls
        calls += 1
        if calls % 2:
            raise Busy
        return calls

    with pytest.raises(Busy):
        bascule.RecoveryManager(QUICK).execute_with_recovery("work", work)
    calls = 0
    manager = bascule.RecoveryManager(QUICK, classify=classify)
    assert manager.execute_with_recovery("work", work) == 2
    with bascule.FallbackManager(config={"classify": classify}) as fallback:
        assert fallback.run_with_fallback(lambda _: work(), {}) == 4
        assert fallback.get_performance_metrics()["fallback_activations"] == 1


@pytest.mark.parametrize("error", [RuntimeError, OSError, TimeoutError, wgpu.GPUInternalError])
def test_a_function_of_fallback_manager_recovers(error: type[Exception]) -> None:
    tiers: list[str | None] = []

    def work(inputs: dict[str, Any], context: dict[str, Any]) -> int:
        tiers.append(context.get("tier"))
        if tiers[-1] is None:
            raise error("planted")
        return inputs["x"]

    with bascule.FallbackManager({"name": "safari", "version": "17.0"}) as manager:
        assert manager.run_with_fallback(work, {"x": 1}) == 1
        metrics = manager.get_performance_metrics()
    assert tiers == [None, None, "webgpu-limited"]
    assert (metrics["fallback_activations"], metrics["wasm_fallbacks"]) == (1, 0)
