"""attention_lane and attention_tile."""

from __future__ import annotations

import numpy as np
import pytest

from bascule.backend.webgpu.gpu_native import NativeGpu
from tests.shaders.harness import KINDS, check_op, dims, normal


def _lengths(rng: np.random.Generator, batch: int, tokens: int) -> np.ndarray:
    return rng.integers(1, tokens + 1, batch).astype(np.uint32)


# batch, tokens, heads, head size: single, around tile edges, odd head sizes, large heads.
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "shape",
    [
        (1, 1, 1, 1),
        (2, 15, 3, 4),
        (1, 16, 12, 32),
        (3, 17, 5, 4),
        (2, 63, 2, 5),
        (2, 65, 1, 33),
        (1, 130, 2, 64),
        (1, 9, 2, 128),
    ],
    ids=str,
)
async def test_edges(
    gpu: NativeGpu, rng: np.random.Generator, kind: str, shape: tuple[int, int, int, int]
) -> None:
    batch, tokens, heads, size = shape
    qkv = normal(rng, batch, tokens, 3 * heads * size)
    await check_op(
        gpu, kind, "attention", [qkv, _lengths(rng, batch, tokens)], tolerance=1e-5, heads=heads
    )


@pytest.mark.parametrize("kind", ["software", "hardware"])
async def test_fewer_texts_and_tokens_than_the_bucket(
    gpu: NativeGpu, rng: np.random.Generator, kind: str
) -> None:
    b, t = dims(B=4, T=128)
    qkv = normal(rng, 3, 70, 3 * 24)
    await check_op(
        gpu,
        kind,
        "attention",
        [qkv, np.array([70, 1, 33], np.uint32)],
        tolerance=1e-5,
        heads=3,
        limits=[(b, t, 72), (b,)],
        sizes={"B": 3, "T": 70},
    )


@pytest.mark.parametrize("kind", ["software", "hardware"])
async def test_large_scores_and_odd_lengths(
    gpu: NativeGpu, rng: np.random.Generator, kind: str
) -> None:
    # Scores of some hundreds overflow a plain exp; lengths 0 and past the end are clamped.
    qkv = normal(rng, 3, 20, 3 * 16) * np.float32(15)
    lengths = np.array([0, 20, 7], np.uint32)
    await check_op(gpu, kind, "attention", [qkv, lengths], tolerance=3e-4, heads=2)


@pytest.mark.parametrize("kind", ["software", "hardware"])
async def test_keys_past_the_length_do_not_matter(
    gpu: NativeGpu, rng: np.random.Generator, kind: str
) -> None:
    qkv = normal(rng, 1, 40, 3 * 8)
    qkv[0, 21:, 8:] = 1e30
    result = await check_op(
        gpu, kind, "attention", [qkv, np.array([21], np.uint32)], tolerance=1e-5, heads=1
    )
    assert np.abs(result).max() < 100
