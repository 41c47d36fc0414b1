"""Arrays from end to end on each tier: made, computed, read."""

from __future__ import annotations

import numpy as np
import pytest

import bascule
import bascule.array as xp

TIERS = ["webgpu", "webgpu-limited", "wasm", "cpu"]
ALL_TIERS = pytest.mark.parametrize("tier", TIERS)


@ALL_TIERS
async def test_a_chain_a_sum_and_a_product(tier: str, rng: np.random.Generator) -> None:
    numbers = rng.standard_normal((5, 7)).astype(np.float32)
    async with await bascule.open_device(tier) as device:
        x = device.asarray(numbers)
        y = xp.exp(x * 0.5 + 1)
        wide = numbers.astype(np.float64)
        expected = np.exp(wide * 0.5 + 1)
        assert np.allclose(await y.numpy(), expected, rtol=1e-6)
        assert np.allclose(await xp.sum(y, axis=0).numpy(), expected.sum(0), rtol=1e-5)
        assert np.allclose(await (x @ x.T).numpy(), wide @ wide.T, rtol=1e-4, atol=1e-5)
        assert y.device is device.arrays
        assert str(y.device) == tier
