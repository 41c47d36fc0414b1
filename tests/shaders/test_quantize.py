"""quantize: floats into blocks on a device, against the gguf package and the CPU tier's numpy."""

from __future__ import annotations

from dataclasses import replace

import gguf
import numpy as np
import pytest
from gguf import quants

from bascule.backend.quantize import CONVERTED, ErrorSums, quantize
from bascule.backend.webgpu.backend import WebGpuBackend
from bascule.backend.webgpu.gpu_native import NativeGpu
from bascule.base.dtypes import BLOCKS, BlockType, DType
from bascule.program.blocks import dequantize
from bascule.program.program import Parameter
from tests.shaders.harness import normal

Array = np.ndarray
CANARY = 0xA5
every_format = pytest.mark.parametrize("dtype", CONVERTED)


async def on_device(
    gpu: NativeGpu, dtype: DType, values: Array, slab: int = 1 << 15, first: int = 0
) -> tuple[Array, ErrorSums]:
    """Blocks of `values`, made a slab at a time behind `first` blocks that must stay."""
    block = BLOCKS[BlockType[dtype.upper()]]
    count = values.size // 32
    parameter = Parameter("w", (first + count + 3, 32), ("w",), dtype=dtype)
    backend = WebGpuBackend(gpu)
    store = backend.store([parameter])
    store.write(store.targets["w"], 0, np.full(parameter.nbytes, CANARY, np.uint8))
    quantizer = await backend.quantizer(
        store, [parameter], staging_nbytes=128 * slab + 512, max_blocks=slab
    )
    for start in range(0, count, slab):
        part = values.reshape(-1)[32 * start : 32 * (start + slab)]
        offset = 256 * (start // slab % 3)
        quantizer.write(quantizer.staging, offset, np.ascontiguousarray(part))
        quantizer.quantize("w", first + start, offset, part.size // 32)
    result = np.empty(parameter.nbytes, np.uint8)
    await quantizer.read("w", 0, result)
    sums = (await quantizer.sums())["w"]
    quantizer.close()
    store.close()
    nbytes = 32 // block.n_elements * block.nbytes
    begin, end = first * nbytes, (first + count) * nbytes
    assert (result[:begin] == CANARY).all(), "wrote before its blocks"
    assert (result[end:] == CANARY).all(), "wrote past its blocks"
    return result[begin:end], sums


def by_gguf(dtype: DType, values: Array) -> Array:
    with np.errstate(all="ignore"):
        made = quants.quantize(values.reshape(-1, 32), gguf.GGMLQuantizationType[dtype.upper()])
    return made.view(np.uint8).reshape(-1)


def check(gpu: NativeGpu, dtype: DType, values: Array, found: Array, sums: ErrorSums) -> None:
    """As the CPU tier has it, bit by bit where quotients are exact: WGSL grants them 2.5 ulp, of
    which SwiftShader takes some once in 100,000 blocks; then a number may round the other way.
    """
    type = BlockType[dtype.upper()]
    wanted, result = quantize(type, values)
    if "llvmpipe" in gpu.adapter.name or dtype == "f16":  # halves are made without a quotient
        np.testing.assert_array_equal(found, wanted)
    a, b = dequantize(type, found, values.size), dequantize(type, wanted, values.size)
    step = np.abs(np.nan_to_num(values, posinf=0, neginf=0).reshape(-1, 32)).max(
        axis=1, keepdims=True
    )
    step /= 100 if type is BlockType.Q8_0 else 6
    assert (np.abs(a - b).reshape(-1, 32) <= step).all()
    assert sums.n_unfit == result.n_unfit
    # Sums of float32s on the device, of float64s here.
    np.testing.assert_allclose(sums.squared_error, result.squared_error, rtol=1e-3)
    np.testing.assert_allclose(sums.squares, result.squares, rtol=1e-3)
    np.testing.assert_allclose(sums.max_error, result.max_error, rtol=1e-3, atol=1e-30)


CASES = {
    "normal": lambda rng: normal(rng, 67, 96),
    "skewed": lambda rng: normal(rng, 9, 32) ** 2 + 3,
    "constant": lambda rng: np.full((5, 32), 0.3, np.float32),
    "negative": lambda rng: np.full((5, 32), -0.3, np.float32),
    "zero": lambda rng: np.zeros((3, 32), np.float32),
    "minus zero": lambda rng: np.full((3, 32), -0.0, np.float32),
    "one of a block": lambda rng: np.eye(32, dtype=np.float32),
    "huge": lambda rng: normal(rng, 9, 64) * np.float32(1e4),
    "subnormal scales": lambda rng: normal(rng, 33, 32) * np.float32(1e-5),
    "scales below any half": lambda rng: normal(rng, 9, 32) * np.float32(1e-12),
    "ties": lambda rng: rng.integers(-254, 255, (9, 32)).astype(np.float32) / 2,
}


@every_format
@pytest.mark.parametrize("case", CASES)
async def test_the_gguf_packages_bytes(
    gpu: NativeGpu, rng: np.random.Generator, dtype: DType, case: str
) -> None:
    values = CASES[case](rng)
    wanted, _ = quantize(BlockType[dtype.upper()], values)
    np.testing.assert_array_equal(wanted, by_gguf(dtype, values))
    result, sums = await on_device(gpu, dtype, values)
    check(gpu, dtype, values, result, sums)


@every_format
async def test_the_other_compiler_and_adapter(
    tint: NativeGpu, rng: np.random.Generator, dtype: DType
) -> None:
    values = normal(rng, 500, 384)
    result, sums = await on_device(tint, dtype, values, slab=1025)
    check(tint, dtype, values, result, sums)
    differs = result != quantize(BlockType[dtype.upper()], values)[0]
    assert differs.sum() <= 8


@every_format
@pytest.mark.parametrize("count", [1, 2, 63, 64, 65, 129])
@pytest.mark.parametrize("first", [0, 1])
async def test_slabs_of_any_size_and_place(
    gpu: NativeGpu, rng: np.random.Generator, dtype: DType, count: int, first: int
) -> None:
    values = normal(rng, count, 32)
    for slab in (1, 7, 64, 1000) if count < 65 else (33, 128):
        check(gpu, dtype, values, *await on_device(gpu, dtype, values, slab, first))


@every_format
async def test_every_scale_rounds_to_the_nearest_half(gpu: NativeGpu, dtype: DType) -> None:
    # Scales around every half of a few exponents, subnormal ones too, ties included.
    halves = np.arange(0x7B00, dtype=np.uint16)[::17].view(np.float16).astype(np.float32)
    steps = np.float32({"q4_0": -8, "q4_1": 15, "q8_0": 127, "f16": 1}[dtype])
    values = np.zeros((len(halves), 3, 32), np.float32)
    after = np.nextafter(halves.astype(np.float16), np.float16(np.inf)).astype(np.float32)
    values[:, 0, 0] = halves * steps
    values[:, 1, 0] = (halves + after) / 2 * steps
    values[:, 2, 0] = (0.75 * halves + 0.25 * after) * steps
    values = values.reshape(-1, 32)
    result, sums = await on_device(gpu, dtype, values)
    check(gpu, dtype, values, result, sums)


@every_format
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
async def test_numbers_that_are_none_are_counted(
    gpu: NativeGpu, rng: np.random.Generator, dtype: DType, bad: float
) -> None:
    values = normal(rng, 70, 32)
    values[0, 0] = values[33, 31] = values[69, 5] = bad
    type = BlockType[dtype.upper()]
    result, sums = await on_device(gpu, dtype, values)
    assert sums.n_unfit == quantize(type, values)[1].n_unfit == 3
    assert np.isfinite(sums.squared_error)
    wanted = quantize(type, np.nan_to_num(values, posinf=0, neginf=0))[0]
    np.testing.assert_array_equal(quantize(type, values)[0], wanted)
    check(gpu, dtype, values, result, sums)


@every_format
@pytest.mark.parametrize("size", [2e7, 3e38])
async def test_numbers_past_a_halfs_scale_are_counted(
    gpu: NativeGpu, dtype: DType, size: float
) -> None:
    values = np.ones((3, 32), np.float32)
    values[1, :2] = size, -size
    values[2, 31] = size
    _, sums = await on_device(gpu, dtype, values)
    assert sums.n_unfit == quantize(BlockType[dtype.upper()], values)[1].n_unfit == 64
    assert sums.max_error < 0.1


def test_errors_are_what_they_should_be(rng: np.random.Generator) -> None:
    values = normal(rng, 100, 96)
    formats = (
        ("q4_0", 0.06, 0.11),
        ("q4_1", 0.05, 0.1),
        ("q8_0", 0.003, 0.008),
        ("f16", 1e-4, 2**-11),
    )
    for dtype, minimum, maximum in formats:
        type = BlockType[dtype.upper()]
        made, sums = quantize(type, values)
        error = values.reshape(-1) - dequantize(type, made, values.size)
        assert minimum < sums.relative_error < maximum
        assert sums.max_error == pytest.approx(np.abs(error).max(), rel=1e-5)
        assert sums.squared_error == pytest.approx(np.square(error.astype(np.float64)).sum())
    assert ErrorSums().relative_error == 0
    assert replace(ErrorSums(), squared_error=1.0, squares=4.0).relative_error == 0.5
