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
    import wgpudawn

    adapter = await wgpudawn.gpu.request_adapter_async()
    device = await adapter.request_device_async(
        required_features=["subgroups"] if "subgroups" in adapter.features else [],
        required_limits={_dashed(n): adapter.limits[_dashed(n)] for n in WANTED_LIMITS},
    )
    features = [f for f in ("subgroups",) if f in adapter.features]
    info = _describe(adapter.info, device.limits, features)
    gpu = NativeGpu(device, replace(info, subgroups_enable=True))
    yield gpu
    gpu.destroy()
