"""Linear layers over weights in blocks: blocks_lane, blocks_block, blocks_group and blocks_tile."""

from __future__ import annotations

import numpy as np
import pytest
from gguf import GGMLQuantizationType, quants

from bascule.backend.webgpu.gpu_native import NativeGpu
from bascule.base.dtypes import BLOCKS, BlockType
from bascule.errors import InputError
from bascule.program.blocks import BlockMatrix
from tests.shaders.harness import KINDS, check_op, dims, normal, sum_tolerance

TYPES = [type for type in BlockType if type is not BlockType.F32]


def random_blocks(rng: np.random.Generator, type: BlockType, rows: int, inner: int) -> BlockMatrix:
    """Weights of that type, about as large as standard normals."""
    if type.name.endswith("_K"):
        return _random_k_blocks(rng, type, rows, inner)
    data = quants.quantize(normal(rng, rows, inner), GGMLQuantizationType[type.name])
    return BlockMatrix(type, (rows, inner), np.frombuffer(data.tobytes(), np.uint8))


def _random_k_blocks(
    rng: np.random.Generator, type: BlockType, rows: int, inner: int
) -> BlockMatrix:
    """Any bytes are valid but the scales: halves, of either sign and some of them subnormal."""
    block = BLOCKS[type]
    data = rng.integers(0, 256, (rows * inner // block.n_elements, block.nbytes), np.uint8)
    scales = (rng.uniform(-2, 2, (len(data), 2)) * 1e-4).astype("<f2").view(np.uint8)
    if type is BlockType.Q6_K:
        data[:, 208:] = scales[:, :2]
    else:
        data[:, :4] = scales
    return BlockMatrix(type, (rows, inner), data.reshape(-1))


def tolerance(inner: int) -> float:
    """Unscaled sums are up to four times as large as the result before their offset comes off."""
    return 4 * sum_tolerance(inner)


@pytest.mark.parametrize("kind", ["software", "hardware"])
@pytest.mark.parametrize("type", TYPES, ids=lambda type: type.name)
@pytest.mark.parametrize("rows", [1, 9])
async def test_formats(
    gpu: NativeGpu, rng: np.random.Generator, kind: str, type: BlockType, rows: int
) -> None:
    # Odd columns: the last block of a row and of the whole ends inside a word in some formats.
    x, weight = normal(rng, rows, 256), random_blocks(rng, type, 37, 256)
    await check_op(gpu, kind, "linear", [x, weight], tolerance=tolerance(256), activation="none")


@pytest.mark.parametrize("type", TYPES, ids=lambda type: type.name)
async def test_tint_computes_the_same(
    tint: NativeGpu, rng: np.random.Generator, type: BlockType
) -> None:
    x, weight = normal(rng, 1, 256), random_blocks(rng, type, 37, 256)
    for kind in ("software", "software-plain", "hardware"):
        await check_op(
            tint, kind, "linear", [x, weight], tolerance=tolerance(256), activation="none"
        )


@pytest.mark.parametrize("kind", ["software", "hardware"])
async def test_tint_computes_the_same_for_many_rows(
    tint: NativeGpu, rng: np.random.Generator, kind: str
) -> None:
    x, weight = normal(rng, 9, 288), random_blocks(rng, BlockType.Q8_0, 38, 288)
    allowed = 4 * 17 * tolerance(288)
    await check_op(tint, kind, "gated_linear", [x, weight], tolerance=allowed, activation="silu")


# rows, cols, inner: around the edges of every lane's and workgroup's share.
SHAPES = [
    (1, 1, 32),
    (1, 3, 64),
    (1, 63, 576),
    (1, 64, 288),
    (1, 65, 32),
    (2, 7, 96),
    (3, 8, 288),
    (4, 9, 1056),
    (5, 129, 64),
    (8, 64, 32),
    (17, 63, 96),
    (65, 65, 64),
]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
async def test_edges(
    gpu: NativeGpu, rng: np.random.Generator, kind: str, shape: tuple[int, int, int]
) -> None:
    rows, cols, inner = shape
    type = (BlockType.Q4_1, BlockType.Q8_0)[cols % 2]
    x, weight = normal(rng, rows, inner), random_blocks(rng, type, cols, inner)
    await check_op(gpu, kind, "linear", [x, weight], tolerance=tolerance(inner), activation="none")


@pytest.mark.parametrize("kind", ["software", "hardware"])
@pytest.mark.parametrize("rows", [1, 6])
@pytest.mark.parametrize(
    ("activation", "biased", "added"),
    [("gelu", True, False), ("none", False, True), ("silu", True, True)],
)
async def test_epilogues(
    gpu: NativeGpu,
    rng: np.random.Generator,
    kind: str,
    rows: int,
    activation: str,
    biased: bool,
    added: bool,
) -> None:
    x, weight = normal(rng, rows, 64), random_blocks(rng, BlockType.Q4_1, 37, 64)
    bias = normal(rng, 37) if biased else None
    residual = normal(rng, rows, 37) if added else None
    await check_op(
        gpu,
        kind,
        "linear",
        [x, weight, bias, residual],
        tolerance=2 * tolerance(64),
        activation=activation,
    )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("rows", "cols"), [(1, 33), (9, 36)])
async def test_gated(
    gpu: NativeGpu, rng: np.random.Generator, kind: str, rows: int, cols: int
) -> None:
    x, weight = normal(rng, rows, 288), random_blocks(rng, BlockType.Q4_1, 2 * cols, 288)
    # Both factors are sums of 288 products, about 17 large.
    allowed = 4 * 17 * tolerance(288)
    await check_op(gpu, kind, "gated_linear", [x, weight], tolerance=allowed, activation="silu")


@pytest.mark.parametrize("kind", ["software", "hardware"])
@pytest.mark.parametrize("shape", [(1, 5, 64), (6, 67, 32), (3, 5, 7)], ids=str)
async def test_gated_in_f32(
    gpu: NativeGpu, rng: np.random.Generator, kind: str, shape: tuple[int, int, int]
) -> None:
    rows, cols, inner = shape
    x, weight = normal(rng, rows, inner), normal(rng, 2 * cols, inner)
    allowed = 2 * inner**0.5 * tolerance(inner)
    await check_op(gpu, kind, "gated_linear", [x, weight], tolerance=allowed, activation="silu")


@pytest.mark.parametrize("kind", ["software", "hardware"])
@pytest.mark.parametrize(("limit", "rows"), [(4, 3), (32, 1), (32, 11)])
async def test_fewer_rows_than_the_bucket(
    gpu: NativeGpu, rng: np.random.Generator, kind: str, limit: int, rows: int
) -> None:
    (t,) = dims(T=limit)
    x, weight = normal(rng, rows, 64), random_blocks(rng, BlockType.Q8_0, 19, 64)
    await check_op(
        gpu,
        kind,
        "linear",
        [x, weight],
        tolerance=tolerance(64),
        activation="none",
        limits=[(t, 64), None],
        sizes={"T": rows},
    )


@pytest.mark.parametrize("type", BlockType, ids=lambda type: type.name)
async def test_token_embedding(gpu: NativeGpu, rng: np.random.Generator, type: BlockType) -> None:
    table = normal(rng, 9, 256) if type is BlockType.F32 else random_blocks(rng, type, 9, 256)
    # The position wraps around, and two tokens lie past the table.
    tokens = np.array([3, 8, 0, 9, 2**32 - 1, 5, 1], np.uint32)
    (t,) = dims(T=8)
    await check_op(
        gpu,
        "software",
        "token_embedding",
        [table, tokens, np.array([12], np.uint32)],
        tolerance=1e-6,
        states=[1, 2],
        sizes={"T": 6},
        length=t,
    )


@pytest.mark.parametrize("type", BlockType, ids=lambda type: type.name)
@pytest.mark.parametrize("added", [False, True])
async def test_embedding(
    gpu: NativeGpu, rng: np.random.Generator, type: BlockType, added: bool
) -> None:
    table = normal(rng, 9, 256) if type is BlockType.F32 else random_blocks(rng, type, 9, 256)
    ids = np.array([[3, 8, 0], [9, 2**32 - 1, 5]], np.uint32)  # two lie past the table
    b, t = dims(B=3, T=5)
    await check_op(
        gpu,
        "software",
        "embedding",
        [ids, table, normal(rng, 6, 256) if added else None, normal(rng, 256) if added else None],
        tolerance=1e-6,
        limits=[(b, t), None, None, None],
        sizes={"B": 2, "T": 3},
    )


async def test_one_token_of_an_odd_table(gpu: NativeGpu, rng: np.random.Generator) -> None:
    inputs = [normal(rng, 3, 7), np.array([2, 1], np.uint32), np.array([1], np.uint32)]
    await check_op(
        gpu, "hardware", "token_embedding", inputs, tolerance=1e-7, states=[1, 2], length=1
    )


@pytest.mark.parametrize("type", [BlockType.Q4_1, BlockType.Q6_K], ids=lambda type: type.name)
async def test_subnormal_scales_count(
    gpu: NativeGpu, tint: NativeGpu, rng: np.random.Generator, type: BlockType
) -> None:
    weight = random_blocks(rng, type, 5, 256)
    at = slice(208, 210) if type is BlockType.Q6_K else slice(0, 4)
    blocks = weight.data.reshape(-1, BLOCKS[type].nbytes).copy()
    blocks[:, at] = np.resize(np.array([0x0001, 0x83FF], "<u2").view(np.uint8), blocks[:, at].shape)
    weight = BlockMatrix(type, weight.shape, blocks.reshape(-1))
    size = float(np.abs(weight.rows(0, 5)).max())
    x = normal(rng, 1, 256) / np.float32(size)
    for device in (gpu, tint):
        result = await check_op(
            device, "software", "linear", [x, weight], tolerance=tolerance(256), activation="none"
        )
        assert np.abs(result).max() > 0.1


async def test_rows_that_are_no_whole_runs_are_refused(
    gpu: NativeGpu, rng: np.random.Generator
) -> None:
    x, weight = normal(rng, 1, 24), random_blocks(rng, BlockType.F16, 3, 24)
    with pytest.raises(InputError, match="multiple of 32"):
        await check_op(gpu, "software", "linear", [x, weight], tolerance=1, activation="none")
