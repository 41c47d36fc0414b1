"""Waiting for the device's work without reading any of it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from time import perf_counter

import pytest

from bascule.backend.cpu import ReferenceBackend
from bascule.backend.webgpu.backend import WebGpuBackend
from bascule.backend.webgpu.gpu_native import NativeGpu, open_native
from bascule.backend.webgpu.tape import TapeBuilder
from bascule.errors import DeviceLostError

BUSY = """
@group(0) @binding(0) var<storage, read_write> x: array<f32>;
@compute @workgroup_size(64) fn main(@builtin(global_invocation_id) id: vec3u) {
  var sum = x[id.x];
  for (var i = 0u; i < 20000u; i++) { sum = sin(sum + f32(i)); }
  x[id.x] = sum;
}
"""
LONG_S = 0.2


async def test_done_waits_for_the_work_as_a_read_does(gpu: NativeGpu) -> None:
    buffer = gpu.alloc(4 * 4096)
    tape = TapeBuilder()
    pipeline = await gpu.pipeline(BUSY, {}, "w", "busy.wgsl")
    tape.dispatch(pipeline, [(0, buffer, 0, 4 * 4096)], (64, 1, 1))
    recorded = gpu.record(tape.words())

    async def seconds(runs: int, wait: Callable[[], Awaitable[None]]) -> float:
        began = perf_counter()
        for _ in range(runs):
            gpu.replay(recorded)
        await wait()
        return perf_counter() - began

    def read() -> Awaitable[None]:
        return gpu.read(buffer, 0, bytearray(4))

    runs = 1
    while (by_read := await seconds(runs, read)) < LONG_S:
        runs *= 2
    by_read = min(by_read, await seconds(runs, read))
    backend = WebGpuBackend(gpu)
    by_done = max([await seconds(runs, backend.done) for _ in range(2)])
    assert by_done > by_read / 2
    # Nothing is running any more.
    assert await seconds(0, read) < by_read / 2


async def test_done_keeps_one_word_of_staging(gpu: NativeGpu) -> None:
    gpu.trim()
    held = gpu.allocated_nbytes
    for _ in range(3):
        await gpu.done()
    assert gpu.allocated_nbytes == held + 4
    gpu.trim()


async def test_done_of_a_lost_device_is_its_error() -> None:
    gpu = await open_native()
    gpu.destroy()
    with pytest.raises(DeviceLostError):
        await gpu.done()


async def test_a_tier_without_a_queue_has_done_its_work() -> None:
    await ReferenceBackend().done()
