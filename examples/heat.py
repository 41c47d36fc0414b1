"""The heat equation on a square: arrays, 50 steps fused into few kernels before each picture."""

import asyncio

import matplotlib.pyplot as plt
import numpy as np

import bascule
import bascule.array as xp


async def main(n=128, steps=50, pictures=4):
    rng = np.random.default_rng(3)
    start = np.zeros((n, n), np.float32)
    for y, x in rng.integers(8, n - 16, (12, 2)):
        start[y : y + 8, x : x + 8] = 1
    _, axes = plt.subplots(1, pictures, figsize=(9, 2.6))
    async with await bascule.open_device() as device:
        heat = device.asarray(start)
        for k, ax in enumerate(axes):
            ax.imshow(await heat.numpy(), cmap="inferno", vmin=0, vmax=0.6)
            ax.set(title=f"step {k * steps}", xticks=[], yticks=[])
            for _ in range(steps):
                near = xp.roll(heat, 1, axis=0) + xp.roll(heat, -1, axis=0)
                near = near + xp.roll(heat, 1, axis=1) + xp.roll(heat, -1, axis=1)
                heat = heat + 0.2 * (near - 4 * heat)
            await xp.eval(heat)
        total = float(np.sum(await heat.numpy(), dtype=np.float64))
    print(f"heat at the start {start.sum():.3f}, after {pictures * steps} steps {total:.3f}")
    plt.show()


asyncio.run(main())
