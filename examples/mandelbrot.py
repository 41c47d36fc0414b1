"""The Mandelbrot set, one invocation a pixel. In the console page a click zooms in."""

import asyncio
import io
from pathlib import Path

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


class View:
    """A region of the plane, `span` wide, and how fast its points escape."""

    def __init__(self, kernel, centre=(-0.75, 0.0), span=3.2, size=(720, 480)):
        self.kernel, self.centre, self.span = kernel, centre, span
        self.escape = np.empty(size[::-1], np.float32)

    async def compute(self):
        """Fill `escape` on the GPU."""
        height, width = self.escape.shape
        options = dict(width=width, height=height, centre=self.centre, span=self.span, rounds=200)
        await self.kernel(out=self.escape, count=(width, height), **options)

    async def clicked(self, x, y):
        """Zoom in by 4 at a place, given as shares of the width and the height."""
        height, width = self.escape.shape
        across, down = (x - 0.5) * self.span, (y - 0.5) * self.span * height / width
        self.centre, self.span = (self.centre[0] + across, self.centre[1] + down), self.span / 4
        await self.compute()

    def by_numpy(self, step):
        """The same of each `step`th pixel."""
        height, width = self.escape.shape
        y, x = np.mgrid[:height:step, :width:step] - np.array([height, width])[:, None, None] / 2
        c = complex(*self.centre) + self.span / width * (x + 1j * y)
        z, n = np.zeros_like(c), np.zeros(c.shape)
        for _ in range(200):
            inside = abs(z) < 4
            z[inside] = z[inside] ** 2 + c[inside]
            n += inside
        smooth = n + 1 - np.log2(np.maximum(np.log2(np.maximum(abs(z) ** 2, 1)), 1))
        return np.where(n == 200, 0, smooth)

    def likeness(self):
        """The share of the pixels that are as numpy's; at the edge of the set roundings differ."""
        return float(np.mean(abs(self.escape[::6, ::6] - self.by_numpy(6)) < 0.01))

    def _repr_png_(self):
        file = io.BytesIO()
        plt.imsave(file, np.sqrt(self.escape), cmap="magma", format="png")
        return file.getvalue()


async def main():
    device = await bascule.open_device("webgpu")
    view = View(device.kernel(SOURCE))
    await view.compute()
    print("equal to numpy:", view.likeness() > 0.97)
    if "display" not in globals():  # not in the console page, which shows what main gives
        Path("mandelbrot.png").write_bytes(view._repr_png_())
        device.close()
    return view


asyncio.run(main())
