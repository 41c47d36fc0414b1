"""The driver waist in real pages: every verb, its faults, what it leaves behind; also on a Pyodide
that has no numpy."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from bascule.base.folders import models_folder
from bascule.text.tokenizer_check import check_tokenizer
from bascule.text.tokenizer_native import NativeTokenizer
from e2e.conftest import Site, booted
from e2e.engines import Engine, Page
from tests.goldens import awkward, cosines, golden

PYODIDES = {"0.27": "/pyodide/", "314": "/pyodide314/"}

SETUP = r'''
import json, struct, sys
from array import array
from bascule.backend.webgpu.gpu import pack_writes
from bascule.backend.webgpu.gpu_browser import open_browser
from bascule.errors import BasculeError, DeviceLostError, GpuError, ShaderError

DOUBLE = """struct Params { n: u32, factor: f32 }
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;
override SHIFT: f32 = 0.0;
@compute @workgroup_size(64) fn main(@builtin(global_invocation_id) id: vec3u) {
  if (id.x >= params.n) { return; }
  y[id.x] = x[id.x] * params.factor + SHIFT;
}"""
N = 77

class Rig:
    """A device with one recorded tape that computes y = x * factor + 0.5."""
    async def open(self):
        self.gpu = g = await open_browser()
        p = await g.pipeline(DOUBLE, {"SHIFT": 0.5}, "urw", "double.wgsl")
        self.params = g.alloc(16, uniform=True)
        self.x, self.y = g.alloc(4 * N), g.alloc(4 * N)
        self.tape = g.record(array("i", [1, 1, p, 3, 0, self.params, 0, 4, 1, self.x, 0, N,
                                         2, self.y, 0, N, p, 0, 2, 1, 1]))
        return self
    def replay(self, factor):
        x = array("f", range(N))
        self.gpu.replay(self.tape, pack_writes([
            (self.params, 0, struct.pack("<If8x", N, factor)), (self.x, 0, x)]))
    async def read(self):
        out = array("f", [float("nan")] * N)
        await self.gpu.read(self.y, 0, out)
        return out

async def told(work):
    try:
        found = work() if callable(work) else work
        if hasattr(found, "__await__"):
            await found
    except BasculeError as error:
        return [type(error).__name__, str(error), getattr(error, "line", 0)]
    return ["none", "", 0]

rig = await Rig().open()
'''


@pytest.fixture(params=PYODIDES)
def lab(
    request: pytest.FixtureRequest,
    webgpu_engine: Engine,
    site: Site,
    shared: Callable[[str], Page],
) -> Callable[[str], Any]:
    page = shared(f"{site.url}/lab/?pyodide={PYODIDES[request.param]}")
    booted(page)
    page.run("(code) => lab.run(code)", SETUP)

    def run(code: str) -> Any:
        return json.loads(page.run("(code) => lab.run(code)", code))

    return run


def test_verbs_and_their_faults(lab: Callable[[str], Any]) -> None:
    result = lab(
        r"""
