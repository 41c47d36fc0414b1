"""A kernel of your own: y = alpha * x + y for a million numbers, in WGSL."""

import asyncio

import numpy as np

import bascule

SOURCE = """
struct Params { n: u32, alpha: f32 }
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3u) {
  if (id.x < params.n) { y[id.x] += params.alpha * x[id.x]; }
}
"""


async def main():
    n = 1_000_000
    x, y = np.random.default_rng(1).random((2, n), dtype=np.float32)
    expected = 3 * x + y
    async with await bascule.open_device("webgpu") as device:
        axpy = device.kernel(SOURCE)
        result = await axpy(x, y, n=n, alpha=3.0, count=n)
        print(n, "numbers on", device.adapter.device or device.tier)
        print("largest difference to numpy:", np.abs(result - expected).max())


asyncio.run(main())
