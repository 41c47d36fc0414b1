"""What the tests of a file share, and what they do not."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from bascule.errors import GpuError, ShaderError
from tests.shared_devices import SharedDevices

DOUBLE = """
override FACTOR: f32 = 2;
@group(0) @binding(0) var<storage, read_write> x: array<f32>;
@compute @workgroup_size(4) fn main(@builtin(local_invocation_id) id: vec3u) {
  x[id.x] = FACTOR * x[id.x];
}
"""


@pytest.fixture
def devices() -> Iterator[SharedDevices]:
    opened = SharedDevices()
    yield opened
    opened.close()


async def test_pipelines_are_shared_by_all_that_makes_them(devices: SharedDevices) -> None:
    async def made(wgsl: str = DOUBLE, factor: float = 2) -> object:
        async with devices.gpu() as gpu:
            handle = await gpu.pipeline(wgsl, {"FACTOR": factor}, "w", "double.wgsl")
            return gpu._pipelines.get(handle)[0]

    first = await made()
    assert await made() is first
    assert await made(factor=3) is not first
    assert await made(DOUBLE + "\n") is not first
    for _ in range(2):
        with pytest.raises(ShaderError):
            await made(DOUBLE.replace("id.x]", "id.z.z]"))


async def test_buffers_are_not_shared(devices: SharedDevices) -> None:
    async with devices.gpu() as gpu:
        buffer = gpu.alloc(16)
        gpu.write(buffer, 0, np.ones(4, np.float32))
        assert gpu.allocated_nbytes == 16
    async with devices.gpu() as gpu:
        assert gpu.allocated_nbytes == 0
        with pytest.raises(GpuError):
            await gpu.read(buffer, 0, np.empty(4, np.float32))


async def test_another_device_follows_one_that_was_closed(devices: SharedDevices) -> None:
    async with devices.gpu() as gpu:
        closed = gpu._device
        gpu.destroy()
    async with devices.gpu() as gpu, devices.gpu(limited=True) as limited:
        assert gpu._device is not closed
        assert limited._device is not gpu._device
        assert limited.adapter.limited
        found = np.empty(4, np.float32)
        buffer = gpu.alloc(16)
        gpu.write(buffer, 0, np.ones(4, np.float32))
        await gpu.read(buffer, 0, found)
        assert (found == 1).all()