gpu = rig.gpu
BAD = DOUBLE.replace("* params.factor", "* params.n")
rig.replay(2.0)
first = await rig.read()
rig.replay(3.0)
pending = gpu.read(rig.y, 0, (before := array("f", [0] * N)))
rig.replay(4.0)          # queued after the read: must not change what it reads
await pending
faults = {
  "shader": await told(gpu.pipeline(BAD, {}, "urw", "bad.wgsl")),
  "stale": await told(lambda: (gpu.free(b := gpu.alloc(16)), gpu.write(b, 0, bytes(4)))),
  "reused": await told(lambda: (gpu.free(b := gpu.alloc(16)), gpu.alloc(16), gpu.free(b))),
  "never": await told(lambda: gpu.replay(12345)),
  "size": await told(lambda: gpu.alloc(1 << 50)),
  "negative": await told(lambda: gpu.alloc(-1)),
  "range": await told(lambda: gpu.read(rig.y, 4 * N, bytearray(16))),
  "short": await told(lambda: gpu.record(array("i", [0, 1, 2]))),
}
rig.replay(2.0)
after = await rig.read()
waiting = gpu.done()
gpu.destroy()
faults["waiting"] = await told(waiting)
faults["lost"] = await told(lambda: rig.replay(1.0))
faults["done"] = await told(lambda: gpu.done())
json.dumps({
  "ok": [list(first) == [2 * i + 0.5 for i in range(N)],
         list(before) == [3 * i + 0.5 for i in range(N)], list(after) == list(first)],
  "faults": faults, "numpy": "numpy" in sys.modules, "name": gpu.adapter.name,
  "software": gpu.adapter.software, "features": sorted(gpu.adapter.features),
})
"""
    )
    print(result["name"], "software" if result["software"] else "", result["features"])
    assert result["ok"] == [True, True, True]
    assert not result["numpy"]
    faults = result["faults"]
    assert faults["shader"][0] == "ShaderError"
    assert faults["shader"][2] == 8
    assert "bad.wgsl:8" in faults["shader"][1]
    for name in ("stale", "reused", "never"):
        assert faults[name][0] == "GpuError", name
        assert "named" in faults[name][1]
    assert faults["size"][0] == faults["negative"][0] == faults["range"][0] == "GpuError"
    assert faults["short"][0] == "GpuError"
    assert "record" in faults["short"][1]
    for name in ("lost", "waiting", "done"):
        assert faults[name][0] == "DeviceLostError", name


def test_done_waits_for_the_work_as_a_read_does(lab: Callable[[str], Any]) -> None:
    by_read, by_done, after = lab(
        r'''
import time
BUSY = DOUBLE.replace("x[id.x] * params.factor + SHIFT", "busy(x[id.x])") + """
fn busy(start: f32) -> f32 {
  var sum = start + params.factor + SHIFT;
  for (var i = 0u; i < 20000u; i++) { sum = sin(sum + f32(i)); }
  return sum;
}"""
gpu = rig.gpu
busy = await gpu.pipeline(BUSY, {}, "urw", "busy.wgsl")
rig.replay(1.0)
tape = gpu.record(array("i", [1, 1, busy, 3, 0, rig.params, 0, 4, 1, rig.x, 0, N,
                              2, rig.y, 0, N, busy, 0, 1, 1, 1]))
async def seconds(runs, wait):
    began = time.perf_counter()
    for _ in range(runs):
        gpu.replay(tape)
    await wait()
    return time.perf_counter() - began
runs = 1
while (by_read := await seconds(runs, rig.read)) < 0.5:
    runs *= 2
by_read = min(by_read, await seconds(runs, rig.read))
by_done = max([await seconds(runs, gpu.done) for _ in range(2)])
json.dumps([by_read, by_done, await seconds(0, rig.read)])
'''
    )
    print(f"read {by_read:.3f} s, done {by_done:.3f} s, a read after that {after:.3f} s")
    assert by_done > by_read / 2
    assert after < by_read / 2  # nothing is running any more


def test_a_thousand_replays_leave_nothing_behind(lab: Callable[[str], Any]) -> None:
    result = lab(
        r"""
import gc, time, js
js.lab_pyodide._module.enable_pyproxy_allocation_tracing()
def counts():
    gc.collect()
    return {"gpu": rig.gpu.allocated_nbytes, "objects": rig.gpu.n_objects,
            "wasm": js.lab_pyodide._module.HEAP8.length,
            "proxies": js.lab_pyodide._module.pyproxy_alloc_map.size}
async def replays(count):
    for i in range(count):
        rig.replay(1.0)
        if i % 50 == 0:
            await rig.read()
await replays(100)
before, crossings, began = counts(), rig.gpu.crossings, time.perf_counter()
for _ in range(1000):
    rig.replay(1.0)
spent = time.perf_counter() - began
crossed = rig.gpu.crossings - crossings
await replays(1000)
json.dumps({"before": before, "after": counts(), "crossed": crossed, "us": 1e3 * spent})
"""
    )
    print(f"Python time of a replay: {result['us']:.1f} us")
    assert result["crossed"] == 1000
    assert result["after"] == result["before"]


DEVICE = """
import asyncio, gc, json
import bascule
import numpy as np
from bascule.errors import BasculeError, DeviceLostError, InputError
from bascule.tasks.sampler import GREEDY

async def error_of(work):
    try:
        await work
    except BasculeError as error:
        return f"{type(error).__name__}: {error}"

async def case(tier):
    rng = np.random.default_rng(SEED)
    a, b = rng.standard_normal((33, 65), np.float32), rng.standard_normal((65, 17), np.float32)
    async with await bascule.open_device(tier) as device:
        encoder, writer = await asyncio.gather(
            device.load(GOLDENS + "/tiny-bert"), device.load(GOLDENS + "/tiny-llama/tiny-k.gguf")
        )
        rows, text = await asyncio.gather(
            encoder.embed(TEXTS), writer.generate("Hi", max_new_tokens=4, sampling=GREEDY)
        )
        weights = device.memory().by_kind["weights"]
        product = await device.ops.matmul(a, b)
        out = await device.buffer(np.full((17, 33), np.nan, np.float32))
        await device.ops.gelu(await device.ops.transpose(product, axes=(1, 0)), out=out)
        read = await product.numpy()
        read_out = await out.numpy()
        programs = device.ops.n_compiled
        for _ in range(20):
            again = await device.ops.matmul(a, b)
        found = {
            "tier": device.tier,
            "adapter": device.adapter is not None,
            "limit": device.limits.get("maxBufferSize", 0),
            "rows": rows.tolist(),
            "ids": text.ids,
            "one": encoder.backend is writer.backend is device.backend,
            "weights": [weights, encoder.weights.nbytes + writer.weights.nbytes],
            "off": float(np.abs(read - a.astype(float) @ b).max()),
            "poison": bool(np.isfinite(read_out).all()),
            "compiled": [programs, device.ops.n_compiled],
            "shape": await error_of(device.ops.matmul(a, a)),
        }
        busy = device.memory()
        del product, out, again
        gc.collect()
        freed = device.memory()
        found["kinds"] = [busy.by_kind.get("buffers", 0), freed.by_kind.get("buffers", 0)]
        found["sum"] = sum(busy.by_kind.values()) == busy.now_nbytes <= busy.peak_nbytes
    found["left"] = device.memory().now_nbytes
    found["closed"] = await error_of(encoder.embed(TEXTS))
    found["ops closed"] = await error_of(device.ops.matmul(a, b))
    return found

