"""Conway's Game of Life: two generations recorded, 250 replays on the GPU."""

import asyncio

import matplotlib.pyplot as plt
import numpy as np

import bascule

SOURCE = """
struct Params { width: i32, height: i32 }
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> now: array<i32>;
@group(0) @binding(2) var<storage, read_write> next: array<i32>;

@compute @workgroup_size(8, 8)
fn main(@builtin(global_invocation_id) id: vec3u) {
  let size = vec2i(params.width, params.height);
  let cell = vec2i(id.xy);
  if (cell.x >= size.x || cell.y >= size.y) { return; }
  var n = 0;
  for (var y = -1; y <= 1; y++) {
    for (var x = -1; x <= 1; x++) {
      let near = (cell + vec2i(x, y) + size) % size;
      n += now[near.y * size.x + near.x];
    }
  }
  let i = cell.y * size.x + cell.x;
  next[i] = select(0, 1, n == 3 || (n == 4 && now[i] == 1));
}
"""


def step(grid):
    around = sum(np.roll(grid, (y, x), (0, 1)) for y in (-1, 0, 1) for x in (-1, 0, 1))
    return ((around == 3) | ((around == 4) & (grid == 1))).astype(np.int32)


async def main(width=256, height=192):
    start = (np.random.default_rng(1).random((height, width)) < 0.3).astype(np.int32)
    async with await bascule.open_device("webgpu") as device:
        life = device.kernel(SOURCE)
        a, b = [await device.buffer(start, dtype="int32") for _ in range(2)]
        size = {"width": width, "height": height, "count": (width, height)}
        with device.record() as two_generations:
            await life(a, out=b, **size)
            await life(b, out=a, **size)
        await two_generations.run(times=250)
        grid = await a.numpy()
    for _ in range(500):
        start = step(start)
    print(grid.sum(), "cells live; numpy says the same:", (grid == start).all())
    plt.figure(figsize=(7, 5.2))
    plt.imshow(grid, cmap="gray_r")
    plt.axis("off")
    plt.show()


asyncio.run(main())
