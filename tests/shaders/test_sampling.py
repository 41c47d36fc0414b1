"""argmax_token: the first of the highest, whatever the size, and where the token goes."""

from __future__ import annotations

import numpy as np
import pytest

from bascule.backend.webgpu.gpu_native import NativeGpu
from tests.shaders.harness import Array, check_op, dims, normal

INF, NAN = np.inf, np.nan


async def _argmax(gpu: NativeGpu, kind: str, logits: Array, slots: int, position: int) -> int:
    inputs = [logits[None], np.zeros(slots, np.uint32), np.array([position], np.uint32)]
    found = await check_op(gpu, kind, "argmax_token", inputs, tolerance=0, states=[1, 2])
    return int(found[0])


@pytest.mark.parametrize("kind", ["software", "hardware", "hardware-small"])
async def test_argmax_of_all_sizes(gpu: NativeGpu, rng: np.random.Generator, kind: str) -> None:
    for n in (1, 2, 63, 64, 65, 255, 256, 257, 4097, 49152):
        logits = normal(rng, n)
        logits[rng.integers(0, n, 3)] = 9  # equal ones: the first
        assert await _argmax(gpu, kind, logits, 8, 4) == int(np.argmax(logits))


@pytest.mark.parametrize(
    ("logits", "token"),
    [
        ([NAN, 1, 2], 2),
        ([-INF, NAN, -INF], 0),
        ([NAN, -INF, -INF], 1),
        ([NAN, NAN], 0),
        ([-INF, -INF], 0),
        ([-3, INF, INF, NAN], 1),
        ([-0.0, 0.0], 0),
        ([0.0, -0.0, 1e-45], 2),
        ([-1e-45, -0.0, -1], 1),
        ([-5, -2, -3e38], 1),
    ],
    ids=str,
)
@pytest.mark.parametrize("kind", ["software", "hardware"])
async def test_argmax_of_hostile_logits(
    gpu: NativeGpu, kind: str, logits: list[float], token: int
) -> None:
    assert await _argmax(gpu, kind, np.array(logits, np.float32), 8, 0) == token


@pytest.mark.parametrize("position", [0, 1, 255, 256, 5000])
async def test_the_token_goes_behind_the_position(
    gpu: NativeGpu, rng: np.random.Generator, position: int
) -> None:
    (s,) = dims(S=512)
    for slots in (1, 8, 257):
        await check_op(
            gpu,
            "software",
            "argmax_token",
            [
                normal(rng, 1, 33),
                rng.integers(0, 33, slots).astype(np.uint32),
                np.array([position], np.uint32),
            ],
            tolerance=0,
            states=[1, 2],
            limits=[None, (s,), None],
            sizes={"S": slots},
        )
