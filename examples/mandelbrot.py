"""The Mandelbrot set, one invocation a pixel. In the console page a click zooms in."""

import asyncio

import numpy as np
from PIL import Image

import bascule

SOURCE = """
struct Params { width: u32, height: u32, centre: vec2f, span: f32, rounds: u32 }
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read_write> escape: array<f32>;
@group(0) @binding(2) var<storage, read_write> colour: array<u32>;

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
  let at = id.y * params.width + id.x;
  let inside = n == params.rounds;
  escape[at] = select(smooth_n, 0.0, inside);
  // From dark blue over white to orange and back.
  let waves = 0.5 + 0.5 * cos(0.9 * sqrt(smooth_n) + 1.8 + vec3f(0.0, 0.6, 1.4));
  colour[at] = select(pack4x8unorm(vec4f(waves, 1.0)), 0u, inside);
}
"""


class View:
    """A region of the plane, `span` wide: how fast its points escape, and a canvas of it."""

    def __init__(self, device, centre=(-0.75, 0.0), span=3.2, size=(720, 480)):
        self.kernel, self.canvas = device.kernel(SOURCE), device.canvas(*size)
        self.centre, self.span, self.size = centre, span, size
        self.escape = self.colour = size[::-1]  # the shapes of new buffers

    async def draw(self):
        """Fill the canvas on the GPU."""
        width, height = self.size
        options = dict(width=width, height=height, centre=self.centre, span=self.span, rounds=200)
        out = self.escape, self.colour
        self.escape, self.colour = await self.kernel(out=out, count=self.size, **options)
        await self.canvas.draw(self.colour)

    async def clicked(self, x, y):
        """Zoom in by 4 at a place, given as shares of the width and the height."""
        width, height = self.size
        across, down = (x - 0.5) * self.span, (y - 0.5) * self.span * height / width
        self.centre, self.span = (self.centre[0] + across, self.centre[1] + down), self.span / 4
        await self.draw()

    def by_numpy(self, step):
        """The same of each `step`th pixel."""
        width, height = self.size
        y, x = np.mgrid[:height:step, :width:step] - np.array([height, width])[:, None, None] / 2
        c = complex(*self.centre) + self.span / width * (x + 1j * y)
        z, n = np.zeros_like(c), np.zeros(c.shape)
        for _ in range(200):
            inside = abs(z) < 4
            z[inside] = z[inside] ** 2 + c[inside]
            n += inside
        smooth = n + 1 - np.log2(np.maximum(np.log2(np.maximum(abs(z) ** 2, 1)), 1))
        return np.where(n == 200, 0, smooth)

    async def likeness(self):
        """The share of the pixels that are as numpy's; at the edge of the set roundings differ."""
        escape = await self.escape.numpy()
        return float(np.mean(abs(escape[::6, ::6] - self.by_numpy(6)) < 0.01))


async def main():
    device = await bascule.open_device("webgpu")
    view = View(device)
    await view.draw()
    print("equal to numpy:", await view.likeness() > 0.97)
    if "display" not in globals():  # not in the console page, which shows what main gives
        Image.fromarray(await view.canvas.pixels()).save("mandelbrot.png")
        device.close()
    return view


asyncio.run(main())
