"""embedding, pool, l2_normalise, activate and add."""

from __future__ import annotations

import numpy as np
import pytest

from bascule.backend.reference import FUNCTIONS
from bascule.backend.webgpu.gpu_native import NativeGpu
from bascule.program.ops import ACTIVATIONS, POOLINGS
from tests.shaders.harness import KINDS, check_op, dims, normal

SIZES = [1, 63, 64, 65, 4097]


@pytest.mark.parametrize("with_position", [True, False])
@pytest.mark.parametrize("with_bias", [True, False])
@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 7, 5), (2, 33, 64)], ids=str)
async def test_embedding(
    gpu: NativeGpu,
    rng: np.random.Generator,
    shape: tuple[int, int, int],
    with_position: bool,
    with_bias: bool,
) -> None:
    batch, tokens, cols = shape
    ids = rng.integers(0, 11, (batch, tokens)).astype(np.uint32)
    position = normal(rng, tokens + 2, cols) if with_position else None
    bias = normal(rng, cols) if with_bias else None
    inputs = [ids, normal(rng, 11, cols), position, bias]
    await check_op(gpu, "software", "embedding", inputs, tolerance=1e-6)


async def test_embedding_of_hostile_ids_in_a_larger_bucket(
    gpu: NativeGpu, rng: np.random.Generator
) -> None:
    b, t = dims(B=4, T=16)
    ids = np.array([[0, 10, 11], [2**31, 2**32 - 1, 3]], np.uint32)
    await check_op(
        gpu,
        "software",
        "embedding",
        [ids, normal(rng, 11, 6), normal(rng, 16, 6)],
        tolerance=1e-6,
        limits=[(b, t), None, None],
        sizes={"B": 2, "T": 3},
    )


@pytest.mark.parametrize("columns", [1, 7, 16])
async def test_embedding_from_a_table_whose_columns_are_known_per_run(
    gpu: NativeGpu, rng: np.random.Generator, columns: int
) -> None:
    (s,) = dims(S=16)
    ids = np.array([[2, 0, 2, 1]], np.uint32)
    await check_op(
        gpu,
        "software",
        "embedding",
        [ids, normal(rng, 3, columns)],
        tolerance=0,
        limits=[None, (3, s)],
        sizes={"S": columns},
    )


@pytest.mark.parametrize("kind", POOLINGS)
@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 17, 65), (5, 64, 20)], ids=str)
async def test_pool(
    gpu: NativeGpu, rng: np.random.Generator, kind: str, shape: tuple[int, int, int]
) -> None:
    lengths = rng.integers(0, shape[1] + 3, shape[0]).astype(np.uint32)
    lengths = np.minimum(lengths, shape[1]).astype(np.uint32)
    x = normal(rng, *shape)
    await check_op(gpu, "software", "pool", [x, lengths], tolerance=1e-5, kind=kind)
    # More than there are skips all but the last.
    skipped = rng.integers(0, shape[1] + 2, shape[0]).astype(np.uint32)
    await check_op(gpu, "software", "pool", [x, lengths, skipped], tolerance=1e-5, kind=kind)


async def test_pool_in_a_larger_bucket(gpu: NativeGpu, rng: np.random.Generator) -> None:
    b, t = dims(B=4, T=16)
    inputs = [normal(rng, 3, 9, 12), np.array([9, 1, 5], np.uint32)]
    await check_op(
        gpu,
        "software",
        "pool",
        inputs,
        tolerance=1e-5,
        kind="mean",
        limits=[(b, t, 12), (b,)],
        sizes={"B": 3, "T": 9},
    )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("cols", SIZES)
async def test_l2_normalise(gpu: NativeGpu, rng: np.random.Generator, kind: str, cols: int) -> None:
    x = normal(rng, 3, cols)
    x[1] = 0  # a row of zeros stays zeros
    result = await check_op(gpu, kind, "l2_normalise", [x], tolerance=1e-6, eps=1e-12)
    assert (result[1] == 0).all()


@pytest.mark.parametrize("kind", ACTIVATIONS)
@pytest.mark.parametrize("n", SIZES)
async def test_activate(gpu: NativeGpu, rng: np.random.Generator, kind: str, n: int) -> None:
    x = normal(rng, n) * np.float32(4)
    await check_op(gpu, "software", "activate", [x], tolerance=3e-6, kind=kind)


@pytest.mark.parametrize("kind", ACTIVATIONS)
async def test_activate_far_out(gpu: NativeGpu, kind: str) -> None:
    x = np.array([-1e30, -1e4, -100, -0.0, 0.0, 100, 1e4, 1e30], np.float32)
    await check_op(gpu, "software", "activate", [x], tolerance=1e-6, kind=kind)
    low = np.array([-3e38, -1e30, -90, -81], np.float32)
    if kind in ("gelu", "relu", "silu", "gelu_tanh"):  # those that end at 0
        result = await check_op(gpu, "software", "activate", [low], tolerance=1e-6, kind=kind)
        assert (np.abs(result) < 1e-30).all()


@pytest.mark.parametrize("shapes", [((1,), (1,)), ((3, 65), (65,)), ((2, 3, 7), (3, 7))], ids=str)
async def test_add(
    gpu: NativeGpu, rng: np.random.Generator, shapes: tuple[tuple[int, ...], tuple[int, ...]]
) -> None:
    inputs = [normal(rng, *shapes[0]), normal(rng, *shapes[1])]
    await check_op(gpu, "software", "add", inputs, tolerance=1e-7)


async def test_add_past_one_dimension_of_workgroups(
    gpu: NativeGpu, rng: np.random.Generator
) -> None:
    x = normal(rng, 64 * 65535 + 65)
    await check_op(gpu, "software", "add", [x, x[::-1].copy()], tolerance=1e-7)


async def test_gelu_has_an_erf_within_two_ten_millionths(gpu: NativeGpu) -> None:
    x = np.linspace(-6, 6, 40001, dtype=np.float32)
    result = await check_op(gpu, "software", "activate", [x], tolerance=1e-6, kind="gelu")
    exact = FUNCTIONS["activate"](x.astype(np.float64), kind="gelu")
    # Half of x times the error of erf, and two roundings of the product.
    allowed = 1e-7 * np.abs(x) + 1.2e-7 * np.abs(exact) + 1e-9
    assert (np.abs(result - exact) <= allowed).all()
