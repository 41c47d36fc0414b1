"""A second compiler for the tests of shaders."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from bascule.backend.webgpu.gpu_native import (
    NativeGpu,
    _default_limits,
    _describe,
    _own_limits,
)
from tests.shared_devices import SharedDevices

# Dawn refuses Debian 12's lavapipe (Mesa 22.3 lacks a feature that it wants); Chromium brings an
# adapter that Dawn takes.
SWIFTSHADER = Path("/usr/lib/chromium/vk_swiftshader_icd.json")


@pytest.fixture
async def gpu(
    request: pytest.FixtureRequest, shared_devices: SharedDevices
) -> AsyncIterator[NativeGpu]:
    """A real device; for a "kind" that says so one held to the least that every device grants."""
    callspec = getattr(request.node, "callspec", None)
    kind = callspec.params.get("kind", "") if callspec else ""
    async with shared_devices.gpu(limited=kind.endswith("-limited")) as device:
        assert device.adapter.limited == kind.endswith("-limited")
        yield device


@pytest.fixture
async def tint(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[NativeGpu]:
    """The same driver on Dawn and SwiftShader: compiler and adapter are Chromium's."""
    assert SWIFTSHADER.is_file(), "Debian's chromium, which brings SwiftShader, is not installed"
    monkeypatch.setenv("VK_DRIVER_FILES", str(SWIFTSHADER))
    monkeypatch.setenv("VK_ICD_FILENAMES", str(SWIFTSHADER))  # older Vulkan loaders
    gpu = await _open_dawn()
    yield gpu
    gpu.destroy()


@pytest.fixture
async def tint_limited(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[NativeGpu]:
    """Tint and Dawn's own checks, on a device held to the least that every one grants."""
    monkeypatch.setenv("WGPU_BACKEND_TYPE", "Null")
    gpu = await _open_dawn(limited=True)
    yield gpu
    gpu.destroy()


@pytest.fixture
async def tint_f16(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[NativeGpu]:
    """Tint with every feature, on Dawn's adapter that runs nothing: SwiftShader has no halves."""
    monkeypatch.setenv("WGPU_BACKEND_TYPE", "Null")
    gpu = await _open_dawn()
    yield gpu
    gpu.destroy()


@pytest.fixture
async def tint_alone(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[NativeGpu]:
    """Tint with SwiftShader's features, without the 0.3 s that SwiftShader takes for a pipeline."""
    monkeypatch.setenv("WGPU_BACKEND_TYPE", "Null")
    gpu = await _open_dawn(wanted=("subgroups",))
    yield gpu
    gpu.destroy()


async def _open_dawn(
    *, limited: bool = False, wanted: tuple[str, ...] = ("subgroups", "shader-f16")
) -> NativeGpu:
    import wgpudawn

    adapter = await wgpudawn.gpu.request_adapter_async()
    wanted = () if limited else wanted
    features = [f for f in wanted if f in adapter.features]
    limits = _default_limits(adapter) if limited else _own_limits(adapter)
    device = await adapter.request_device_async(required_features=features, required_limits=limits)
    info = _describe(adapter.info, device.limits, features, limited=limited)
    return NativeGpu(device, replace(info, subgroups_enable=True))
