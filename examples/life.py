"""Conway's Game of Life on the GPU, 500 generations. The console page draws every second one."""

import asyncio

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


shade = bascule.elementwise("cell: i32 -> shade: f32", "shade = 1.0 - f32(cell)")


async def main(width=256, height=192):
    start = (np.random.default_rng(1).random((height, width)) < 0.3).astype(np.int32)
    device = await bascule.open_device("webgpu")
    life, canvas = device.kernel(SOURCE), device.canvas(width, height)
    a, b = [await device.buffer(start, dtype="int32") for _ in range(2)]
    shades = await device.buffer(np.ones((height, width), np.float32))
    size = {"width": width, "height": height, "count": (width, height)}
    with device.record() as two_generations:
        await life(a, out=b, **size)
        await life(b, out=a, **size)
    if in_page := "display" in globals():  # the console page's, which shows what is drawn
        display(canvas)  # noqa: F821
    for _ in range(250):
        await two_generations.run()
        if in_page:
            await canvas.draw(await shade(a, out=shades))
            await canvas.next_frame()
    grid = await a.numpy()
    for _ in range(500):
        start = step(start)
    print(grid.sum(), "cells live; numpy says the same:", (grid == start).all())
    if not in_page:  # there the canvas goes on showing what was drawn
        device.close()


asyncio.run(main())
