"""Every example of the readiness guide, in Python and with Bascule's import path.

Its manager is `RecoveryManager` here; what Rust calls as methods without arguments are attributes.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import numpy as np
import pytest

from bascule import (
    ANECapabilities,
    ANEDataType,
    CapabilityMismatchError,
    CapabilityRequirements,
    DeviceCompatibilityChecker,
    FallbackStrategy,
    PlatformInfo,
    RecoveryManager,
)
from bascule.compat import platform_info as probing
from bascule.compat.error_policy import Attempt
from bascule.compat.platform_info import info_from
from bascule.errors import BasculeError, InputError
from bascule.machine.capabilities import Capabilities
from bascule.machine.hardware import Hardware

GPU = ANECapabilities("a GPU", 2e12, frozenset({"float32", "float16", "int8"}), 256 << 20)
METAL = Hardware("mps", None, "unknown: a page cannot look for drivers")


async def test_basic_manager_creation() -> None:
    manager = RecoveryManager()
    result = await manager.system_info()
    assert result.host == "native"
    assert await manager.is_ane_available() is ("npu" in (result.webnn or ()))


async def test_recovery_of_an_operation() -> None:
    strategy = FallbackStrategy(max_retry_attempts=5, retry_delay=timedelta(milliseconds=1))
    manager = RecoveryManager(strategy)
    a = np.eye(4, dtype=np.float32)
    output = np.zeros((4, 4), np.float32)
    calls: list[int] = []

    async def operation() -> Any:
        calls.append(1)
        if len(calls) == 1:
            raise RuntimeError("Device initialization failed")
        return await manager.matrix_ops().gemm(a, 2 * a, output)

    await manager.execute_with_recovery("matrix_multiplication", operation)
    assert (output == 2 * a).all()
    stats = manager.error_recovery.get_recovery_stats()
    assert stats.errors_by_kind == {"initialization": 1}
    manager.matrix_ops().close()


async def test_a_hot_device_gets_a_longer_wait_and_smaller_chunks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    waits: list[float] = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)

    monkeypatch.setattr("bascule.compat.recovery.asyncio.sleep", sleep)
    manager = RecoveryManager(FallbackStrategy(retry_delay=0.25))
    scales: list[float] = []

    def operation(attempt: Attempt) -> str:
        scales.append(attempt.memory_scale)
        if len(scales) < 3:
            raise RuntimeError("thermal limit reached")
        return "done"

    assert await manager.execute_with_recovery("hot", operation) == "done"
    assert scales == [1.0, 0.5, 0.25]
    assert waits == [1.0, 2.0]
    stats = manager.error_recovery.get_recovery_stats()
    assert stats.actions == {"cool-down": 2}


async def test_capability_validation() -> None:
    required = CapabilityRequirements(
        neural_network_support=True,
        matrix_multiplication=True,
        convolution_support=False,
        graph_api=False,
        minimum_memory_mb=1024,
        ane_support=True,
    )
    manager = RecoveryManager()
    if await manager.is_ane_available():
        await manager.validate_operation_requirements(required)
    else:
        with pytest.raises(CapabilityMismatchError, match="ane_support"):
            await manager.validate_operation_requirements(required)


def test_ane_capability_checking(monkeypatch: pytest.MonkeyPatch) -> None:
    manager = RecoveryManager()

    async def with_npu(*, dispatch: bool = True) -> Capabilities:
        return Capabilities(host="page", webnn=frozenset({"npu"}))

    with monkeypatch.context() as patch:
        patch.setattr(probing, "capabilities", with_npu)
        ane = manager.ane_integration()
    assert ane is not None
    capabilities = ane.capabilities()
    required_data_types = [ANEDataType.Float16, ANEDataType.Int8]
    # Nothing tells an NPU's speed or types: what is unknown meets no requirement.
    assert not capabilities.meets_requirements(1_000_000_000_000, required_data_types, 128)
    mismatches = capabilities.get_requirement_mismatch(1_000_000_000_000, required_data_types, 128)
    assert len(mismatches) == 3
    assert "found unknown" in mismatches[0]


def test_requirements_of_an_accelerator() -> None:
    types = [ANEDataType.FLOAT16, "int8"]
    assert GPU.meets_requirements(1_000_000_000_000, types, 128)
    assert GPU.get_requirement_mismatch(2e12, types, 256) == []
    assert GPU.compatibility_score(2e12, types, 256) == 1.0
    assert GPU.get_requirement_mismatch(4e12, ["int16"], 512) == [
        "operations a second: required 4,000,000,000,000, found 2,000,000,000,000",
        "data type int16: required, found ['float16', 'float32', 'int8']",
        "model size in MiB: required 512, found 256",
    ]
    assert GPU.compatibility_score(4e12, ["int16", "int8"], 512) == (0.5 + 0 + 1 + 0.5) / 4
    unknown = ANECapabilities("an unknown one")
    assert unknown.meets_requirements(0, [], 0)
    assert not unknown.meets_requirements(1, [], 0)
    assert GPU.compatibility_score(2.00001e12, [], 0) < 1


@pytest.mark.parametrize(
    "wrong", [(-1, [], 0), (0, "int8", 0), (0, ["int7"], 0), (0, [], float("nan")), (True, [], 0)]
)
def test_requirements_that_make_no_sense(wrong: tuple[Any, Any, Any]) -> None:
    with pytest.raises(InputError):
        GPU.meets_requirements(*wrong)


def test_platform_information() -> None:
    info = DeviceCompatibilityChecker.get_platform_info()
    assert isinstance(info, PlatformInfo)
    assert info.mps_available is DeviceCompatibilityChecker.is_mps_available()
    assert info.ane_available is DeviceCompatibilityChecker.is_ane_available()
    assert set(info.sources) == set(info.as_json()) - {"sources"}
    for name, value in info.as_json().items():
        if name != "sources":
            assert info.sources[name].split()[0].strip(":") in (
                "measured", "reported", "derived", "unknown",
            )  # fmt: skip
            assert info.sources[name].startswith("unknown") == (value is None), name
            assert f"{name}: " in str(info)
    assert info.dispatch
    assert info.operations_per_second is not None
    assert info.operations_per_second > 1e6
    assert info.largest_tensor_nbytes is not None
    accelerator = DeviceCompatibilityChecker.get_accelerator()
    assert accelerator.meets_requirements(1e6, [ANEDataType.FLOAT32], 1)
    assert accelerator.largest_model_nbytes == info.largest_model_nbytes


async def test_a_page_that_tells_nothing() -> None:
    result = Capabilities(host="page", problems={"webgpu": "navigator.gpu is missing"})
    info = info_from(result, METAL, None, "unknown: no tier works")
    assert info.mps_available is None
    assert info.sources["mps_available"].startswith("unknown")
    assert info.sources["dispatch"] == "unknown: navigator.gpu is missing"
    assert info.sources["memory_nbytes"].startswith("unknown")
    assert "unknown" in str(info)
    metal = replace(result, backend="Metal", features=frozenset(), problems={})
    assert info_from(metal, replace(METAL, present=True), 1.0, "measured").mps_feature_enabled


async def test_a_device_that_computes_nothing_has_no_speed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("BASCULE_DISABLE_CPU", "1")

    async def refuses(tier: str) -> tuple[float, str]:
        raise BasculeError("planted.", hint="none")

    monkeypatch.setattr(probing, "measure_operations", refuses)
    info = await DeviceCompatibilityChecker.get_platform_info()
    assert info.operations_per_second is None
    assert info.sources["operations_per_second"] == "unknown: planted."
