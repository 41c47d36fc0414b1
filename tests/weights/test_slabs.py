"""Blocks come out the same, however small the staging buffer is that the floats pass through."""

from __future__ import annotations

from math import inf

import numpy as np
import pytest

from bascule.backend.cpu import ReferenceBackend
from bascule.backend.quantize import quantize
from bascule.base.dtypes import BlockType
from bascule.program.program import Parameter
from bascule.weights.quantized import SLAB_BLOCKS
from bascule.weights.slabs import quantize_slabs, read_blocks, staging_nbytes


@pytest.mark.parametrize("shape", [(1, 32), (3, 32), (7, 96)])
@pytest.mark.parametrize("maximum", [1, 256, 1000, inf])
@pytest.mark.parametrize("in_flight", [1, 2])
async def test_a_small_landing_gives_the_same_blocks(
    rng: np.random.Generator, shape: tuple[int, int], maximum: float, in_flight: int
) -> None:
    array = rng.standard_normal(shape).astype(np.float32)
    parameter = Parameter("w", shape, ("w",), dtype="q4_0")
    staging = staging_nbytes([parameter], maximum)
    assert staging <= max(256, min(maximum, array.nbytes))
    backend = ReferenceBackend()
    store = backend.store([parameter])
    quantizer = await backend.quantizer(
        store, [parameter], staging_nbytes=staging, max_blocks=SLAB_BLOCKS
    )
    waits = 0

    async def counted() -> None:
        nonlocal waits
        waits += 1
        await backend.done()

    slabs = quantize_slabs(quantizer, parameter, array, staging, counted, in_flight)
    done = [n async for n in slabs]
    assert waits == len(done) // in_flight
    assert done[-1] == array.size
    slab = staging if staging == array.nbytes else staging // 256 * 256
    assert len(done) == -(-array.nbytes // slab)
    expected, _ = quantize(BlockType.Q4_0, array)
    np.testing.assert_array_equal(await read_blocks(quantizer, parameter), expected)