json.dumps([await case(tier) for tier in ("webgpu", "wasm")])
"""


def test_two_models_and_operations_share_a_device(
    webgpu_engine: Engine, site: Site, shared_lab: Page
) -> None:
    expected = golden("tiny-bert")
    seed = int.from_bytes(os.urandom(4))
    head = f"SEED, TEXTS, GOLDENS = {seed}, {expected.texts!r}, {site.url + '/goldens'!r}\n"
    results = json.loads(shared_lab.run("(code) => lab.run(code)", head + DEVICE))
    for tier, result in zip(("webgpu", "wasm"), results, strict=True):
        assert result["tier"] == tier
        assert result["one"]
        assert result["adapter"] == (result["limit"] >= 256 << 20) == (tier == "webgpu")
        assert cosines(np.array(result["rows"]), expected.embeddings).min() > 0.99999
        assert abs(result["weights"][0] / result["weights"][1] - 1) < 0.01
        assert result["off"] < 1e-4, f"seed {seed}"
        assert result["poison"]
        assert result["compiled"] == [3, 3]
        assert result["shape"].startswith("InputError: op matmul: expected x (..., M, K)")
        assert result["kinds"] == [4 * 17 * (33 + 33 + 33), 0]
        assert result["sum"]
        assert result["left"] == 0
        assert "one that was closed" in result["closed"]
        assert "one that was closed" in result["ops closed"]
    assert results[0]["ids"] == results[1]["ids"]


@pytest.fixture
def lab_with_micropip(site: Site, shared: Callable[[str], Page]) -> Page:
    """Bascule is installed there as in a page of one's own."""
    page = shared(f"{site.url}/lab/?micropip")
    booted(page)
    return page


@pytest.mark.one_engine
def test_token_ids_equal_the_native_ones(engine: Engine, lab_with_micropip: Page) -> None:
    texts, expected = awkward()
    code = f"""
import json
from pyodide.http import pyfetch
from bascule.text import open_tokenizer
from bascule.text.encoder import EncoderTokenizer
data = await (await pyfetch("/models/all-MiniLM-L6-v2/tokenizer.json")).bytes()
plain = await open_tokenizer(data, 256)
ids = plain.encode(json.loads({json.dumps(json.dumps(texts))}))
decode = EncoderTokenizer(plain, 30_522).decode
json.dumps([ids, [decode(row) for row in ids], decode(ids[0], skip_special=False)])
"""
    result, decoded, whole = json.loads(lab_with_micropip.run("(code) => lab.run(code)", code))
    wrong = [t for t, a, b in zip(texts, result, expected, strict=True) if a != b]
    assert wrong == []
    data = (models_folder() / "all-MiniLM-L6-v2" / "tokenizer.json").read_bytes()
    native = NativeTokenizer.from_json(check_tokenizer(data, "tokenizer.json").json, 256)
    back = [native.decode(row, skip_special=True) for row in expected]
    assert [t for t, a, b in zip(texts, decoded, back, strict=True) if a != b] == []
    assert whole == native.decode(expected[0], skip_special=False)
    assert whole.startswith("[CLS]")


@pytest.mark.one_engine
def test_bad_tokenizer_files_are_told(engine: Engine, lab_with_micropip: Page) -> None:
    code = """
import json
from bascule.errors import BasculeError
from bascule.text import open_tokenizer
found = []
for data in (b"", b"[]", b"{}", b"\\xff", b'{"model": {"type": "x"}}'):
    try:
        await open_tokenizer(data, 16)
        found.append("none")
    except BasculeError as error:
        found.append(error.category)
json.dumps(found)
"""
    result = json.loads(lab_with_micropip.run("(code) => lab.run(code)", code))
    assert result == [*["model-file"] * 4, "unsupported-model"]
