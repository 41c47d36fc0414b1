"""An adapter with Safari's limits, which are enforced: what it shows, refuses and still answers."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from bascule.backend.adapter import DEFAULT_LIMITS
from e2e.conftest import Site, check_embeddings
from e2e.engines import Engine, Page, wait_for
from e2e.limited_adapter import limited
from e2e.test_matrix import embed
from tests.goldens import cosines, golden

MIB = 1 << 20
TIERS = ("webgpu", "webgpu-limited")
MODEL = "/goldens/tiny-bert"
SHOWN = """
import bascule, json
told = (await bascule.capabilities()).as_json()
found = {"adapter": {"features": told["features"], "limits": told["limits"]}}
for tier in ("webgpu", "webgpu-limited"):
    backend = (await bascule.open_device(tier)).backend
    adapter = backend.gpu.adapter
    found[tier] = {
        "tier": backend.tier, "features": sorted(adapter.features), "limits": dict(adapter.limits)
    }
    backend.close()
json.dumps(found)
"""
# Each of these in turn; what came of it in words.
REFUSED = """
import json
from pyodide.code import run_js
json.dumps((await run_js('''(async () => {
  const told = {};
  const adapter = await navigator.gpu.requestAdapter();
  const asked = async (wanted) => {
    try { await adapter.requestDevice(wanted); return "granted"; }
    catch (error) { return error.name; }
  };
  told.feature = await asked({ requiredFeatures: ["shader-f16"] });
  const large = adapter.limits.maxBufferSize + 4;
  told.limit = await asked({ requiredLimits: { maxBufferSize: large } });
  const { maxBufferSize, maxStorageBufferBindingSize } = adapter.limits;
  const device = await (await navigator.gpu.requestAdapter()).requestDevice({
    requiredLimits: { maxBufferSize, maxStorageBufferBindingSize },
  });
  const uncaptured = [];
  device.addEventListener("uncapturederror", (event) => uncaptured.push(event.error.message));
  const scoped = async (work) => {
    device.pushErrorScope("validation");
    const made = await work();
    const error = await device.popErrorScope();
    told.kind ??= error?.constructor.name;
    return [made, error?.message ?? "fine"];
  };
  const usage = GPUBufferUsage.STORAGE;
  const entry = { binding: 0, visibility: GPUShaderStage.COMPUTE, buffer: { type: "storage" } };
  const layout = device.createBindGroupLayout({ entries: [entry] });
  const bind = (buffer, size) =>
    device.createBindGroup({ layout, entries: [{ binding: 0, resource: { buffer, size } }] });
  [, told.buffer] = await scoped(() => device.createBuffer({ size: large, usage }));
  const whole = device.createBuffer({ size: maxStorageBufferBindingSize + 256, usage });
  [, told.fits] = await scoped(() => bind(whole, maxStorageBufferBindingSize));
  [, told.binding] = await scoped(() => bind(whole));
  const compute = async (code) => {
    const module = device.createShaderModule({ code });
    const compute = { module, entryPoint: "main" };
    try { await device.createComputePipelineAsync({ layout: "auto", compute }); return "made"; }
    catch { return "refused"; }
  };
  const memory = (words) =>
    `var<workgroup> a: array<u32, ${words}>; @compute @workgroup_size(1) fn main() { a[0] = 1u; }`;
  [told.memory] = await scoped(() => compute(memory(4096)));
  [told.more_memory] = await scoped(() => compute(memory(4096 + 4)));
  const halves = "enable f16; @compute @workgroup_size(1) fn main() { let a = 1h; }";
  [told.halves] = await scoped(() => compute(halves));
  const outer = await scoped(async () => {
    const used = bind(whole);
    const code = "@group(0) @binding(0) var<storage, read_write> a: array<u32>; " +
      "@compute @workgroup_size(1) fn main() { a[0] = 1u; }";
    const compute = { module: device.createShaderModule({ code }), entryPoint: "main" };
    const all = device.createPipelineLayout({ bindGroupLayouts: [layout] });
    const pipeline = device.createComputePipeline({ layout: all, compute });
    device.pushErrorScope("validation");
    const encoder = device.createCommandEncoder();
    const run = encoder.beginComputePass();
    run.setPipeline(pipeline); run.setBindGroup(0, used); run.dispatchWorkgroups(1); run.end();
    device.queue.submit([encoder.finish()]);
    told.dispatch = (await device.popErrorScope()) ? "refused" : "ran";
  });
  told.outer = outer[1];
  bind(whole);
  await device.queue.onSubmittedWorkDone();
  told.uncaptured = uncaptured;
  device.destroy();
  return told;
})()''')).to_py())
"""


def lab(page: Page, code: str) -> Any:
    wait_for(page, "globalThis.lab")
    return json.loads(page.run("(code) => lab.run(code)", code))


def load(page: Page, tier: str, model: str = MODEL) -> dict[str, Any]:
    """Load the model; what came of it, or the error's words."""
    wait_for(page, "globalThis.bascule")
    return page.run(
        """async ([model, tier]) => {
          try { return await bascule.load(model, tier); }
          catch (error) { return { category: error.category, what: error.what }; }
        }""",
        [model, tier],
    )


