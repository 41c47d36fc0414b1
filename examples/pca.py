"""PCA of 10,000 vectors of 384 numbers by power iteration, and a scatter plot of the result."""

import asyncio

import matplotlib.pyplot as plt
import numpy as np

import bascule


async def main(n=10_000, width=384):
    rng = np.random.default_rng(7)
    kind = rng.integers(0, 3, n)  # three clouds in 384 dimensions
    x = rng.standard_normal((3, width))[kind] + 0.5 * rng.standard_normal((n, width))
    x = (x - x.mean(axis=0)).astype(np.float32)
    axes = np.linalg.qr(rng.standard_normal((width, 2)))[0].astype(np.float32)
    async with await bascule.open_device() as device:
        rows = await device.buffer(x)
        columns = await device.buffer(np.ascontiguousarray(x.T))
        for _ in range(12):  # axes = qr(x.T @ (x @ axes))
            projected = await device.ops.matmul(rows, axes)
            product = await device.ops.matmul(columns, projected)
            axes = np.linalg.qr(await product.numpy())[0]
        points = await (await device.ops.matmul(rows, axes)).numpy()
        print("on", device.tier)
    print("variance explained:", np.round(points.var(axis=0) / x.var(axis=0).sum(), 3))
    plt.scatter(*points.T, c=kind, s=3)
    plt.title("PCA")
    plt.show()


asyncio.run(main())
