"""1,024 bodies that attract each other: every pair, one kernel a step."""

import asyncio

import matplotlib.pyplot as plt
import numpy as np

import bascule

SOURCE = """
struct Params { n: u32, dt: f32 }
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> now: array<vec4f>;        // x, y, z, mass
@group(0) @binding(2) var<storage, read_write> next: array<vec4f>;
@group(0) @binding(3) var<storage, read_write> speed: array<vec4f>;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3u) {
  if (id.x >= params.n) { return; }
  let body = now[id.x];
  var force = vec3f(0.0);
  for (var i = 0u; i < params.n; i++) {
    let away = now[i].xyz - body.xyz;
    let d2 = dot(away, away) + 0.01;
    force += now[i].w * away * inverseSqrt(d2) / d2;
  }
  let v = speed[id.x].xyz + params.dt * force;
  speed[id.x] = vec4f(v, 0.0);
  next[id.x] = vec4f(body.xyz + params.dt * v, body.w);
}
"""


async def main(n=1024):
    rng = np.random.default_rng(5)
    bodies = np.empty((n, 4), np.float32)
    bodies[:, :3] = rng.normal(0, 1, (n, 3)) * (1, 1, 0.1)
    bodies[:, 3] = 1 / n
    speeds = np.zeros_like(bodies)
    turn = np.stack([-bodies[:, 1], bodies[:, 0]], axis=1)
    speeds[:, :2] = 0.5 * turn / np.sqrt(0.1 + (turn**2).sum(axis=1, keepdims=True))
    async with await bascule.open_device("webgpu") as device:
        kernel = device.kernel(SOURCE)
        a, b, v = [await device.buffer(x) for x in (bodies, bodies, speeds)]
        with device.record() as two_steps:
            for now, following in ((a, b), (b, a)):
                await kernel(now, out=(following, v), n=n, dt=0.005, count=n)
        await two_steps.run(times=100)
        found, v = await a.numpy(), await v.numpy()
    momentum = np.abs((found[:, 3:] * (v - speeds)[:, :3]).sum(axis=0)).max()
    print(f"change of the total momentum: {momentum:.1e}")
    plt.figure(figsize=(5.5, 5))
    plt.scatter(*found[:, :2].T, s=2, c=np.linalg.norm(v[:, :3], axis=1))
    plt.axis("equal")
    plt.show()


asyncio.run(main())
