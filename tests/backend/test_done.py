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
    pipeline = await gpu.pipeline(BUSY, {}, "w", "busy.wgsl")

    def recorded(dispatches: int) -> int:
        tape = TapeBuilder()
        for _ in range(dispatches):
            tape.dispatch(pipeline, [(0, buffer, 0, 4 * 4096)], (64, 1, 1))
        return gpu.record(tape.words())

    async def waited_s(tape: int | None, wait: Callable[[], Awaitable[None]]) -> float:
        """After the submission, which some drivers take long for."""
        if tape is not None:
            gpu.replay(tape)
        began = perf_counter()
        await wait()
        return perf_counter() - began

    def read() -> Awaitable[None]:
        return gpu.read(buffer, 0, bytearray(4))

    dispatches = 1
    while await waited_s(recorded(dispatches), read) < LONG_S:
        dispatches *= 2
    tape = recorded(dispatches)
    by_read = min([await waited_s(tape, read) for _ in range(2)])
    done = WebGpuBackend(gpu).done
    by_done = max([await waited_s(tape, done) for _ in range(2)])
    assert by_done > by_read / 2
    # Nothing is running any more.
    assert await waited_s(None, read) < by_read / 2


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
