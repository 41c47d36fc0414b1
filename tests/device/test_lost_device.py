"""A Device that the system takes away opens again; what was on it alone is named."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import numpy as np
import pytest

import bascule
import bascule.array as xp
from bascule.errors import DeviceLostError

DOUBLE = """
@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read_write> y: array<f32>;
@compute @workgroup_size(4) fn main(@builtin(global_invocation_id) id: vec3u) {
  if (id.x < arrayLength(&y)) { y[id.x] = 2.0 * x[id.x]; }
}
"""
NUMBERS = np.arange(4, dtype=np.float32)


@pytest.fixture
async def device() -> AsyncIterator[bascule.Device]:
    async with await bascule.open_device("webgpu") as opened:
        yield opened


async def lose(backend: Any) -> None:
    """As a driver's reset does; the backend hears of it by its next work."""
    backend.gpu._device.destroy()
    with pytest.raises(DeviceLostError):
        backend.gpu.alloc(16)


async def test_kernels_buffers_and_operations_go_on(device: bascule.Device) -> None:
    kernel = device.kernel(DOUBLE)
    held = await kernel(NUMBERS, out=4, count=4)
    await device.ops.gelu(held)
    with device.record() as old_tape:
        await kernel(NUMBERS, out=4, count=4)
    before = device.backend
    await lose(before)
    assert "lost" in device.lost
    assert (await (await kernel(NUMBERS, out=4, count=4)).numpy()).tolist() == [0, 2, 4, 6]
    assert device.backend is not before
    assert (device.lost, device.tier) == ("", "webgpu")
    assert "opened again after its device was lost" in device.tier_reason
    for work in (held.numpy(), kernel(held, out=4, count=4), device.ops.gelu(held)):
        with pytest.raises(DeviceLostError, match=r"A buffer \(4,\) of float32 \(16 bytes\)") as e:
            await work
        assert "Make it again" in e.value.hint
    with pytest.raises(DeviceLostError):
        await old_tape.run()
    fresh = await device.buffer(NUMBERS)
    assert (await (await device.ops.scale(fresh, by=3.0)).numpy()).tolist() == [0, 3, 6, 9]
    with device.record() as tape:
        out = await kernel(fresh, out=4, count=4)
    await tape.run()
    assert (await out.numpy())[3] == 6


async def test_each_first_use_after_a_loss_opens_the_device(device: bascule.Device) -> None:
    await lose(device.backend)
    assert (await (await device.ops.scale(NUMBERS, by=3.0)).numpy()).tolist() == [0, 3, 6, 9]
    await lose(device.backend)
    with device.record() as tape:
        out = await device.kernel(DOUBLE)(NUMBERS, out=4, count=4)
    await tape.run()
    assert (await out.numpy()).tolist() == [0, 2, 4, 6]


async def test_arrays_go_on_and_what_was_computed_there_is_named(device: bascule.Device) -> None:
    x = device.asarray(NUMBERS)
    computed, lazy = xp.exp(x), x * 2 + 1
    await xp.eval(computed)
    device.backend.gpu._device.destroy()  # type: ignore[attr-defined]
    # Nothing knows of the loss yet: this run meets it, and is done once more.
    assert (await lazy.numpy()).tolist() == [1, 3, 5, 7]
    gone = r"An array \(4,\) of float32 \(16 bytes\) was lost"
    for work in (computed, computed + 1, x + computed):
        with pytest.raises(DeviceLostError, match=gone):
            await work.numpy()
    assert np.allclose(await xp.exp(x).numpy(), np.exp(NUMBERS))
    # A kernel of the same device shares the one that arrays have opened.
    await device.kernel(DOUBLE)(NUMBERS, out=4, count=4)
    assert device.arrays.backend is device.backend


async def test_arrays_of_a_tier_go_on() -> None:
    place = xp.device("webgpu")
    x = xp.asarray(NUMBERS, device=place)
    await (x + 1).numpy()
    await lose(place.backend)
    assert (await (x @ x).numpy()) == 14


async def test_losses_again_and_again_end_with_an_error(device: bascule.Device) -> None:
    kernel = device.kernel(DOUBLE)
    for _ in range(2):
        await lose(device.backend)
        await kernel(NUMBERS, out=4, count=4)
    await lose(device.backend)
    with pytest.raises(DeviceLostError, match="3 losses within 60 s") as error:
        await kernel(NUMBERS, out=4, count=4)
    assert "loop without an end" in error.value.hint


async def test_a_device_that_was_closed_stays_closed() -> None:
    device = await bascule.open_device("webgpu")
    kernel = device.kernel(DOUBLE)
    await lose(device.backend)
    device.close()
    with pytest.raises(bascule.InputError, match="one that was closed"):
        await kernel(NUMBERS, out=4, count=4)
