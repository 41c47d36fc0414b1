"""k-means on 100,000 points: distances as a matrix product, assignments and means on the device."""

import asyncio

import matplotlib.pyplot as plt
import numpy as np

import bascule
import bascule.array as xp


async def main(n=100_000, k=5, rounds=8):
    rng = np.random.default_rng(11)
    truth = rng.uniform(-4, 4, (k, 2)).astype(np.float32)
    points = truth[rng.integers(0, k, n)] + 0.3 * rng.standard_normal((n, 2), np.float32)
    centres = points[:1]
    for _ in range(k - 1):  # each first centre is far from those before it
        away = ((points[:, None] - centres) ** 2).sum(axis=2).min(axis=1)
        centres = np.append(centres, points[[away.argmax()]], axis=0)
    async with await bascule.open_device() as device:
        x = device.asarray(points)
        ids = device.asarray(np.arange(k, dtype=np.int32))
        found = device.asarray(centres)
        for _ in range(rounds):
            distance = xp.sum(found * found, axis=1) - 2 * (x @ found.T)  # less a constant a row
            nearest = xp.argmin(distance, axis=1)
            chosen = xp.astype(nearest[:, None] == ids, "float32")
            found = (chosen.T @ x) / xp.sum(chosen, axis=0)[:, None]
            await xp.eval(found)
        labels, found = await nearest.numpy(), await found.numpy()
    nearest = np.linalg.norm(truth[:, None] - found, axis=2).min(axis=1)
    print(f"largest distance of a centre to the true one: {nearest.max():.3f}")
    plt.scatter(*points[::20].T, s=2, c=labels[::20])
    plt.plot(*found.T, "k+", markersize=12)
    plt.show()


asyncio.run(main())
