"""cached_attention_group, _block and _split, over caches in all their states."""

from __future__ import annotations

import numpy as np
import pytest

from bascule.backend.webgpu.gpu_native import NativeGpu
from tests.shaders.harness import check_op, dims, normal

# tokens, slots, position, heads, KV heads, head size, window: the first token, a prefill that just
# fits, around the edges of blocks, a wrapped ring in prefill and in decoding, windows, one KV head,
# one for each head, every head size.
CASES = [
    (1, 1, 0, 9, 3, 64, 0),
    (2, 16, 1, 3, 3, 4, 0),
    (15, 15, 0, 4, 1, 16, 0),
    (16, 32, 16, 2, 1, 128, 0),
    (17, 64, 47, 6, 2, 64, 0),
    (5, 8, 5000, 3, 1, 16, 0),
    (1, 256, 255, 9, 3, 64, 0),
    (1, 300, 256, 8, 2, 64, 100),
    (1, 100, 257, 2, 1, 20, 0),
    (1, 130, 5000, 5, 5, 64, 129),
    (11, 70, 40, 3, 1, 16, 0),
    (33, 90, 70, 4, 2, 16, 7),
    (3, 40, 20, 2, 1, 4, 1),
]
# Enough for the other way to read a cache.
HALVES = [CASES[1], CASES[5], CASES[6], CASES[11]]


def _inputs(
    rng: np.random.Generator, case: tuple[int, ...], dtype: type
) -> tuple[list[np.ndarray], dict[str, int]]:
    tokens, slots, position, heads, kv_heads, size, window = case
    cache = normal(rng, slots, 2 * kv_heads * size).astype(dtype)
    if position + tokens < slots:
        cache[position + tokens :] = np.nan  # what nobody has written is never read
    inputs = [normal(rng, tokens, heads * size), cache, np.array([position], np.uint32)]
    return inputs, {"heads": heads, "kv_heads": kv_heads, "size": size, "window": window}


@pytest.mark.parametrize("kind", ["software", "hardware"])
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
async def test_cases(gpu: NativeGpu, rng: np.random.Generator, kind: str, dtype: type) -> None:
    for case in CASES if dtype is np.float32 else HALVES:
        inputs, attributes = _inputs(rng, case, dtype)
        await check_op(
            gpu, kind, "cached_attention", inputs, tolerance=1e-5, states=[1, 2], **attributes
        )


@pytest.mark.parametrize("kind", ["software", "hardware"])
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
async def test_scale_and_cap(
    gpu: NativeGpu, rng: np.random.Generator, kind: str, dtype: type
) -> None:
    """As Gemma 2 has them; scores of some hundreds are capped, too."""
    for case in HALVES:
        inputs, attributes = _inputs(rng, case, dtype)
        for factor, tolerance in ((1, 1e-5), (15, 3e-4)):
            more = [inputs[0] * np.float32(factor), *inputs[1:]]
            await check_op(
                gpu,
                kind,
                "cached_attention",
                more,
                tolerance=tolerance,
                states=[1, 2],
                **attributes,
                scale=0.3,
                softcap=5.0,
            )


@pytest.mark.parametrize("kind", ["software", "hardware"])
async def test_fewer_tokens_and_slots_than_the_bucket(
    gpu: NativeGpu, rng: np.random.Generator, kind: str
) -> None:
    t, s = dims(T=32, S=512)
    for tokens, slots, position in ((1, 64, 10), (21, 64, 10), (9, 40, 1000)):
        inputs, attributes = _inputs(rng, (tokens, slots, position, 6, 2, 16, 0), np.float32)
        await check_op(
            gpu,
            kind,
            "cached_attention",
            inputs,
            tolerance=1e-5,
            states=[1, 2],
            limits=[(t, 6 * 16), (s, 2 * 2 * 16), None],
            sizes={"T": tokens, "S": slots},
            **attributes,
        )


@pytest.mark.parametrize("kind", ["software", "hardware"])
@pytest.mark.parametrize("tokens", [1, 20])
async def test_large_scores(
    gpu: NativeGpu, rng: np.random.Generator, kind: str, tokens: int
) -> None:
    # Scores of some hundreds overflow a plain exp. Only they are large: with values of that size,
    # float32's error of a score would exceed the tolerance now and then.
    inputs, attributes = _inputs(rng, (tokens, 128, 90, 4, 2, 16, 0), np.float32)
    q, cache, position = inputs
    keys = np.concatenate([np.full(2 * 16, 15), np.ones(2 * 16)]).astype(np.float32)
    inputs = [q * np.float32(15), cache * keys, position]
    await check_op(gpu, kind, "cached_attention", inputs, tolerance=1e-3, states=[2], **attributes)
