"""A second compiler for the tests of shaders."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from bascule.backend.webgpu.gpu import WANTED_LIMITS
from bascule.backend.webgpu.gpu_native import NativeGpu, _dashed, _describe

# Dawn refuses Debian 12's lavapipe (Mesa 22.3 lacks a feature that it wants); Chromium brings an
# adapter that Dawn takes.
SWIFTSHADER = Path("/usr/lib/chromium/vk_swiftshader_icd.json")


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
async def tint_f16(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[NativeGpu]:
    """Tint with every feature, on Dawn's adapter that runs nothing: SwiftShader has no halves."""
    monkeypatch.setenv("WGPU_BACKEND_TYPE", "Null")
    gpu = await _open_dawn()
    yield gpu
    gpu.destroy()


async def _open_dawn() -> NativeGpu:
    import wgpudawn

    adapter = await wgpudawn.gpu.request_adapter_async()
    features = [f for f in ("subgroups", "shader-f16") if f in adapter.features]
    device = await adapter.request_device_async(
        required_features=features,
        required_limits={_dashed(n): adapter.limits[_dashed(n)] for n in WANTED_LIMITS},
    )
    info = _describe(adapter.info, device.limits, features)
    return NativeGpu(device, replace(info, subgroups_enable=True))
