"""What a device refuses is told with the shader it was for, and the next run is right."""

from __future__ import annotations

import numpy as np
import pytest

from bascule.backend.webgpu.gpu_native import NativeGpu
from bascule.backend.webgpu.tape import TapeBuilder
from bascule.errors import GpuError, GpuOutOfMemoryError
from tests.scarce import MIB, memory_left

ADD_ONE = """
@group(0) @binding(0) var<storage, read_write> x: array<f32>;
@compute @workgroup_size(1) fn main() { x[0] = x[0] + 1.0; }
"""


class Adding:
    """One float on the device, and a tape that adds 1 to it."""

    def __init__(self, gpu: NativeGpu, pipeline: int) -> None:
        self._gpu = gpu
        self._pipeline = pipeline
        self.buffer = gpu.alloc(4)
        self.tape = self.record(1)

    @classmethod
    async def on(cls, gpu: NativeGpu) -> Adding:
        return cls(gpu, await gpu.pipeline(ADD_ONE, {}, "w", "add_one.wgsl"))

    def record(self, workgroups: int) -> int:
        tape = TapeBuilder()
        tape.dispatch(self._pipeline, [(0, self.buffer, 0, 4)], (1, 1, 1))
        tape.dispatch(self._pipeline, [(0, self.buffer, 0, 4)], (workgroups, 1, 1))
        return self._gpu.record(tape.words())

    async def run(self) -> float:
        self._gpu.replay(self.tape)
        result = np.full(1, np.nan, np.float32)
        await self._gpu.read(self.buffer, 0, result.data)
        return float(result[0])


async def test_a_refused_dispatch_is_told_with_its_shader(gpu: NativeGpu) -> None:
    adding = await Adding.on(gpu)
    assert await adding.run() == 2
    wrong = adding.record(70_000)
    with pytest.raises(GpuError, match="70000") as met:
        gpu.replay(wrong)
    assert met.value.label == "add_one.wgsl"
    assert "add_one.wgsl" in str(met.value)
    assert await adding.run() == 4  # nothing of the refused tape ran


async def test_a_freed_buffer_in_a_tape_is_no_crash(gpu: NativeGpu) -> None:
    adding = await Adding.on(gpu)
    other = Adding(gpu, adding._pipeline)
    assert await other.run() == 2
    gpu.free(other.buffer)
    taken_again = gpu.alloc(4)  # the same index with another generation
    with pytest.raises(GpuError, match="freed") as met:
        gpu.replay(other.tape)
    assert met.value.label == "add_one.wgsl"
    assert await adding.run() == 2
    gpu.free(taken_again)


async def test_memory_that_ends_is_an_error_of_its_own(gpu: NativeGpu) -> None:
    adding = await Adding.on(gpu)
    held = gpu.allocated_nbytes
    taken = [gpu.alloc(64 * MIB)]
    with memory_left(80 * MIB):
        taken.append(gpu.alloc(64 * MIB))
        # Much more than is left: a thread that ends meanwhile may give its 64 MiB back.
        with pytest.raises(GpuOutOfMemoryError) as met:
            gpu.alloc(512 * MIB)
    assert (met.value.asked, met.value.nbytes) == ("alloc", 512 * MIB)
    assert f"{512 * MIB:,} bytes" in str(met.value)
    assert met.value.hint
    for buffer in taken:
        gpu.free(buffer)
    assert gpu.allocated_nbytes == held
    await gpu.granted([adding.buffer])
    assert await adding.run() == 2


async def test_memory_that_ends_in_a_read(gpu: NativeGpu) -> None:
    adding = await Adding.on(gpu)
    large = gpu.alloc(128 * MIB)
    into = bytearray(128 * MIB)
    held = gpu.allocated_nbytes
    with memory_left(64 * MIB), pytest.raises(GpuOutOfMemoryError):
        await gpu.read(large, 0, into)
    assert gpu.allocated_nbytes == held
    await gpu.read(large, 0, into)
    assert await adding.run() == 2


async def test_trim_frees_what_reads_have_kept(gpu: NativeGpu) -> None:
    adding = await Adding.on(gpu)
    held = gpu.allocated_nbytes
    assert await adding.run() == 2
    assert gpu.allocated_nbytes == held + 4
    assert gpu.trim() == 4
    assert gpu.trim() == 0
    assert gpu.allocated_nbytes == held
    assert await adding.run() == 4
