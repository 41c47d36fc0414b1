"""The WebNN tier: refused in the browser's own words, and what the bridge does where it is there.

No browser on our machines makes a context; the last test has a navigator.ml of the tests' own.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from typing import Any

import pytest
from playwright.sync_api import Playwright

from e2e.conftest import Site, settled
from e2e.engines import Engine, Page, PlaywrightTab, wait_for

SHOWN = """() => ({
  what: document.querySelector('#error-what').textContent,
  hint: document.querySelector('#error-hint').textContent,
  category: document.querySelector('#error-category').textContent,
})"""
LOAD = "async (tier) => bascule.load('/goldens/tiny-bert', tier)"


def refused_by_name_and_passed_over_by_auto(page: Page, site: Site, words: str) -> None:
    page.open(f"{site.url}/?tier=webnn&model=/goldens/tiny-bert")
    assert settled(page) == "error"
    shown = page.run(SHOWN)
    print(shown["what"])
    assert shown["category"] == "tier-unavailable"
    assert "'webnn' is not available" in shown["what"]
    assert words in shown["what"]
    assert 'tier="auto"' in shown["hint"]

    decision = page.run(LOAD, "auto")["decision"]
    [webnn] = [row for row in decision["considered"] if row["tier"] == "webnn"]
    assert words in webnn["refused"]
    assert decision["chosen"] not in (None, "webnn")


@pytest.mark.one_engine
def test_without_webnn_the_tier_says_so_and_auto_goes_on(
    engine: Engine, site: Site, new_page: Callable[[str], Page]
) -> None:
    page = new_page("about:blank")
    refused_by_name_and_passed_over_by_auto(page, site, "this browser has no navigator.ml")


def test_with_webnn_switched_on_the_platform_has_the_word(
    playwright: Playwright, site: Site
) -> None:
    """Chromium has navigator.ml then, and makes no context on this system."""
    flags = ["--enable-features=WebMachineLearningNeuralNetwork"]
    flags += ["--no-sandbox"] if os.geteuid() == 0 else []
    chromium = shutil.which("chromium")
    browser = playwright.chromium.launch(executable_path=chromium, args=flags)
    try:
        page = PlaywrightTab(browser.new_context().new_page())
        refused_by_name_and_passed_over_by_auto(page, site, "not supported")
        result = page.run("() => navigator.ml.createContext().then(() => '', (e) => e.message)")
        assert result.rstrip(".") in page.run("() => document.querySelector('#reason').textContent")
    finally:
        browser.close()


ENCODER = """
import json
import numpy as np
from pyodide.code import run_js
from bascule.backend.cpu import ReferenceBackend
from bascule.tasks.sentence_graph import Encoder, sentence_encoder
from bascule.models.bert import BERT
from bascule.models.encoder.config import EncoderConfig
from bascule.program.compile import freeze
from bascule.program.program import Dim
from bascule.choosing.openers import open_named

(await run_js("import('/lab/ml.js')")).install()
rng = np.random.default_rng(SEED)
def encoder(activation):
    config = EncoderConfig(vocabulary=40, hidden=12, layers=2, heads=3, inner=20, positions=16,
                        activation=activation, eps=1e-12)
    batch, tokens = Dim("B", 4), Dim("T", 8)
    return freeze(sentence_encoder(Encoder(BERT, config), batch, tokens))

weights = {p.name: rng.standard_normal(p.shape).astype(np.float32)
           for p in encoder("gelu").parameters}
inputs = {"ids": rng.integers(0, 45, (3, 7), dtype=np.uint32), "lengths": np.array([7, 1, 4], "u4")}

async def results(backend, activation="gelu"):
    program = encoder(activation)
    store = backend.store(program.parameters)
    for name, array in weights.items():
        store.write(store.targets[name], 0, array)
    executable = await backend.prepare(program, store)
    found = [await executable.run(sizes, inputs) for _ in range(2)]
    executable.close()
    return [next(iter(values.values())).astype(float) for values in found]

webnn = await open_named("webnn")
sizes = {"B": 3, "T": 7}
found = {"device": webnn.device_name, "errors": [], "same": []}
for activation in ("gelu", "silu", "relu"):
    expected, _ = await results(ReferenceBackend(), activation)
    once, again = await results(webnn, activation)
    found["errors"].append(float(np.abs(once - expected).max()))
    found["same"].append(bool((once == again).all()))
found["graphs"] = webnn.stats["graphs"]
try:
    weights["token_type_0"] = np.full(12, np.nan, np.float32)
    found["nan"] = bool(np.isnan((await results(webnn))[0]).all())
    run_js("navigator.ml.contexts.at(-1).createTensor = async () => { throw new Error('planned') }")
    await results(webnn)
except Exception as error:
    found["told"] = f"{type(error).__name__}: {error}"
run_js("navigator.ml.contexts.at(-1).lose({ message: 'planned loss' })")
await run_js("Promise.resolve()")
found["lost"] = webnn.lost
webnn.close()
json.dumps(found)
"""


@pytest.mark.one_engine
def test_the_bridge_computes_on_a_navigator_ml(
    engine: Engine, site: Site, new_page: Callable[[str], Page]
) -> None:
    page = new_page(f"{site.url}/lab/")
    wait_for(page, "globalThis.lab")
    seed = int.from_bytes(os.urandom(4))
    code = ENCODER.replace("SEED", str(seed))
    result: dict[str, Any] = json.loads(page.run("(code) => lab.run(code)", code))
    print(engine.name, seed, result)
    assert result["device"] == "navigator.ml, cpu"
    assert all(error < 5e-6 for error in result["errors"])  # rows of length 1; NaN fails
    assert result["same"] == [True] * 3
    assert result["graphs"] == 0
    assert result["nan"]
    assert result["told"] == (
        "WebNnError: WebNN could not build a graph: planned. "
        'Use another tier: tier="auto" takes the best that works here.'
    )
    assert result["lost"] == "planned loss"
