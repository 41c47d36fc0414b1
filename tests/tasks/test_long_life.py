"""What a long life leaves behind in Python; e2e/test_memory.py asks the same of pages."""

from __future__ import annotations

import gc
import sys
from collections.abc import Awaitable, Callable

import pytest

import bascule
from tests.goldens import TINY_BERT

TEXTS = ["w4 w5 w6"]


async def blocks_grown(work: Callable[[], Awaitable[None]], times: int) -> int:
    """By how many blocks Python's memory grows in so many runs of `work`, after some first ones."""
    before = 0
    for count in (times // 4, times):
        for _ in range(count):
            await work()
        gc.collect()
        before, after = sys.getallocatedblocks(), before
    return before - after


@pytest.mark.parametrize("tier", ["webgpu", "cpu"])
async def test_passes_and_loads_leave_no_objects(tier: bascule.Tier) -> None:
    async with await bascule.load(TINY_BERT, tier=tier) as model:

        async def one_pass() -> None:
            await model.embed(TEXTS)

        passes = await blocks_grown(one_pass, 200)

    async def one_load() -> None:
        async with await bascule.load(TINY_BERT, tier=tier) as model:
            await model.embed(TEXTS)

    loads = await blocks_grown(one_load, 12)
    print(f"{tier}: 200 passes grew Python by {passes} blocks, 12 loads by {loads}")
    assert passes < 100  # a block in two passes would exceed this
    assert loads < 300  # the interpreter's own caches grow by 10 a load; a model has hundreds
