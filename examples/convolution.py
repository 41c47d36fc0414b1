"""Edges of a picture: opened in the console page, `convolution.py FILE`, or a drawn one."""

import asyncio
import sys

import matplotlib.pyplot as plt
import numpy as np

import bascule

SOURCE = """
struct Params { width: i32, height: i32, weights: mat3x3f }
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> grey: array<f32>;
@group(0) @binding(2) var<storage, read_write> result: array<f32>;

@compute @workgroup_size(8, 8)
fn main(@builtin(global_invocation_id) id: vec3u) {
  let size = vec2i(params.width, params.height);
  let pixel = vec2i(id.xy);
  if (pixel.x >= size.x || pixel.y >= size.y) { return; }
  var sum = 0.0;
  for (var y = 0; y < 3; y++) {
    for (var x = 0; x < 3; x++) {
      let near = clamp(pixel + vec2i(x, y) - 1, vec2i(0), size - 1);
      sum += params.weights[x][y] * grey[near.y * size.x + near.x];
    }
  }
  result[pixel.y * size.x + pixel.x] = sum;
}
"""
EDGES = np.float32([[-1, -1, -1], [-1, 8, -1], [-1, -1, -1]])


def picture():
    """Red, green and blue of the picture, (height, width, 3 or 4) in 0 to 255."""
    if "opened" in globals():
        return opened  # noqa: F821  # the console page has it
    if len(sys.argv) > 1 and sys.argv[1].endswith((".png", ".jpg", ".jpeg")):
        return plt.imread(sys.argv[1]) * (255 if sys.argv[1].endswith(".png") else 1)
    y, x = np.mgrid[:240, :320]
    rings = np.sin(np.hypot(x - 160, y - 120) ** 2 / 400) > 0
    return np.stack([rings * 200, x * 0.7, y * 0.9], axis=-1)


def by_numpy(grey):
    padded = np.pad(grey, 1, "edge")
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3))
    return np.einsum("hwyx,yx->hw", windows, EDGES)


async def main():
    colours = np.asarray(picture(), np.float32)
    grey = np.ascontiguousarray(colours[..., :3] @ np.float32([0.299, 0.587, 0.114]))
    edges = np.empty_like(grey)
    height, width = grey.shape
    async with await bascule.open_device("webgpu") as device:
        convolve = device.kernel(SOURCE)
        size = dict(width=width, height=height, weights=EDGES.T.tolist())
        await convolve(grey, out=edges, count=(width, height), **size)
    equal = np.allclose(edges, by_numpy(grey), atol=1e-2)
    print(f"{width} x {height} pixels, equal to numpy: {equal}")
    _, axes = plt.subplots(1, 2, figsize=(9, 3.6))
    pictures = {"grey": grey, "edges": np.clip(edges, 0, 255)}
    for shown, (title, values) in zip(axes, pictures.items(), strict=True):
        shown.imshow(values, cmap="gray")
        shown.set_title(title)
        shown.axis("off")
    plt.show()


asyncio.run(main())
