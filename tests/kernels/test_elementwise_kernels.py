"""Elementwise and reduction kernels, held to numpy."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

import numpy as np
import pytest

import bascule
from bascule.errors import InputError, ShaderError, TierUnavailableError, WrongResultError


@pytest.fixture(params=["webgpu", "webgpu-limited", "wasm", "cpu"])
async def device(request: pytest.FixtureRequest) -> AsyncIterator[bascule.Device]:
    async with await bascule.open_device(request.param) as opened:
        yield opened


@pytest.fixture
async def gpu_device() -> AsyncIterator[bascule.Device]:
    async with await bascule.open_device("webgpu") as opened:
        yield opened


def floats(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize(
    "shapes",
    [
        ((), ()),
        ((1,), (5,)),
        ((300,), (300,)),
        ((3, 1, 5), (4, 1)),
        ((2, 3, 4, 5), (3, 1, 5)),
        ((2, 1, 3, 1, 2, 1, 3, 1, 2), (1, 4, 2, 5, 3, 1, 1)),
    ],
)
async def test_operands_are_broadcast(
    device: bascule.Device, rng: np.random.Generator, shapes: tuple[tuple[int, ...], ...]
) -> None:
    kernel = bascule.elementwise(
        "x: f32, y: f32 -> z: f32",
        "z = x * y + 1.0",
        reference=lambda x, y: x * y + 1,
        device=device,
    )
    x, y = (floats(rng, *shape) for shape in shapes)
    z = await kernel(x, y)
    expected = x * y + np.float32(1)
    assert z.shape == (expected.shape or (1,))
    np.testing.assert_allclose((await z.numpy()).reshape(expected.shape), expected, atol=1e-6)


async def test_views_numbers_buffers_and_outputs(
    device: bascule.Device, rng: np.random.Generator
) -> None:
    kernel = bascule.elementwise(
        "x: f32, y: f32 -> z: f32", "z = x - y", reference=lambda x, y: x - y, device=device
    )
    x = floats(rng, 6, 8)
    view, held = x[::-2, 1::3], await device.buffer(x[0])
    np.testing.assert_array_equal(await (await kernel(view, 2.0)).numpy(), view - 2)
    np.testing.assert_array_equal(await (await kernel(y=held, x=x)).numpy(), x - x[0])
    out = np.zeros((6, 16), np.float32)
    assert (await kernel(x, 1, out=out[:, ::2])) is not None
    np.testing.assert_array_equal(out[:, ::2], x - 1)
    assert (out[:, 1::2] == 0).all()
    made = await kernel(1.5, [1.0, 2.0])
    np.testing.assert_array_equal(await made.numpy(), [0.5, -0.5])


async def test_several_statements_outputs_types_and_the_index(gpu_device: bascule.Device) -> None:
    kernel = bascule.elementwise(
        "x: T, scale: f32 -> y: T, at: u32",
        "let t = f32(x) * scale; // doubled\ny = T_(t);\nat = i".replace("T_", "i32"),
        device=gpu_device,
    )
    x = np.array([[1, -2], [3, 4]], np.int32)
    y, at = await kernel(x, 2.0)
    np.testing.assert_array_equal(await y.numpy(), 2 * x)
    np.testing.assert_array_equal(await at.numpy(), [[0, 1], [2, 3]])
    with pytest.raises(InputError, match="numbers alone"):
        await kernel(1, 2.0)
    both = bascule.elementwise("x: T, y: T -> z: T", "z = x + y", device=gpu_device)
    for dtype in (np.float32, np.int32, np.uint32):
        result = await both(np.ones(3, dtype), np.ones(3, dtype))
        assert result.dtype == dtype
    with pytest.raises(InputError, match="one type for T"):
        await both(np.ones(3, np.float32), np.ones(3, np.int32))
    with pytest.raises(InputError, match="float64"):
        await both(np.ones(3), np.ones(3))


async def test_many_elements_are_folded_over_dimensions(gpu_device: bascule.Device) -> None:
    kernel = bascule.elementwise("x: u32 -> y: u32", "y = x + i", device=gpu_device)
    n = 64 * 65535 + 3
    y = await (await kernel(np.zeros(n, np.uint32))).numpy()
    assert (y == np.arange(n, dtype=np.uint32)).all()


@pytest.mark.parametrize(
    ("operation", "place", "told"),
    [
        ("z = x *", ":2:1: ", "expression"),
        ("let t = x;\nz = q;", ":2:5: ", "q"),
        ("z = x; }", ":1:8: ", "closes nothing"),
        ("z = (x", ":1:5: ", "never closed"),
        ("z = x; /* ", ":1:8: ", "does not end"),
    ],
)
async def test_errors_are_in_the_users_own_lines(
    gpu_device: bascule.Device, operation: str, place: str, told: str
) -> None:
    with pytest.raises(ShaderError, match=told) as caught:
        await bascule.elementwise("x: f32 -> z: f32", operation, name="mine", device=gpu_device)(
            1.0
        )
    assert f"mine.wgsl{place}" in str(caught.value)


@pytest.mark.parametrize(
    "signature",
    ["", "x: f32", "x -> y", "x: f64 -> y: f32", "x: f32, x: f32 -> y: f32", "i: f32 -> y: f32",
     "x: f32 ->", "x: f32 -> y: f32 -> z: f32",
     ",".join(f"x{n}: f32" for n in range(9)) + "->y: f32"],
)  # fmt: skip
def test_signatures_that_are_none(signature: str) -> None:
    with pytest.raises(InputError, match="signature"):
        bascule.elementwise(signature, "y = x")


async def test_calls_that_do_not_fit(gpu_device: bascule.Device) -> None:
    kernel = bascule.elementwise("x: f32, y: f32 -> z: f32", "z = x + y", device=gpu_device)
    one = np.ones(3, np.float32)
    calls: list[tuple[Callable[[], Any], str]] = [
        (lambda: kernel(one), "argument for y"),
        (lambda: kernel(one, one, one), "2 inputs"),
        (lambda: kernel(one, one, x=one), "'x'"),
        (lambda: kernel(one, np.ones(4, np.float32)), "broadcast"),
        (lambda: kernel(one, np.ones((0, 3), np.float32)), "non-empty arrays"),
        (lambda: kernel(one, one, out=np.ones(4, np.float32)), "shape"),
        (lambda: kernel(one, one, out=3), "shape"),
        (lambda: kernel(one.astype(np.float64), one), "float32"),
    ]
    for call, result in calls:
        with pytest.raises(InputError, match=result):
            await call()


async def test_a_device_is_that_of_the_buffers_or_opened_once(gpu_device: bascule.Device) -> None:
    kernel = bascule.elementwise("x: f32 -> y: f32", "y = 2.0 * x")
    held = await gpu_device.buffer(np.ones(3, np.float32))
    n_before = gpu_device.memory().now_nbytes
    result = await kernel(held)
    assert gpu_device.memory().now_nbytes > n_before
    first, second = await kernel(1.0), await kernel(2.0)
    total = bascule.elementwise("x: f32, y: f32 -> z: f32", "z = x + y")
    assert (await (await total(first, second)).numpy())[0] == 6  # of one device
    with pytest.raises(InputError, match="one of another"):
        await total(first, result)


async def test_a_reference_is_held_to(gpu_device: bascule.Device) -> None:
    wrong = bascule.elementwise(
        "x: f32 -> y: f32", "y = x", reference=lambda x: x + 1, device=gpu_device
    )
    with pytest.raises(WrongResultError):
        await wrong(np.ones(3, np.float32))
    total = bascule.reduce(
        "x: f32 -> y: f32", "x", "a + b", "0.0", device=gpu_device,
        reference=lambda x, axis, keepdims: x.sum(axis=axis, keepdims=keepdims) + 1,
    )  # fmt: skip
    with pytest.raises(WrongResultError):
        await total(np.ones(3, np.float32))


def root_mean(x: np.ndarray, y: np.ndarray, axis: Any, keepdims: bool) -> np.ndarray:
    return np.sqrt(np.mean((x * y).astype(np.float64), axis=axis, keepdims=keepdims))


@pytest.mark.parametrize("keepdims", [False, True])
@pytest.mark.parametrize("axis", [None, 0, 1, -1, (0, 2), (1, 2, 3)])
async def test_reductions_over_axes(
    device: bascule.Device, rng: np.random.Generator, axis: Any, keepdims: bool
) -> None:
    kernel = bascule.reduce(
        "x: f32, y: f32 -> z: f32", "x * y", "a + b", "0.0", "sqrt(a / f32(n))",
        reference=root_mean, device=device,
    )  # fmt: skip
    x, y = np.abs(floats(rng, 3, 7, 50, 4)), np.abs(floats(rng, 50, 1))
    expected = root_mean(x, y, axis, keepdims)
    result = await kernel(x[:, ::-1], y, axis=axis, keepdims=keepdims)
    again = root_mean(x[:, ::-1], y, axis, keepdims)
    assert result.shape == (expected.shape or (1,))
    # A sum of 4,200 rounded products, in any order.
    np.testing.assert_allclose((await result.numpy()).reshape(again.shape), again, rtol=1e-5)


async def test_reductions_of_many_elements_and_of_few(gpu_device: bascule.Device) -> None:
    maximum = bascule.reduce("x: i32 -> y: i32", "x", "max(a, b)", "-2147483647", device=gpu_device)
    for n in (1, 2, 63, 64, 65, 4097, 3_000_017):
        x = np.arange(n, dtype=np.int32) - n
        x[n // 2] = n
        assert (await (await maximum(x)).numpy())[0] == n
    out = np.zeros(2, np.int32)
    await maximum(np.array([[1, 5], [7, 2]], np.int32), axis=1, out=out)
    np.testing.assert_array_equal(out, [5, 7])
    for axis in (2, -3, (0, 0), 1.5):
        with pytest.raises(InputError, match="axis"):
            await maximum(np.ones((2, 2), np.int32), axis=axis)  # type: ignore[arg-type]


async def test_errors_of_reductions_name_the_part(gpu_device: bascule.Device) -> None:
    for part in range(4):
        texts = ["x", "a + b", "0.0", "a"]
        texts[part] = f"(\n q + {texts[part]})"
        name = ("map", "combine", "identity", "finish")[part]
        with pytest.raises(ShaderError, match=rf"reduce\.wgsl, {name}:2:2: "):
            await bascule.reduce("x: f32 -> y: f32", *texts, device=gpu_device)(1.0)


@pytest.mark.parametrize("tier", ["wasm", "cpu"])
async def test_without_a_reference_tiers_without_shaders_say_so(tier: str) -> None:
    async with await bascule.open_device(tier) as device:
        with pytest.raises(TierUnavailableError, match="no reference"):
            await bascule.elementwise("x: f32 -> y: f32", "y = x", device=device)(1.0)
        with pytest.raises(TierUnavailableError, match="no reference"):
            await bascule.reduce("x: f32 -> y: f32", "x", "a + b", "0.0", device=device)(1.0)


async def test_both_are_recorded(device: bascule.Device) -> None:
    add = bascule.elementwise(
        "x: f32 -> y: f32", "y = x + 1.0", reference=lambda x: x + 1, device=device
    )
    total = bascule.reduce(
        "x: f32 -> y: f32", "x", "a + b", "0.0", device=device,
        reference=lambda x, axis, keepdims: x.sum(axis=axis, keepdims=keepdims),
    )  # fmt: skip
    x = await device.buffer(np.zeros(5, np.float32))
    y = await device.buffer(np.zeros(5, np.float32))
    with device.record() as tape:
        await add(x, out=y)
        await add(y, out=x)
        result = await total(x)
    await tape.run()
    assert (await result.numpy())[0] == 10
    await tape.run(2)
    assert (await result.numpy())[0] == 30


async def test_autotune_chooses_proves_and_remembers(gpu_device: bascule.Device) -> None:
    kernel = bascule.elementwise("x: f32 -> y: f32", "y = 2.0 * x", device=gpu_device)
    x = np.ones(2000, np.float32)
    first = await kernel.autotune(x, over={"WORKGROUP": [32, 64, 1 << 20]})
    assert not first.remembered
    assert [constants["WORKGROUP"] for constants, _ in first.times_ms] == [32, 64]
    assert [constants["WORKGROUP"] for constants, _ in first.refused] == [1 << 20]
    assert first.constants["WORKGROUP"] in (32, 64)
    again = bascule.elementwise("x: f32 -> y: f32", "y = 2.0 * x", device=gpu_device)
    second = await again.autotune(x, over={"WORKGROUP": [32, 64, 1 << 20]})
    assert second.remembered
    assert second.constants == first.constants
    assert (await (await again(x)).numpy() == 2).all()


async def test_autotune_of_a_kernel(gpu_device: bascule.Device) -> None:
    source = """
    override WORKGROUP: u32 = 64u;
    override BY: f32 = 1.0;
    @group(0) @binding(0) var<storage, read_write> x: array<f32>;
    @compute @workgroup_size(WORKGROUP) fn main(@builtin(global_invocation_id) id: vec3u) {
      if (id.x < arrayLength(&x)) { x[id.x] += BY; }
    }"""
    kernel = gpu_device.kernel(source)
    x = np.zeros(100, np.float32)
    result = await kernel.autotune(x, over={"WORKGROUP": [32, 128]}, count=100)
    assert (x == 0).all()  # outputs are as they were
    assert kernel.constants == result.constants
    await kernel(x, count=100)
    assert (x == 1).all()
    # One that computes something else is refused.
    other = await kernel.autotune(x, over={"BY": [1.0, 2.0]}, count=100)
    assert [constants["BY"] for constants, _ in other.refused] == [2.0]
    for over in ({}, {"WORKGROUP": []}, {"WORKGROUP": range(1, 100)}, {"NONE": [1]}, None):
        with pytest.raises(InputError):
            await kernel.autotune(x, over=over, count=100)  # type: ignore[arg-type]
