"""Linear layers over weights in blocks: blocks_lane, blocks_block, blocks_group and blocks_tile."""

from __future__ import annotations

import numpy as np
import pytest
from gguf import GGMLQuantizationType, quants

from bascule.backend.quant import BlockMatrix
from bascule.backend.webgpu.gpu_native import NativeGpu
from bascule.dtypes import BLOCKS, BlockType
from tests.shaders.harness import KINDS, check_op, normal, sum_tolerance

TYPES = [BlockType.Q4_1, BlockType.Q8_0]


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


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("type", TYPES)
@pytest.mark.parametrize("shape", [(1, 65, 576), (9, 67, 288)], ids=str)
async def test_edges(
    gpu: NativeGpu,
    rng: np.random.Generator,
    kind: str,
    type: BlockType,
    shape: tuple[int, int, int],
) -> None:
    rows, cols, inner = shape
    x, weight = normal(rng, rows, inner), random_blocks(rng, type, cols, inner)
    await check_op(
        gpu, kind, "linear", [x, weight], tolerance=4 * sum_tolerance(inner), activation="none"
    )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("rows", [1, 9])
async def test_gated(gpu: NativeGpu, rng: np.random.Generator, kind: str, rows: int) -> None:
    x, weight = normal(rng, rows, 288), random_blocks(rng, BlockType.Q4_1, 2 * 37, 288)
    # Both factors are sums of 288 products, about 17 large.
    tolerance = 4 * 17 * sum_tolerance(288)
    await check_op(gpu, kind, "gated_linear", [x, weight], tolerance=tolerance, activation="silu")
