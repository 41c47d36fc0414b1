"""Arrays beside what bounds them: python bench/arrays.py [tier] [elements].

Prints, for each, the best of several runs and its ratio to the floor: for what moves memory the
bandwidth of a copy of the same arrays on the same device (read and written once), for products the
fastest matmul of the op table by itself, `device.ops.matmul`.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable
from time import perf_counter

import numpy as np

import bascule
import bascule.array as xp

_RUNS = 5


async def main() -> None:
    tier = sys.argv[1] if len(sys.argv) > 1 else "webgpu"
    n = int(sys.argv[2]) if len(sys.argv) > 2 else 10_000_000
    async with await bascule.open_device(tier) as device:
        print(f"{tier}: {device.device_name}")
        rng = np.random.default_rng(0)
        x = device.asarray(rng.random(n, np.float32))
        one = device.asarray(np.ones(1, np.float32))
        await xp.eval(x, one)

        async def done(array: xp.Array) -> None:
            """Compute it, and wait for the device by reading one element of another array."""
            await xp.eval(array)
            await (one + float(rng.random())).numpy()

        copy = await best(lambda: done(xp.astype(x, "float32") + 0.0))
        print(f"copy of {n:,} floats: {copy * 1e3:.1f} ms, {8 * n / copy / 1e9:.1f} GB/s")

        def chain() -> xp.Array:
            y = x
            for i in range(4):
                y = y * 1.0001 + i
            return y

        rows = xp.reshape(x[: n // 1000 * 1000], (-1, 1000))

        def softmax() -> xp.Array:
            weight = xp.exp(rows - xp.max(rows, axis=1, keepdims=True))
            return weight / xp.sum(weight, axis=1, keepdims=True)

        for name, make, moved in (
            ("chain of 8 operations", chain, 1.0),
            ("sum", lambda: xp.sum(x), 0.5),
            ("sum of rows of 1,000", lambda: xp.sum(rows, axis=1), 0.5),
            ("softmax of rows of 1,000", softmax, 2.0),  # reads thrice, writes once
        ):
            took = await best(lambda make=make: done(make()))
            print(f"{name}: {took * 1e3:.1f} ms, {took / (moved * copy):.2f} x the floor")
        for size in (256, 512):
            numbers = rng.random((size, size), np.float32)
            a = device.asarray(numbers)
            buffer = await device.buffer(numbers)
            await xp.eval(a)

            async def by_op(buffer: bascule.DeviceBuffer = buffer) -> None:
                await (await device.ops.matmul(buffer, buffer)).numpy()

            floor = await best(by_op)
            took = await best(lambda a=a: (a @ a).numpy())
            print(f"matmul of {size}: {took * 1e3:.1f} ms, {took / floor:.2f} x device.ops.matmul")


async def best(work: Callable[[], Awaitable[object]]) -> float:
    """The shortest of several runs, in seconds; one before them compiles."""
    await work()
    took: list[float] = []
    for _ in range(_RUNS):
        began = perf_counter()
        await work()
        took.append(perf_counter() - began)
    return min(took)


if __name__ == "__main__":
    asyncio.run(main())
