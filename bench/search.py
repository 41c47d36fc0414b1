"""bascule.Index beside numpy: the k nearest of many rows, natively, each tier.

    python bench/search.py [rows] [dim] [k]

Prints milliseconds a search (the median of 7) of 1 and of 32 queries, the ratio to numpy's product
and argpartition on the same rows, and what the device holds beside the rows' own bytes.
"""

from __future__ import annotations

import asyncio
import sys
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np

import bascule

TIMES = 7


def by_numpy(rows: Any, queries: Any, k: int) -> Any:
    """The same search in numpy."""
    scores = queries @ rows.T
    best = np.argpartition(-scores, k - 1, axis=1)[:, :k]
    order = np.argsort(-np.take_along_axis(scores, best, 1), axis=1)
    return np.take_along_axis(best, order, 1)


async def measure(tier: str, rows: Any, queries: Any, k: int) -> float:
    """Milliseconds of a search; prints them."""
    async with await bascule.open_device(tier) as device:
        index = bascule.Index(device, rows.shape[1], metric="dot")
        await index.add(rows)
        result = await index.search(queries, k)
        expected = by_numpy(rows, queries, k)
        same = np.mean(np.array(result.keys) == expected)
        times: list[float] = []
        for _ in range(TIMES):
            begin = perf_counter()
            await index.search(queries, k)
            times.append((perf_counter() - begin) * 1000)
        held = device.memory().now_nbytes / rows.nbytes
        peak = device.memory().peak_nbytes / rows.nbytes
        print(
            f"{tier:8} {len(queries):3} queries {median(times):8.1f} ms, as numpy {same:.4f},"
            f" memory {held:.3f} of the rows' bytes (peak {peak:.3f})"
        )
        return median(times)


async def main() -> None:
    """Each tier, 1 and 32 queries."""
    given = [int(value) for value in sys.argv[1:]]
    n, dim, k = [*given, *(100_000, 384, 10)[len(given) :]]
    rng = np.random.default_rng(1)
    rows = rng.standard_normal((n, dim), np.float32)
    for asked in (1, 32):
        queries = rng.standard_normal((asked, dim), np.float32)
        times: list[float] = []
        for _ in range(TIMES):
            begin = perf_counter()
            by_numpy(rows, queries, k)
            times.append((perf_counter() - begin) * 1000)
        print(f"numpy    {asked:3} queries {median(times):8.1f} ms")
        for tier in ("cpu", "wasm", "webgpu"):
            print(f"  ratio {await measure(tier, rows, queries, k) / median(times):.2f}")


asyncio.run(main())
