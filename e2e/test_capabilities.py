"""What a page finds out about its browser, in all five set-ups, and where adapters tell little."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from bascule.machine.capabilities import Capabilities, from_facts
from bascule.machine.requirements import CapabilityRequirements, get_requirement_mismatch
from e2e.conftest import Site
from e2e.engines import Engine, Page, wait_for
from tests.goldens import cosines, golden

PROBE = "import bascule, json; json.dumps((await bascule.capabilities()).as_json())"

# What each engine has in a worker of an isolated page, as measured on these builds.
BLINK_AND_GECKO = {
    **dict.fromkeys(("jspi", "threads", "wasm_simd", "wasm_relaxed_simd"), True),
    **dict.fromkeys(("opfs", "opfs_sync", "indexeddb"), True),
}
WEBKIT_GTK = {
    **dict.fromkeys(("jspi", "wasm_relaxed_simd", "opfs", "opfs_sync"), False),
    **dict.fromkeys(("wasm_simd", "indexeddb"), True),
}
FLAGS = {"v8": BLINK_AND_GECKO, "spidermonkey": BLINK_AND_GECKO, "javascriptcore": WEBKIT_GTK}
ENGINES = {"chromium": "v8", "firefox": "spidermonkey", "webkit": "javascriptcore"}

# Stand-ins for adapters that are real elsewhere; the device behind each is this browser's own.
WRAP = """
import js
from pyodide.code import run_js
js.wrap = run_js('''(changed) => {
  const gpu = navigator.gpu;
  delete gpu.requestAdapter;
  const real = gpu.requestAdapter.bind(gpu);
  const hidden = { get: (adapter, name) => {
    if (name in changed) return changed[name];
    const value = adapter[name];
    return typeof value === "function" ? value.bind(adapter) : value;
  } };
  gpu.requestAdapter = async (options) => new Proxy(await real(options), hidden);
}''')
async def probed(changes):
    run_js(changes)
    return (await bascule.capabilities()).as_json()
"""
CHANGES = {
    "iphone": 'wrap({ info: { vendor: "apple", architecture: "apple-7", device: "", '
    'description: "" } })',
    "no info": "wrap({ info: undefined })",
    "odd info": "wrap({ info: { vendor: 5, description: null, subgroupMinSize: NaN, "
    'subgroupMaxSize: "many", isFallbackAdapter: "perhaps" } })',
    "no feature": "wrap({ features: new Set() })",
    "no device": 'wrap({ requestDevice: async () => { throw new Error("planned refusal"); } })',
    "throws": 'navigator.gpu.requestAdapter = () => { throw new Error("planned fault"); }',
    "hangs": "navigator.gpu.requestAdapter = () => new Promise(() => {})",
    "nothing": 'Object.defineProperty(navigator, "gpu", { value: undefined })',
}


@pytest.fixture
def page_to_probe(shared: Callable[[str], Page], site: Site) -> Page:
    """Nothing here needs numpy."""
    return shared(f"{site.url}/lab/?no-numpy")


def lab(page: Page, code: str = PROBE) -> Any:
    wait_for(page, "globalThis.lab")
    return json.loads(page.run("(code) => lab.run(code)", code))


@pytest.mark.every_engine
def test_the_record_of_each_set_up(engine: Engine, page_to_probe: Page) -> None:
    result = from_facts(lab(page_to_probe))
    print(engine.name, result.adapter_name, result.memory_budget_nbytes, dict(result.problems))
    assert result.host == "page"
    assert result.engine == ENGINES[engine.name.split("-")[0]]
    for name, value in FLAGS[result.engine].items():
        assert getattr(result, name) is value, name
    assert result.threads is not None
    assert (result.n_cores or 0) >= 1
    assert result.webnn == frozenset()
    assert result.problems["webnn"]
    assert {"bascule", "python", "pyodide"} <= set(result.versions)
    _check_memory(result)
    _check_adapter(result, engine)


def _check_memory(found: Capabilities) -> None:
    if found.engine == "v8":  # the others tell a page nothing
        assert found.device_memory_nbytes
        assert found.memory_budget_nbytes == found.device_memory_nbytes // 2
    else:
        assert found.device_memory_nbytes is None
        assert found.memory_budget_nbytes == 1 << 30


def _check_adapter(found: Capabilities, engine: Engine) -> None:
    if not engine.webgpu:
        assert not found.has_adapter
        assert found.dispatch is None
        assert "navigator.gpu" in found.problems["webgpu"] or "adapter" in found.problems["webgpu"]
        return
    assert found.dispatch is True
    assert found.features is not None
    assert found.limits is not None
    assert found.software
    assert found.is_fallback_adapter
    assert ("subgroups" in found.features) == (found.engine == "v8")
    assert ("shader-f16" in found.features) == (found.engine == "spidermonkey")
    assert found.limits["maxStorageBufferBindingSize"] >= 128 << 20
    assert found.wgsl_features
    needed = CapabilityRequirements(neural_network_support=True, hardware_adapter=True)
    [software] = get_requirement_mismatch(found, needed)
    assert software.capability == "hardware_adapter"


@pytest.mark.one_engine
def test_without_isolation_there_are_no_threads(
    engine: Engine, plain_site: Site, new_page: Callable[[str], Page]
) -> None:
    result = from_facts(lab(new_page(f"{plain_site.url}/lab/?no-numpy")))
    assert result.threads is False
    needed = CapabilityRequirements(needs=frozenset({"threads"}))
    [threads] = get_requirement_mismatch(result, needed)
    assert "Cross-Origin-Opener-Policy" in threads.hint


def test_the_browsers_name_changes_nothing(page_to_probe: Page) -> None:
    before = from_facts(lab(page_to_probe))
    disguised = f"""
