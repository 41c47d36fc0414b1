"""Kernels of a user's own: arguments by name, outputs, launches, errors; on a real device."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import bascule
from bascule.errors import (
    BasculeError,
    DeviceLostError,
    InputError,
    LimitError,
    ShaderError,
    SourceError,
    TierUnavailableError,
    WrongResultError,
)

AXPY = """\
// z = alpha * x + y
override WORKGROUP: u32 = 64u;
struct Params { n: u32, alpha: f32 }
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read> y: array<f32>;
@group(0) @binding(3) var<storage, read_write> z: array<f32>;

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(global_invocation_id) id: vec3u) {
  if (id.x >= params.n) { return; }
  z[id.x] = params.alpha * x[id.x] + y[id.x];
}
"""
DOUBLE = """\
@group(0) @binding(0) var<storage, read_write> x: array<f32>;
@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3u) {
  if (id.x < arrayLength(&x)) { x[id.x] *= 2.0; }
}
"""


def axpy(x: np.ndarray, y: np.ndarray, alpha: float) -> np.ndarray:
    return alpha * x + y


@pytest.fixture
async def device() -> AsyncIterator[bascule.Device]:
    async with await bascule.open_device("webgpu") as opened:
        yield opened


@pytest.fixture(params=["webgpu", "webgpu-limited", "wasm", "cpu"])
async def any_device(request: pytest.FixtureRequest) -> AsyncIterator[bascule.Device]:
    async with await bascule.open_device(request.param) as opened:
        yield opened


def floats(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.standard_normal(shape).astype(np.float32)


async def test_arrays_buffers_and_shapes_are_arguments_and_outputs(
    any_device: bascule.Device, rng: np.random.Generator
) -> None:
    kernel = any_device.kernel(AXPY, constants={"WORKGROUP": 32}, reference=axpy)
    for n in (1, 31, 32, 33, 1000):
        x, y, z = floats(rng, n), floats(rng, n), np.zeros(n, np.float32)
        expected = np.float32(1.5) * x + y
        assert await kernel(x, y, out=z, n=n, alpha=1.5, count=n) is z
        np.testing.assert_allclose(z, expected, rtol=1e-6, atol=1e-6)
        made = await kernel(x, y=y, out=(n, 1), n=n, alpha=1.5, groups=(-(-n // 32), 1, 1))
        assert isinstance(made, bascule.DeviceBuffer)
        np.testing.assert_array_equal(await made.numpy(), z[:, None])
        held = await any_device.buffer(x)
        again = await kernel(held, memoryview(y), out=made, n=n, alpha=-1, count=n)
        assert again is made
        np.testing.assert_allclose((await made.numpy())[:, 0], y - x, rtol=1e-6, atol=1e-6)


async def test_strided_arrays_are_read_and_filled(
    any_device: bascule.Device, rng: np.random.Generator
) -> None:
    kernel = any_device.kernel(AXPY, reference=axpy)
    whole, target = floats(rng, 40, 6), np.full((2, 40), 7, np.float32)
    x, y, z = whole[::-2, 1], whole[::2, 5], target[:, ::2]
    await kernel(x, y, out=z[0], n=20, alpha=2, count=20)
    np.testing.assert_allclose(target[0, ::2], 2 * x + y, rtol=1e-6, atol=1e-6)
    assert (target[0, 1::2] == 7).all()
    assert (target[1] == 7).all()


async def test_what_is_past_the_output_stays_as_it_was(device: bascule.Device) -> None:
    kernel = device.kernel(AXPY)
    z = np.full(100, 9, np.float32)
    ones = np.ones(100, np.float32)
    await kernel(ones, ones, out=z, n=70, alpha=1, count=70)
    assert (z[:70] == 2).all()
    assert (z[70:] == 9).all()


async def test_an_output_that_is_read_as_well(device: bascule.Device) -> None:
    x = np.arange(5, dtype=np.float32)
    await device.kernel(DOUBLE)(out=x, count=5)
    np.testing.assert_array_equal(x, [0, 2, 4, 6, 8])
    held = await device.buffer(x)
    await device.kernel(DOUBLE)(held, count=5)
    np.testing.assert_array_equal(await held.numpy(), [0, 4, 8, 12, 16])


async def test_nothing_runs_for_a_count_of_zero(any_device: bascule.Device) -> None:
    kernel = any_device.kernel(AXPY, reference=axpy)
    one, z = np.ones(1, np.float32), np.full(1, 3, np.float32)
    await kernel(one, one, out=z, n=1, alpha=1, count=0)
    await kernel(one, one, out=z, n=1, alpha=1, groups=(0, 1, 1))
    assert z[0] == 3


async def test_whole_numbers_halves_and_bytes(device: bascule.Device) -> None:
    negate = """
    @group(0) @binding(0) var<storage, read> x: array<i32>;
    @group(0) @binding(1) var<storage, read_write> y: array<i32>;
    @group(0) @binding(2) var<storage, read_write> n: atomic<u32>;
    @compute @workgroup_size(8) fn main(@builtin(global_invocation_id) id: vec3u) {
      if (id.x < arrayLength(&x)) { y[id.x] = -x[id.x]; atomicAdd(&n, 1u); }
    }"""
    x = np.array([1, -2, 2**31 - 1], np.int32)
    y, n = await device.kernel(negate)(x, out=(3, np.zeros(1, np.uint32)), count=3)
    np.testing.assert_array_equal(await y.numpy(), -x)
    assert n[0] == 3
    held = await device.buffer(x, dtype="int32")
    y, n = await device.kernel(negate)(held, out=(3, 1), count=3)
    np.testing.assert_array_equal(await y.numpy(), -x)
    raw = bytearray(12)
    await device.kernel(negate)(x.tobytes(), y=memoryview(raw), n=1, count=3)
    np.testing.assert_array_equal(np.frombuffer(raw, np.int32), -x)


async def test_odd_numbers_of_halves(device: bascule.Device) -> None:
    if "shader-f16" not in device.features:
        pytest.skip("the adapter has no shader-f16")
    source = "enable f16;\n" + DOUBLE.replace("f32", "f16").replace("2.0", "2.0h")
    x = np.array([1, 2, 3], np.float16)
    held = await device.buffer(x, dtype=np.float16)
    await device.kernel(source)(held, count=3)
    np.testing.assert_array_equal(await held.numpy(), [2, 4, 6])
    await device.kernel(source)(out=x, count=3)
    np.testing.assert_array_equal(x, [2, 4, 6])


PARTICLES = """
struct Particle { position: vec3f, mass: f32, velocity: vec2f, alive: u32 }
@group(0) @binding(0) var<storage, read_write> particles: array<Particle>;
@group(0) @binding(1) var<uniform> step: f32;
@compute @workgroup_size(4) fn main(@builtin(global_invocation_id) id: vec3u) {
  if (id.x >= arrayLength(&particles)) { return; }
  let p = &particles[id.x];
  (*p).position += vec3f((*p).velocity, f32((*p).alive)) * step;
  (*p).mass *= 2.0;
}"""


async def test_structs_are_structured_arrays(device: bascule.Device) -> None:
    kernel = device.kernel(PARTICLES)
    dtype = kernel.dtype("particles")
    assert dtype.itemsize == 32
    particles = np.zeros(5, dtype)
    particles["velocity"] = np.arange(10).reshape(5, 2)
    particles["mass"], particles["alive"] = np.arange(5), 3
    await kernel(particles, step=0.5, count=5)
    np.testing.assert_array_equal(particles["position"][4], [4, 4.5, 1.5])
    np.testing.assert_array_equal(particles["mass"], 2 * np.arange(5))
    with pytest.raises(InputError, match="numpy\\.zeros"):
        await kernel(np.zeros(5, np.float32), step=1.0, count=5)


async def test_any_entry_point_of_a_source(device: bascule.Device) -> None:
    source = """
    @group(0) @binding(0) var<storage, read_write> x: array<f32>;
    @group(0) @binding(1) var<storage, read> more: array<f32>;
    fn bump(i: u32, by: f32) { x[i] += by; }
    @compute @workgroup_size(1) fn one(@builtin(workgroup_id) id: vec3u) { bump(id.x, 1.0); }
    @compute @workgroup_size(1) fn add(@builtin(workgroup_id) id: vec3u) { bump(id.x, more[id.x]); }
    """
    x = np.zeros(3, np.float32)
    one = device.kernel(source, entry="one")
    assert one.bindings == ("x",)
    await one(x, groups=3)
    await device.kernel(source, "add")(x, x + 4, groups=3)
    np.testing.assert_array_equal(x, [6, 6, 6])
    with pytest.raises(InputError, match="one, add"):
        device.kernel(source)


async def test_huge_counts_are_folded_where_the_kernel_can_tell(device: bascule.Device) -> None:
    source = """
    @group(0) @binding(0) var<storage, read_write> seen: array<u32>;
    @compute @workgroup_size(1) fn main(@builtin(global_invocation_id) id: vec3u,
                                        @builtin(num_workgroups) n: vec3u) {
      let i = id.x + n.x * (id.y + n.y * id.z);
      if (i < arrayLength(&seen)) { seen[i] += 1u; }
    }"""
    n = 65535 * 2 + 77
    seen = await device.kernel(source)(out=n, count=n)
    assert (await seen.numpy() == 1).all()
    plain = source.replace("@builtin(num_workgroups) n: vec3u", "").replace(
        "n.x * (id.y + n.y * id.z)", "0u"
    )
    with pytest.raises(LimitError, match=r"131,147 workgroups.*num_workgroups"):
        await device.kernel(plain)(out=n, count=n)
    with pytest.raises(LimitError, match="65,536 workgroups"):
        await device.kernel(source)(out=n, groups=(65536, 1, 1))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"alfa": 1.0}, "'alfa'.*Did you mean 'alpha'"),
        ({"n": None}, "a value for n"),
        ({"n": -1}, "not negative"),
        ({"n": 1.0}, "Write 1"),
        ({"alpha": "two"}, "a number, found 'two'"),
        ({"count": None}, "count= or groups=.*neither"),
        ({"groups": 1}, "count= or groups=.*both"),
        ({"count": -5}, "count"),
        ({"count": (1, 2, 3, 4)}, "up to three"),
        ({"count": 1.5}, "whole number"),
        ({"x": np.ones(4)}, "float32.*found an array of float64.*astype"),
        ({"x": np.ones(4, np.int32)}, "found an array of int32"),
        ({"x": np.ones(0, np.float32)}, "at least 4 bytes"),
        ({"x": "a text"}, "kernel.wgsl, x"),
        ({"out": None}, "an argument for z"),
        ({"out": "numpy"}, "an output"),
        ({"out": (0,)}, "a non-empty shape"),
        ({"out": np.ones(4, np.float64)}, "float64"),
        ({"w": 1}, "'w'"),
    ],
)
async def test_wrong_arguments_are_named(
    any_device: bascule.Device, change: dict[str, Any], told: str
) -> None:
    kernel = any_device.kernel(AXPY, reference=axpy)
    one = np.ones(4, np.float32)
    given = {"x": one, "y": one, "out": (4,), "n": 4, "alpha": 1.0, "count": 4, **change}
    given = {name: value for name, value in given.items() if value is not None}
    with pytest.raises(InputError, match=told):
        await kernel(**given)


async def test_aliased_outputs_are_refused(device: bascule.Device) -> None:
    kernel, one = device.kernel(AXPY), np.ones(4, np.float32)
    held = await device.buffer(one)
    scalars = {"n": 4, "alpha": 1.0, "count": 4}
    with pytest.raises(InputError, match="memory of x"):
        await kernel(held, one, out=held.reshape(2, 2), **scalars)
    made = await kernel(held, held, out=4, **scalars)  # read twice is fine
    np.testing.assert_array_equal(await made.numpy(), 2 * one)
    await kernel(one, one, out=one, **scalars)  # arrays are copied
    np.testing.assert_array_equal(one, [2, 2, 2, 2])
    frozen = np.ones(4, np.float32)
    frozen.flags.writeable = False
    with pytest.raises(InputError, match="read-only"):
        await kernel(one, one, out=frozen, **scalars)


async def test_buffers_of_others_closed_ones_and_closed_devices(device: bascule.Device) -> None:
    kernel, one = device.kernel(AXPY), np.ones(4, np.float32)
    scalars = {"n": 4, "alpha": 1.0, "count": 4}
    async with await bascule.open_device("cpu") as other:
        with pytest.raises(InputError, match="one of another"):
            await kernel(await other.buffer(one), one, out=4, **scalars)
    held = await device.buffer(one)
    held.close()
    with pytest.raises(InputError, match="closed"):
        await kernel(held, one, out=4, **scalars)
    device.close()
    with pytest.raises(InputError, match="an open device"):
        await kernel(one, one, out=4, **scalars)
    with pytest.raises(InputError, match="an open device"):
        device.kernel(AXPY)


async def test_compile_errors_have_line_and_column(device: bascule.Device, tmp_path: Path) -> None:
    broken = AXPY.replace("params.alpha *", "params.alfa *")
    one = np.ones(1, np.float32)
    with pytest.raises(ShaderError) as caught:
        await device.kernel(broken, name="axpy")(one, one, out=1, n=1, alpha=1, count=1)
    assert caught.value.line == 12
    assert caught.value.column > 0
    assert f"axpy.wgsl:12:{caught.value.column}: " in str(caught.value)
    path = tmp_path / "mine.wgsl"
    path.write_text(broken)
    with pytest.raises(ShaderError, match=r"mine\.wgsl:12:"):
        await device.kernel(path).compile()
    path.write_text(AXPY)
    await device.kernel(path).compile()
    with pytest.raises(SourceError, match="nothing\\.wgsl"):
        device.kernel(tmp_path / "nothing.wgsl")


async def test_override_constants(device: bascule.Device) -> None:
    source = """
    @id(7) override SCALE: f32;
    override SHIFT: i32 = -1;
    override FLIP: bool = false;
    @group(0) @binding(0) var<storage, read_write> x: array<f32>;
    @compute @workgroup_size(1) fn main(@builtin(workgroup_id) id: vec3u) {
      x[id.x] = select(x[id.x], -x[id.x], FLIP) * SCALE + f32(SHIFT);
    }"""
    x = np.array([1, 2], np.float32)
    await device.kernel(source, constants={"SCALE": 3, "FLIP": True})(x, groups=2)
    np.testing.assert_array_equal(x, [-4, -7])
    for constants, result in (
        ({}, "SCALE.*a value"),
        ({"SCALE": "x"}, "a number"),
        ({"SCALE": float("nan")}, "a number"),
        ({"SCALE": 1, "SHIFT": 0.5}, "whole number"),
        ({"SCALE": 1, "SHIFT": 2**31}, "32 bits"),
        ({"SCALE": 1, "SHFT": 1}, "Did you mean 'SHIFT'"),
    ):
        with pytest.raises(InputError, match=result):
            device.kernel(source, constants=constants)  # pyright: ignore[reportArgumentType]


async def test_a_reference_proves_a_kernel_at_its_first_use(device: bascule.Device) -> None:
    x = np.arange(1, 5, dtype=np.float32)
    calls: list[int] = []

    def doubled(x: np.ndarray) -> np.ndarray:
        calls.append(len(x))
        return 2 * x

    kernel = device.kernel(DOUBLE, reference=doubled)
    for _ in range(3):
        before = x.copy()
        await kernel(x, count=4)
        np.testing.assert_array_equal(x, 2 * before)
    assert calls == [4]
    wrong = device.kernel(DOUBLE, reference=lambda x: 3 * x)
    for _ in range(2):
        with pytest.raises(WrongResultError, match="x is off by"):
            await wrong(x, count=4)
    with pytest.raises(InputError, match="4 elements"):
        await device.kernel(DOUBLE, reference=lambda x: x[:2])(x, count=4)


@pytest.mark.parametrize("tier", ["wasm", "cpu"])
async def test_tiers_without_shaders_say_what_is_missing(tier: str) -> None:
    async with await bascule.open_device(tier) as device:
        with pytest.raises(TierUnavailableError, match="no reference"):
            await device.kernel(DOUBLE)(np.ones(1, np.float32), count=1)


async def test_recorded_calls_run_at_once(any_device: bascule.Device) -> None:
    add = any_device.kernel(AXPY, reference=axpy)
    x = await any_device.buffer(np.zeros(8, np.float32))
    y = await any_device.buffer(np.zeros(8, np.float32))
    ones = np.ones(8, np.float32)
    with any_device.record() as tape:
        for _ in range(50):
            await add(x, ones, out=y, n=8, alpha=1, count=8)
            await add(y, ones, out=x, n=8, alpha=1, count=8)
        with pytest.raises(InputError, match="buffers"):
            await add(x, ones, out=ones, n=8, alpha=1, count=8)
        with pytest.raises(InputError, match="still records"):
            await tape.run()
    assert len(tape) == 100
    assert (await x.numpy() == 0).all()  # recording runs nothing
    await tape.run()
    gpu = getattr(any_device.backend, "gpu", None)
    crossings = gpu.crossings if gpu else 0
    await tape.run()
    result = await x.numpy()
    assert (result == 200).all()
    if gpu:
        assert gpu.crossings - crossings <= 3
    await tape.run(times=3)
    assert (await x.numpy() == 500).all()
    tape.close()
    tape.close()
    with pytest.raises(InputError, match="closed"):
        await tape.run()


async def test_a_recording_of_another_device_is_refused(device: bascule.Device) -> None:
    async with await bascule.open_device("webgpu") as other:
        with other.record(), pytest.raises(InputError, match="recording's device"):
            await device.kernel(DOUBLE)(np.ones(1, np.float32), count=1)


async def test_a_thousand_kernels_and_ten_thousand_calls_leave_nothing(
    device: bascule.Device,
) -> None:
    gpu = device.backend.gpu  # type: ignore[attr-defined]
    x = await device.buffer(np.zeros(4, np.float32))

    async def one(index: int) -> None:
        source = DOUBLE.replace("*= 2.0", f"+= {index}.0")
        await device.kernel(source)(x, count=4)

    for index in range(20):
        await one(index)
    device.memory()
    before = gpu.n_pipelines, gpu.n_objects, device.memory().now_nbytes
    for index in range(1000):
        await one(index % 250)
    device.memory()
    assert (gpu.n_pipelines, gpu.n_objects, device.memory().now_nbytes) == before
    await x.numpy()

    kernel, one_row = device.kernel(AXPY), np.ones(4, np.float32)
    z = np.zeros(4, np.float32)
    for index in range(10_000):
        await kernel(one_row, x, out=z, n=4, alpha=float(index), count=4)
        if index == 100:
            before = gpu.n_pipelines, gpu.n_objects, device.memory().now_nbytes
    assert (gpu.n_pipelines, gpu.n_objects, device.memory().now_nbytes) == before
    assert z[0] == 9999 + (await x.numpy())[0]


async def test_a_lost_device_is_told_and_the_next_one_works(device: bascule.Device) -> None:
    kernel, one = device.kernel(AXPY), np.ones(4, np.float32)
    scalars = {"n": 4, "alpha": 1.0, "count": 4}
    held = await kernel(one, one, out=4, **scalars)
    with device.record() as tape:
        await kernel(one, one, out=held, **scalars)
    device.backend.gpu.destroy()  # type: ignore[attr-defined]
    for work in (kernel(one, one, out=4, **scalars), tape.run(), held.numpy()):
        with pytest.raises(DeviceLostError, match=r"open_device\(\)"):
            await work
    tape.close()
    kernel.close()
    async with await bascule.open_device("webgpu") as other:
        made = await other.kernel(AXPY)(one, one, out=4, **scalars)
        assert (await made.numpy() == 2).all()
    # One that is opened for kernels without a device is opened again.
    double = bascule.elementwise("x: f32 -> y: f32", "y = 2.0 * x")
    first = await double(1.0)
    pool = first._pool  # pyright: ignore[reportPrivateUsage]
    pool.backend.gpu.destroy()  # type: ignore[attr-defined]
    with pytest.raises(DeviceLostError):
        await first.numpy()
    assert (await (await double(4.0)).numpy())[0] == 8


async def test_every_error_is_basculeproof(device: bascule.Device) -> None:
    for hostile in (None, 5, object(), b"bytes"):
        with pytest.raises(BasculeError):
            device.kernel(hostile)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="reference"):
        device.kernel(DOUBLE, reference=3)  # type: ignore[arg-type]
