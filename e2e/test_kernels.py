"""A kernel of a user's own in a page's worker: arrays of both languages, errors, few calls."""

from __future__ import annotations

import json

from e2e.conftest import Site
from e2e.engines import Engine, Page

SCRIPT = r'''
import json
import bascule
import js
import numpy as np

SOURCE = """\
override WORKGROUP: u32 = 64u;
struct Params { n: u32, alpha: f32 }
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;
@compute @workgroup_size(WORKGROUP) fn add(@builtin(global_invocation_id) id: vec3u) {
  if (id.x >= params.n) { return; }
  y[id.x] = x[id.x] + params.alpha;
}
"""

async def told(work):
    try:
        await work
    except bascule.BasculeError as error:
        return [type(error).__name__, getattr(error, "line", 0), getattr(error, "column", 0)]

async def all_of_it():
    found = {}
    async with await bascule.open_device("webgpu") as device:
        gpu = device.backend.gpu
        add = device.kernel(SOURCE, "add", {"WORKGROUP": 32}, lambda x, alpha: x + alpha)
        x, y = js.Float32Array.new(100), js.Float32Array.new(100)
        x.fill(2.0)
        await add(x, out=y, n=100, alpha=1.5, count=100)
        found["typed arrays"] = [y[0], y[99]]
        a = await device.buffer(np.zeros(100, np.float32))
        b = await device.buffer(np.zeros(100, np.float32))
        with device.record() as tape:
            for _ in range(50):
                await add(a, out=b, n=100, alpha=1.0, count=100)
                await add(b, out=a, n=100, alpha=1.0, count=100)
        await tape.run()
        crossings = gpu.crossings
        await tape.run()
        numbers = await a.numpy()
        found["calls"] = gpu.crossings - crossings
        found["chain"] = [float(numbers.min()), float(numbers.max())]
        broken = SOURCE.replace("+ params.alpha", "+ params.alfa")
        found["error"] = await told(device.kernel(broken, "add", name="mine").compile())
        after = await add(a, out=100, n=100, alpha=0, count=100)
        found["reads ms"] = []
        for _ in range(10):
            began = js.performance.now()
            await a.numpy()
            found["reads ms"].append(js.performance.now() - began)
        found["after"] = float((await after.numpy())[9])
        scale = bascule.elementwise("x: f32, y: f32 -> z: f32", "z = x * y", device=device)
        row, column = np.arange(3, dtype=np.float32), np.ones((2, 1), np.float32)
        found["elementwise"] = (await (await scale(row, column)).numpy()).tolist()
        total = bascule.reduce("x: f32 -> y: f32", "x", "a + b", "0.0", device=device)
        found["reduce"] = (await (await total(a)).numpy()).tolist()
        before = None
        for index in range(60):
            source = SOURCE.replace("+ params.alpha", f"+ params.alpha + {index}.0")
            await device.kernel(source, "add")(a, out=b, n=100, alpha=0.0, count=100)
            if index in (10, 59):
                device.memory()
                counts = [gpu.n_pipelines, gpu.n_objects, device.memory().now_nbytes]
                before = before or counts
        found["left"] = [before, counts]
    return found

json.dumps(await all_of_it())
'''


def test_a_kernel_from_python_in_a_worker(
    webgpu_engine: Engine, site: Site, shared_lab: Page
) -> None:
    result = json.loads(shared_lab.run("(code) => lab.run(code)", SCRIPT))
    print(result)
    assert result["typed arrays"] == [3.5, 3.5]
    assert result["calls"] <= 3
    assert result["chain"] == [200, 200]
    # Firefox looks for what is done every 100 ms, but for submissions (web/bridge/submission.js).
    assert min(result["reads ms"][1:]) < 50
    name, line, column = result["error"]
    assert (name, line) == ("ShaderError", 8)
    assert column > 0
    assert result["after"] == 200
    assert result["elementwise"] == [[0, 1, 2], [0, 1, 2]]
    assert result["reduce"] == [20_000]
    first, last = result["left"]
    assert last == first