def test_what_it_shows(webgpu_engine: Engine, site: Site, new_page: Callable[[str], Page]) -> None:
    page = new_page(f"{site.url}/{limited(buffer_nbytes=200 * MIB)}/lab/?no-numpy")
    output = lab(page, SHOWN)
    assert output["webgpu"]["tier"] == "webgpu"
    assert output["webgpu-limited"]["tier"] == "webgpu-limited"
    assert output["webgpu-limited"]["features"] == []
    for name, result in output.items():
        assert not {"shader-f16", "subgroups"} & set(result["features"]), name
        assert result["limits"]["maxBufferSize"] == 200 * MIB, name
        assert result["limits"]["maxStorageBufferBindingSize"] == 128 * MIB, name
        assert result["limits"]["maxComputeWorkgroupStorageSize"] == 16 << 10, name
    minimum = output["webgpu-limited"]["limits"]
    expected = {name: DEFAULT_LIMITS[name] for name in minimum} | {"maxBufferSize": 200 * MIB}
    assert minimum == expected
    check_refused(lab(page, REFUSED), 128 * MIB, 200 * MIB)


def test_what_it_refuses(
    webgpu_engine: Engine, site: Site, new_page: Callable[[str], Page]
) -> None:
    page = new_page(f"{site.url}/{limited(binding_nbytes=64 << 10)}/lab/?no-numpy")
    check_refused(lab(page, REFUSED), 64 << 10, 256 * MIB)


def check_refused(told: dict[str, Any], binding_nbytes: int, buffer_nbytes: int) -> None:
    print(told)
    assert (told["feature"], told["limit"]) == ("TypeError", "OperationError")
    assert told["kind"] == "GPUValidationError"
    assert f"{buffer_nbytes + 4}" in told["buffer"]
    assert told["fits"] == "fine"
    for name in ("binding", "outer"):
        assert f"maxStorageBufferBindingSize is {binding_nbytes}" in told[name]
    assert (told["memory"], told["more_memory"]) == ("made", "refused")
    assert (told["halves"], told["dispatch"]) == ("refused", "refused")
    assert len(told["uncaptured"]) == 1
    assert "maxStorageBufferBindingSize" in told["uncaptured"][0]


@pytest.mark.parametrize("tier", TIERS)
def test_a_model_answers_on_it(
    webgpu_engine: Engine, site: Site, shared: Callable[[str], Page], tier: str
) -> None:
    page = shared(f"{site.url}/{limited()}/?model={MODEL}&tier={TIERS[0]}")
    loaded = load(page, tier)
    assert loaded.get("tier") == tier, loaded
    check_embeddings(page)


@pytest.mark.one_engine
def test_an_adapter_of_compatibility_mode_serves_the_limited_tier_alone(
    webgpu_engine: Engine, site: Site, new_page: Callable[[str], Page]
) -> None:
    page = new_page(f"{site.url}/{limited(answer='compatibility')}/?model={MODEL}&tier=wasm")
    refused = load(page, "webgpu")
    assert refused["category"] == "tier-unavailable"
    assert "found no adapter" in refused["what"]
    loaded = load(page, "webgpu-limited")
    assert loaded.get("tier") == "webgpu-limited", loaded
    check_embeddings(page)


@pytest.mark.parametrize("tier", TIERS)
@pytest.mark.one_engine
def test_a_table_past_the_binding_limit_is_cut(
    webgpu_engine: Engine, site: Site, shared: Callable[[str], Page], tier: str
) -> None:
    """MiniLM's table of words has 46.9 MB."""
    page = shared(f"{site.url}/{limited(binding_nbytes=16 * MIB)}/?model={MODEL}&tier=wasm")
    loaded = load(page, tier, "all-MiniLM-L6-v2")
    assert loaded.get("tier") == tier, loaded
    assert "fallbacks taken: chunked_embedding" in loaded["reason"]
    expected = golden("minilm")
    short = [i for i, ids in enumerate(expected.ids) if len(ids) <= 17][:8]
    result = embed(page, [expected.texts[i] for i in short])
    assert (cosines(result, expected.embeddings[short]) >= 0.99999).all()


@pytest.mark.one_engine
def test_a_limit_that_no_cut_keeps_is_told(
    webgpu_engine: Engine, site: Site, new_page: Callable[[str], Page]
) -> None:
    page = new_page(f"{site.url}/{limited(binding_nbytes=4 << 10)}/?model={MODEL}&tier=wasm")
    refused = load(page, "webgpu")
    assert refused.get("category") == "limit", refused
    assert "4,096" in refused["what"]
