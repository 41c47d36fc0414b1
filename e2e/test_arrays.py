"""Arrays in a page: the same Python as natively, fused on the page's GPU, in few calls."""

from __future__ import annotations

import json

import pytest

from e2e.conftest import Site
from e2e.engines import Engine, Page

AWAIT = "Write `await x.numpy()` first: synchronous code can then use its numbers, too."
SCRIPT = """
import bascule
import bascule.array as xp
import js
import numpy as np

PLAIN = '''
try:
    said = str(float(lazy))
except xp.errors.MustAwaitError as error:
    said = error.hint
said
'''
# 70,000 words: more than one copy to the canvas, with every value of every byte.
BYTES = '''
words = np.arange(70_000, dtype=np.uint32) * np.uint32(2654435761)
try:
    said = bool((np.asarray(x_words ^ 5) == words ^ 5).all())
except xp.errors.MustAwaitError as error:
    said = error.hint
said
'''

async def all_of_it(tier, without_jspi):
    found = {}
    async with await bascule.open_device(tier) as device:
        rng = np.random.default_rng(0)
        numbers = rng.standard_normal((50, 8)).astype(np.float32)
        wide = numbers.astype(np.float64)
        for turn in range(2):
            x = device.asarray(numbers)
            gpu = getattr(device.backend, "gpu", None)
            before = gpu.crossings if gpu else 0
            y = x
            for i in range(50):
                y = y * 1.01 + i * 0.001
            got = await y.numpy()
            found["calls"] = gpu.crossings - before if gpu else 0
        expected = wide
        for i in range(50):
            expected = expected * 1.01 + i * 0.001
        found["chain"] = float(np.abs(got - expected).max())
        weight = xp.exp(x - xp.max(x, axis=1, keepdims=True))
        softmax = await (weight / xp.sum(weight, axis=1, keepdims=True)).numpy()
        weight = np.exp(wide - wide.max(1, keepdims=True))
        found["softmax"] = float(np.abs(softmax - weight / weight.sum(1, keepdims=True)).max())
        found["product"] = float(np.abs(await (x @ x.T).numpy() - wide @ wide.T).max())
        edges = device.asarray(np.array([np.nan, np.inf, -np.inf, -0.0, 2.0], np.float32))
        found["nan"] = (await xp.isnan(edges * 2).numpy()).tolist()
        found["most"] = str(await xp.max(edges[1:]).numpy())
        found["order"] = (await xp.argsort(edges).numpy()).tolist()
        found["halves"] = str((await xp.astype(edges * 40000, "float16").numpy()).tolist())
        found["bytes"] = (await (xp.astype(edges[4:], "uint8") * 200).numpy()).tolist()
        sorted_ = await xp.sort(x, axis=0).numpy()
        found["sorted"] = bool((sorted_ == np.sort(numbers, axis=0)).all())
        # Called by JavaScript, no browser lets Python wait; without JSPI it reads a canvas.
        suspending = js.WebAssembly.Suspending
        if without_jspi:
            js.Reflect.deleteProperty(js.WebAssembly, "Suspending")
        globals()["lazy"] = xp.sum(x[0] * 0 + 1)
        found["plain"] = js.lab_pyodide.runPython(PLAIN)
        globals()["x_words"] = device.asarray(np.arange(70_000, dtype=np.uint32)) * 2654435761
        found["every byte"] = js.lab_pyodide.runPython(BYTES)
        js.WebAssembly.Suspending = suspending
        found["read"] = float((await lazy.numpy()))
        found["known"] = js.lab_pyodide.runPython(PLAIN)
        rows = x[:, 0] > 0
        await rows.numpy()
        found["masked"] = bool((await x[rows].numpy() == numbers[numbers[:, 0] > 0]).all())
    return found
"""


FLAT = """
import gc
import json

import bascule
import js
import numpy as np

SOURCE = '''
@group(0) @binding(0) var<storage, read_write> x: array<f32>;
@compute @workgroup_size(64) fn main(@builtin(global_invocation_id) id: vec3u) {
  if (id.x < arrayLength(&x)) { x[id.x] = x[id.x] + NUMBER; }
}
'''

def counts(device):
    gc.collect()
    gpu = getattr(device.backend, "gpu", None)
    return {
        "gpu": gpu.allocated_nbytes if gpu else 0,
        "arrays": device.memory().by_kind.get("buffers", 0),
        "proxies": js.lab_pyodide._module.pyproxy_alloc_map.size,
    }

async def loop(device, n, reads):
    x = device.asarray(np.ones((100, 100), np.float32))
    for i in range(n):
        x = x * 0.999 + 0.001
        if i % (n // reads) == 0:
            await x[0].numpy()
    for at in range(reads if device.tier == "webgpu" else 0):
        kernel = device.kernel(SOURCE.replace("NUMBER", f"{at}.0"))
        buffer = await device.buffer(np.zeros(10, np.float32))
        await kernel(buffer, count=10)
        assert (await buffer.numpy())[0] == at
        buffer.close()
        kernel.close()
    assert abs((await x.numpy()).max() - 1) < 1e-3

async def flat(tier, n, reads):
    js.lab_pyodide._module.enable_pyproxy_allocation_tracing()
    try:
        async with await bascule.open_device(tier) as device:
            await loop(device, 40, 20)
            before = counts(device)
            await loop(device, n, reads)
            return json.dumps([before, counts(device)])
    finally:  # the page is other tests', too
        js.lab_pyodide._module.disable_pyproxy_allocation_tracing()
"""


@pytest.mark.parametrize("tier", ["webgpu", "wasm"])
@pytest.mark.usefixtures("webgpu_engine")
def test_a_loop_with_reads_leaves_nothing_in_a_page(shared_lab: Page, tier: str) -> None:
    """10,000 operations with reads, and on a GPU 1,000 kernels."""
    shared_lab.run("(code) => lab.run(code)", FLAT)
    n, reads = 10_000, 1_000 if tier == "webgpu" else 2_000
    before, after = json.loads(
        shared_lab.run("(code) => lab.run(code)", f"await flat('{tier}', {n}, {reads})")
    )
    assert after["proxies"] == before["proxies"]
    assert after["gpu"] <= before["gpu"]
    assert after["arrays"] <= before["arrays"]


def test_arrays_in_a_page(webgpu_engine: Engine, site: Site, shared_lab: Page) -> None:
    shared_lab.run("(code) => lab.run(code)", SCRIPT)
    for tier in ("webgpu", "wasm"):
        # Chromium composites no canvas of SwiftShader's, and destroys its device.
        without_jspi = webgpu_engine.name == "firefox-webgpu"
        code = f"import json\njson.dumps(await all_of_it('{tier}', {without_jspi}))"
        result = json.loads(shared_lab.run("(code) => lab.run(code)", code))
        assert result["calls"] <= (3 if tier == "webgpu" else 0)
        assert result["chain"] < 1e-5
        assert result["softmax"] < 1e-6
        assert result["product"] < 1e-4
        assert result["nan"] == [True, False, False, False, False]
        assert result["most"] == "inf"
        assert result["order"] == [2, 3, 4, 1, 0]
        assert result["halves"] == "[nan, inf, -inf, -0.0, inf]"
        assert result["bytes"] == [400 % 256]
        assert result["sorted"]
        assert result["masked"]
        is_read = without_jspi or tier == "wasm"
        assert {result["plain"], result["every byte"]} == ({"8.0", True} if is_read else {AWAIT})
        assert result["read"] == 8.0
        assert result["known"] == "8.0"
