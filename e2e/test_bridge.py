"""The driver waist in real pages: every verb, its faults, what it leaves behind; also on a Pyodide
that has no numpy."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from e2e.conftest import Site, booted
from e2e.engines import Engine, Page
from tests.goldens import awkward

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
    found = lab(
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
gpu.destroy()
faults["lost"] = await told(lambda: rig.replay(1.0))
json.dumps({
  "ok": [list(first) == [2 * i + 0.5 for i in range(N)],
         list(before) == [3 * i + 0.5 for i in range(N)], list(after) == list(first)],
  "faults": faults, "numpy": "numpy" in sys.modules, "name": gpu.adapter.name,
  "software": gpu.adapter.software, "features": sorted(gpu.adapter.features),
})
"""
    )
    print(found["name"], "software" if found["software"] else "", found["features"])
    assert found["ok"] == [True, True, True]
    assert not found["numpy"]
    faults = found["faults"]
    assert faults["shader"][0] == "ShaderError"
    assert faults["shader"][2] == 8
    assert "bad.wgsl:8" in faults["shader"][1]
    for name in ("stale", "reused", "never"):
        assert faults[name][0] == "GpuError", name
        assert "named" in faults[name][1]
    assert faults["size"][0] == faults["negative"][0] == faults["range"][0] == "GpuError"
    assert faults["short"][0] == "GpuError"
    assert "record" in faults["short"][1]
    assert faults["lost"][0] == "DeviceLostError"


def test_a_thousand_replays_leave_nothing_behind(lab: Callable[[str], Any]) -> None:
    found = lab(
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
    print(f"Python time of a replay: {found['us']:.1f} us")
    assert found["crossed"] == 1000
    assert found["after"] == found["before"]


@pytest.fixture
def lab_with_micropip(site: Site, shared: Callable[[str], Page]) -> Page:
    """Bascule is installed there as in a page of one's own."""
    page = shared(f"{site.url}/lab/?micropip")
    booted(page)
    return page


def test_token_ids_equal_the_native_ones(engine: Engine, lab_with_micropip: Page) -> None:
    texts, expected = awkward()
    code = f"""
import json
from pyodide.http import pyfetch
from bascule.text import open_tokenizer
data = await (await pyfetch("/models/all-MiniLM-L6-v2/tokenizer.json")).bytes()
json.dumps((await open_tokenizer(data, 256)).encode(json.loads({json.dumps(json.dumps(texts))})))
"""
    found = json.loads(lab_with_micropip.run("(code) => lab.run(code)", code))
    wrong = [t for t, a, b in zip(texts, found, expected, strict=True) if a != b]
    assert wrong == []


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
    found = json.loads(lab_with_micropip.run("(code) => lab.run(code)", code))
    assert found == [*["model-file"] * 4, "unsupported-model"]
