"""The Mandelbrot set, coloured by how fast each point escapes: one invocation a pixel."""

import asyncio

import matplotlib.pyplot as plt
import numpy as np

import bascule

SOURCE = """
struct Params { width: u32, height: u32, centre: vec2f, span: f32, rounds: u32 }
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read_write> escape: array<f32>;

@compute @workgroup_size(8, 8)
fn main(@builtin(global_invocation_id) id: vec3u) {
  if (id.x >= params.width || id.y >= params.height) { return; }
  let pixel = vec2f(id.xy) - 0.5 * vec2f(vec2u(params.width, params.height));
  let c = params.centre + params.span / f32(params.width) * pixel;
  var z = vec2f(0.0);
  var n = 0u;
  while (n < params.rounds && dot(z, z) < 16.0) {
    z = vec2f(z.x * z.x - z.y * z.y, 2.0 * z.x * z.y) + c;
    n++;
  }
  let smooth_n = f32(n) + 1.0 - log2(max(log2(max(dot(z, z), 1.0)), 1.0));
  escape[id.y * params.width + id.x] = select(smooth_n, 0.0, n == params.rounds);
}
"""


async def main(width=720, height=480):
    async with await bascule.open_device("webgpu") as device:
        mandelbrot = device.kernel(SOURCE)
        escape = np.empty((height, width), np.float32)
        options = dict(width=width, height=height, centre=(-0.75, 0.0), span=3.2, rounds=200)
        await mandelbrot(out=escape, count=(width, height), **options)
    plt.figure(figsize=(7.2, 4.8))
    plt.imshow(np.sqrt(escape), cmap="magma", extent=(-2.35, 0.85, -1.07, 1.07))
    plt.title("Mandelbrot set")
    plt.show()


asyncio.run(main())
