"""rope_append: angles from two rows of the table, and the ring that keys and values go into."""

from __future__ import annotations

import numpy as np
import pytest

from bascule.backend.webgpu.gpu_native import NativeGpu
from tests.shaders.harness import check_op, dims, normal

# Either neighbour of a value may be taken when it is packed into a half.
HALF = 2.0**-10

# heads, KV heads, size, tokens, slots
SHAPES = [(9, 3, 64, 1, 16), (4, 4, 4, 7, 7), (2, 1, 16, 3, 5), (2, 1, 128, 2, 4)]


def angles(size: int, positions: int = 5376) -> np.ndarray:
    """The table for theta 10,000: cosines and sines of 0 to 255, then of the multiples of 256."""
    frequencies = 10000.0 ** (-np.arange(0, size, 2) / size)
    steps = np.concatenate((np.arange(256), np.arange(0, positions, 256)))
    turns = steps[:, None] * frequencies
    return np.concatenate((np.cos(turns), np.sin(turns)), axis=1).astype(np.float32)


@pytest.mark.parametrize("pairs", ["adjacent", "halves"])
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize("position", [0, 1, 255, 256, 257, 5000])
async def test_positions(
    gpu: NativeGpu, rng: np.random.Generator, position: int, dtype: type, pairs: str
) -> None:
    for heads, kv_heads, size, tokens, slots in (
        (9, 3, 64, 1, 16),
        (4, 4, 4, 7, 7),
        (2, 1, 16, 3, 5),
    ):
        width = 2 * kv_heads * size
        inputs = [
            normal(rng, tokens, heads * size + width),
            normal(rng, slots, width).astype(dtype),
            angles(size),
            np.array([position], np.uint32),
        ]
        await check_op(
            gpu,
            "software",
            "rope_append",
            inputs,
            tolerance=2e-6 if dtype is np.float32 else HALF,
            states=[1, 3],
            heads=heads,
            kv_heads=kv_heads,
            size=size,
            pairs=pairs,
        )


@pytest.mark.parametrize("tokens", [5, 13])
async def test_fewer_tokens_and_slots_than_the_bucket(
    gpu: NativeGpu, rng: np.random.Generator, tokens: int
) -> None:
    # Of 13 tokens for 11 slots the last 11 stay.
    t, s = dims(T=16, S=64)
    await check_op(
        gpu,
        "software",
        "rope_append",
        [
            normal(rng, tokens, 3 * 2 * 8),
            normal(rng, 11, 2 * 2 * 8),
            angles(8),
            np.array([300], np.uint32),
        ],
        tolerance=2e-6,
        states=[1, 3],
        limits=[(t, 3 * 2 * 8), (s, 2 * 2 * 8), None, None],
        sizes={"T": tokens, "S": 11},
        heads=2,
        kv_heads=2,
        size=8,
        pairs="halves",
    )