from pyodide.code import run_js
run_js('''Object.defineProperty(
  navigator, "userAgent", {{ value: "iPhone Version/17.0 Safari", configurable: true }})''')
{PROBE}"""
    after = from_facts(lab(page_to_probe, disguised))
    lab(page_to_probe, "run_js('delete navigator.userAgent'); '0'")
    assert after.build == "iPhone Version/17.0 Safari"
    assert replace(after, build="", storage_quota_nbytes=None) == replace(
        before, build="", storage_quota_nbytes=None
    )
    assert after.identity != before.identity


@pytest.mark.one_engine
def test_adapters_that_tell_little(
    webgpu_engine: Engine, site: Site, new_page: Callable[[str], Page]
) -> None:
    changes = json.dumps(json.dumps(CHANGES))
    code = f"import bascule, json\n{WRAP}\nchanges = json.loads({changes})\n"
    code += "json.dumps({name: await probed(change) for name, change in changes.items()})"
    result = lab(new_page(f"{site.url}/lab/?no-numpy"), code)
    results = {name: from_facts(facts) for name, facts in result.items()}
    for name in ("iphone", "no info", "odd info", "no feature"):
        assert results[name].dispatch is True, results[name].problems
    for name in ("iphone", "no info", "odd info"):
        assert results[name].subgroup_min_size is None
        assert results[name].subgroup_max_size is None
        size = CapabilityRequirements(subgroup_size=32)
        assert [m.capability for m in get_requirement_mismatch(results[name], size)]
    assert results["iphone"].adapter_name == "apple apple-7"
    assert results["iphone"].software is False
    assert results["no info"].adapter_name == "GPU"
    assert results["odd info"].vendor is None
    assert results["odd info"].is_fallback_adapter is None
    assert results["no feature"].features == frozenset()
    assert results["no device"].dispatch is False
    assert "planned refusal" in results["no device"].problems["dispatch"]
    for name, why in {"throws": "planned fault", "hangs": "no answer", "nothing": "this"}.items():
        assert not results[name].has_adapter
        assert results[name].dispatch is None
        assert why in results[name].problems["webgpu"]


def test_a_page_that_forbids_the_bridge_still_gets_a_record(
    engine: Engine, site: Site, new_page: Callable[[str], Page]
) -> None:
    # WebKit never says that there is no such file: it is waited for, in the end.
    code = "import bascule.machine.capabilities_browser as facts\nfacts._LIMIT_S = 2.0\n"
    code += f"import js\njs.URL.createObjectURL = lambda _: 'blob:nothing/here'\n{PROBE}"
    result = from_facts(lab(new_page(f"{site.url}/lab/?no-numpy"), code))
    assert result.host == "page"
    assert result.problems["webgpu"]
    assert result.memory_budget_nbytes == 1 << 30


WITHOUT_NUMPY = """
import importlib.util, json, bascule

async def embed(folder, tier, texts):
    async with await bascule.load(folder, tier=tier) as model:
        rows = (await model.embed_rows(texts)).rows
        found = [model.tier, model.dimension, rows.tolist(), list(model.proof.steps)]
    return json.dumps([*found, bool(importlib.util.find_spec("numpy"))])
"""


@pytest.mark.webgpu_engines
def test_a_pyodide_without_numpy_embeds(
    engine: Engine, site: Site, new_page: Callable[[str], Page]
) -> None:
    """Pyodide 314 from npm has no numpy: the dispatch, WebAssembly and WebGPU do without."""
    page = new_page(f"{site.url}/lab/?pyodide=/pyodide314/")
    facts = from_facts(lab(page))
    assert facts.has_adapter == engine.webgpu
    assert facts.dispatch is (True if engine.webgpu else None)
    assert facts.versions["pyodide"].startswith("314")
    tiers = ("wasm", "webgpu") if engine.webgpu else ("wasm",)
    cases = [("/goldens/tiny-bert", "tiny-bert", tier) for tier in tiers]
    if engine.name.startswith("chromium"):  # a whole model, in one engine
        cases.append(("all-MiniLM-L6-v2", "minilm", "wasm"))
    for folder, name, tier in cases:
        expected = golden(name)
        call = f"await embed({folder!r}, {tier!r}, {expected.texts!r})"
        found_tier, columns, rows, steps, has_numpy = lab(page, f"{WITHOUT_NUMPY}\n{call}")
        assert found_tier == tier
        assert not has_numpy
        assert (cosines(np.reshape(rows, (-1, columns)), expected.embeddings) >= 0.99999).all()
        assert any("numpy is not installed" in step for step in steps) == (tier == "webgpu")


def test_on_the_pages_own_thread(page_to_probe: Page) -> None:
    """Where no handle may block, and where a test that is too slow is told."""
    page = page_to_probe
    probe = """async (limitMs) => {
      const { probe } = await import("/bridge/probe.js");
      return probe(await import("/bridge/device.js"), limitMs);
    }"""
    result = from_facts(json.loads(page.run(probe, 5000)))
    assert result.opfs_sync is False
    assert result.indexeddb is True
    silent = f"""async (limitMs) => {{
      const {{ open }} = IDBFactory.prototype;
      IDBFactory.prototype.open = () => new EventTarget();
      return ({probe})(limitMs).finally(() => Object.assign(IDBFactory.prototype, {{ open }}));
    }}"""
    hurried = from_facts(json.loads(page.run(silent, 300)))
    assert hurried.indexeddb is False
    assert "within 300 ms" in hurried.problems["indexeddb"]
    assert hurried.wasm_simd == result.wasm_simd


WAITED = """
import asyncio
import json

import bascule
from bascule.errors import SetupError

async def five():
    await asyncio.sleep(0)
    return 5

def waited():
    try:
        return bascule.sync(five())
    except SetupError as error:
        return error.hint

missing = bascule.HardwareCompatibilityReporter().check_components()
json.dumps([waited(), waited(), [each.component for each in missing]])
"""


def test_plain_code_waits_or_says_what_to_write(page_to_probe: Page) -> None:
    """Python that began from a snapshot says that it can wait, and on some Pyodides cannot."""
    first, second, missing = lab(page_to_probe, WAITED)
    assert first == second
    assert first in (5, "Write `await` instead of sync().")
    assert set(missing) <= {"numpy"}  # it comes when it is used
