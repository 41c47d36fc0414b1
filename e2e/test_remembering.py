"""What a page learns stays: a second visit asks for its files and makes its pipelines before Python
is up, retries no failure, tunes nothing twice; what is wrong with IndexedDB costs speed only."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from e2e.conftest import Site, settled
from e2e.engines import Engine, Page, wait_for, wait_until
from tests.goldens import TINY_BERT, cosines, golden
from tests.goldens.classifiers import ANSWERS, CLASSIFIERS, QUERY, classifier_golden
from tests.goldens.families import build as build_classifier
from tests.weights.faulty import FaultyServer

TINY = "/goldens/tiny-bert"

EMBED = """async (texts) => {
  const { data, rows, columns } = await bascule.embed(texts);
  return Array.from({ length: rows }, (_, r) => [...data.slice(r * columns, (r + 1) * columns)]);
}"""


def visit(
    page: Page,
    site: Site,
    model: str = TINY,
    before_python: Callable[[], object] = lambda: None,
    tier: str = "webgpu",
) -> dict[str, Any]:
    """Load the model, embed the golden texts, check them, and give the statistics.

    Python does not start before `before_python` has ended.
    """
    expected = golden("tiny-bert")
    site.faults.wheel_held = True
    try:
        page.open(f"{site.url}/?model={model}&tier={tier}")
        before_python()
    finally:
        site.faults.wheel_held = False
    assert settled(page) == "ready"
    result = page.run(EMBED, expected.texts)
    assert (cosines(result, expected.embeddings) >= 0.99999).all()
    return page.run("() => bascule.stats()")


LOADS = """() => new Promise((done, fail) => {
  const opening = indexedDB.open("bascule");
  opening.onerror = () => fail(opening.error);
  opening.onsuccess = () => {
    const database = opening.result;
    const asking = database.transaction("entries").objectStore("entries").get("loads");
    asking.onsuccess = () => { database.close(); done(JSON.parse(asking.result.json).loads); };
  };
})"""


# Nobody awaits it: a tokenizer is written while a model loads on.
TOKENIZER_KEPT = """await new Promise((done, fail) => {
  const opening = indexedDB.open("bascule");
  opening.onerror = () => fail(opening.error);
  opening.onsuccess = () => {
    const database = opening.result;
    const asking = database.transaction("entries").objectStore("entries").getAllKeys();
    asking.onsuccess = () => {
      database.close();
      done(asking.result.some((key) => key.startsWith("tokenizer ")));
    };
  };
})"""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[FaultyServer]:
    """Another origin, with a copy of the model."""
    shutil.copytree(TINY_BERT, tmp_path / "m")
    with FaultyServer(tmp_path) as result:
        yield result


def test_a_second_visit_asks_for_files_and_makes_pipelines_before_python(
    webgpu_engine: Engine, site: Site, new_page: Callable[[str], Page], server: FaultyServer
) -> None:
    page = new_page("about:blank")
    weights, model = "/m/model.safetensors", f"{server.url}/m"

    def asked(method: str) -> list[str]:
        return sorted(each.path for each in server.requests if each.method == method)

    first = visit(page, site, model)
    files = sorted({each.path for each in server.requests})
    assert {f"/m/{name}" for name in ("config.json", "tokenizer.json")} | {weights} < {*files}
    server.reset_counts()
    second = visit(page, site, model, lambda: wait_until(lambda: asked("HEAD") == files))
    # Each was asked for its version once, of none came a byte, and Python asked for nothing again.
    assert (asked("HEAD"), asked("GET")) == (files, [])
    taken = page.run("(model) => bascule.load(model, 'auto')", model)["tier"]
    page.run("() => bascule.cache('ls')")  # once the load is remembered
    server.reset_counts()
    server.replace(weights.removeprefix("/"), (TINY_BERT / "model.safetensors").read_bytes())
    changed = partial(wait_until, lambda: asked("GET") == [weights])
    third = visit(page, site, model, changed, tier="auto")
    assert (asked("HEAD"), asked("GET")) == (files, [weights])
    for name, stats in (("first", first), ("second", second), ("third", third)):
        result = {k: round(stats[k], 1) for k in ("early_made", "early_ms", "device_ms", "load_ms")}
        print(f"{webgpu_engine.name}, {name} visit: {result}")
    assert first["early_listed"] == first["early_made"] == first["pipelines_early"] == 0
    assert second["early_listed"] == second["early_made"] == 8
    # All of the model's were there; the tier's own probe is no model's.
    assert second["pipelines_early"] == 8
    assert second["pipelines"] == first["pipelines"] == 9
    assert second["pipeline_retries_of_failed"] == 0
    assert [stats["early_fetcher"] for stats in (first, second, third)] == [1, 1, 1]
    assert [stats["early_tokenizer"] for stats in (first, second, third)] == [0, 1, 1]
    # No device is opened in vain.
    devices = [stats["early_device"] for stats in (first, second, third)]
    assert devices == [0, 1, int(taken == "webgpu")]
    # What is removed from the cache is not asked for again on the next visit.
    page.run("() => bascule.cache('ls')")
    (row,) = page.run(LOADS)
    assert [f"/m/{name}" for name in sorted([*row["small"], *row["large"]])] == [
        name for name in files if not name.endswith("bascule-manifest.json")
    ]
    page.run("(urls) => bascule.cache('rm', urls)", [f"{server.url}{weights}"])
    assert page.run(LOADS) == []


CHAT = """async () => (await bascule.chat([{ role: "user", content: "w4 w5" }],
  { temperature: 0, max_new_tokens: 6 })).text"""
# Python waits for no tokenizer that is still being made: on a busy machine it comes too late.
MAX_VISITS = 4
RANK = "({ query, texts }) => bascule.rank(query, texts)"


def test_a_rerankers_tokenizer_is_made_before_python_asks(
    engine: Engine, site: Site, new_page: Callable[[str], Page], tmp_path: Path
) -> None:
    case = CLASSIFIERS[0]
    build_classifier(case, tmp_path / "m")
    expected = classifier_golden(case.name)["scores"][: len(ANSWERS)]
    page, rankings, early = new_page("about:blank"), [], []
    with FaultyServer(tmp_path) as server:
        while len(early) < MAX_VISITS and 1 not in early:
            server.reset_counts()
            # WebKit's driver forgets an origin with its last page without a service worker.
            page.open(f"{site.offline_url}/?model={server.url}/m&tier=wasm")
            wait_for(page, "globalThis.bascule && (await bascule.stats()).load_ms > 0")
            page.run("() => bascule.offline")
            page.run("() => bascule.cache('ls')")  # once the load is remembered
            wait_for(page, TOKENIZER_KEPT)
            rankings.append(page.run(RANK, {"query": QUERY, "texts": ANSWERS}))
            early.append(page.run("() => bascule.stats()")["early_tokenizer"])
        read = [each.path for each in server.requests if each.method == "GET"]
    assert (early[0], early[-1], read) == (0, 1, []), (engine.name, early)
    assert all(ranking == rankings[0] for ranking in rankings)
    assert np.abs(np.array(rankings[-1]["scores"]) - expected).max() < 1e-4


def test_a_chats_tokenizer_is_made_before_python_asks(
    engine: Engine, site: Site, new_page: Callable[[str], Page]
) -> None:
    page, answers, early = new_page("about:blank"), [], []
    while len(early) < MAX_VISITS and 1 not in early:
        # WebKit's driver forgets an origin with its last page without a service worker.
        page.open(f"{site.offline_url}/chat.html?model=/goldens/tiny-llama/tiny-k.gguf&tier=wasm")
        wait_for(page, "globalThis.bascule && (await bascule.stats()).load_ms > 0")
        page.run("() => bascule.offline")
        page.run("() => bascule.cache('ls')")  # once the load is remembered
        wait_for(page, TOKENIZER_KEPT)
        answers.append(page.run(CHAT))
        early.append(page.run("() => bascule.stats()")["early_tokenizer"])
    assert (early[0], early[-1]) == (0, 1), (engine.name, early)
    assert {*answers} == {answers[0]} != {""}


@pytest.mark.one_engine
def test_tuning_in_the_page_is_kept_and_not_repeated(
    webgpu_engine: Engine, site: Site, new_page: Callable[[str], Page]
) -> None:
    page = new_page("about:blank")
    visit(page, site)
    page.run("() => { globalThis.long = bascule.tune(600).catch((e) => e.category); }")
    wait_for(page, "globalThis.long")
    page.run("() => new Promise((done) => setTimeout(done, 1500))")
    page.run("() => bascule.cancel()")
    assert page.run("() => long") == "cancelled"
    kept = page.run("() => bascule.stats()")["signatures_tuned"]
    report = page.run("() => bascule.tune(5)")
    assert report["known"] == kept
    assert report["wrong"] == []
    assert report["findings"]
    for result in report["findings"]:
        print(result["signature"], result["chosen"], round(result["gain"], 2))
        assert result["chosen"] == result["default"] or result["gain"] > 1.05
    count = kept + len(report["findings"])
    stats = visit(page, site)
    assert stats["signatures_tuned"] == count
    # The list for the early start holds what was chosen.
    assert stats["pipelines_early"] == stats["early_listed"] >= 8
    again = page.run("() => bascule.tune(0.001)")
    assert again["known"] == count
    assert again["findings"] == []


PLANTED = r"""
import json
from dataclasses import replace
from bascule.backend.webgpu import kernels
from bascule.program.compile import freeze
from bascule.program.graph import Graph
from bascule.choosing.auto import open_tier
real = kernels._ROWS["linear"]
def row(call, adapter):
    makers = list(real(call, adapter))
    default = makers[0]
    def make():
        k = default()
        linked = replace(k.linked, wgsl=k.wgsl + "\nfn planted() -> u32 { return 1.5; }")
        return replace(k, linked=linked, variant="planted", key=("planted",))
    return [make, *makers]
kernels._ROWS["linear"] = row
graph = Graph("g")
x, w = graph.input("x", (8, 8)), graph.input("w", (8, 8))
graph.output(graph.call("linear", x, w, activation="none"))
backend = (await open_tier("webgpu")).backend
executable = await backend.prepare(freeze(graph), backend.store(()))
ones = __import__("numpy").ones((8, 8), "f4")
found = await executable.run({}, {"x": ones, "w": ones})
json.dumps([backend.stats, next(iter(found.values())).tolist(),
            [f.messages for f in backend.choices.failed.values()]])
"""


def test_a_variant_that_fails_is_tried_on_the_first_visit_only(
    webgpu_engine: Engine, site: Site, new_page: Callable[[str], Page]
) -> None:
    page = new_page("about:blank")
    failed: list[int] = []
    for _ in range(2):
        page.open(f"{site.url}/lab/")
        wait_for(page, "globalThis.lab")
        stats, sums, messages = json.loads(page.run("(code) => lab.run(code)", PLANTED))
        assert sums == [[8.0] * 8] * 8
        assert stats["pipeline_retries_of_failed"] == 0
        assert stats["variants_known_failed"] == 1
        assert messages[0][0][1]  # the compiler's own words
        failed.append(stats["pipelines_failed"])
    assert failed == [1, 0]


FAULTS = r"""
import json, time, warnings
from pyodide.code import run_js
from bascule.base.remembered import open_remembered
run_js('''
globalThis.warned = 0;
console.warn = () => { globalThis.warned += 1; };
globalThis.real = indexedDB;
globalThis.plant = (value) => Object.defineProperty(
  globalThis, "indexedDB", { value, configurable: true, writable: true });
globalThis.raw = (version, work) => new Promise((resolve, reject) => {
  const request = real.open("bascule", version);
  request.onupgradeneeded = () => { if (version > 1) request.result.createObjectStore("alien"); };
  request.onerror = () => reject(request.error);
  request.onsuccess = () => { const d = request.result; work(d, () => { d.close(); resolve(); }); };
});
globalThis.gone = () => new Promise((resolve) => {
  const request = real.deleteDatabase("bascule");
  request.onsuccess = request.onerror = request.onblocked = () => resolve();
});
''')
found = {}
async def trial(name, setup, spoil=""):
    run_js("globalThis.warned = 0; globalThis.basculeRememberedWarned = false; plant(real)")
    await run_js("(async () => {" + setup + "})()")
    began = time.perf_counter()
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        store = await open_remembered()
        got = await store.get("k")
        if spoil:
            run_js(spoil)
        await store.put("k", {"new": 1})
        await store.put("l", {"new": 2})
        back = [await store.get("k"), await store.get("l")]
    again = await (await open_remembered()).get("k")
    found[name] = {"got": got, "back": back, "again": again,
                   "s": time.perf_counter() - began, "warned": run_js("warned") + len(told)}
    if hasattr(store, "_bridge"):
        store._bridge.close()
    run_js("plant(real)")

write = '''await raw(1, (d, done) => {
  const t = d.transaction("entries", "readwrite"); t.objectStore("entries").put(%s, "k");
  t.oncomplete = done; });'''
await trial("sound", "")
await trial("kept", "")
for name, entry in (("garbage", '{ json: "{" }'), ("list", '{ json: "[]" }'), ("number", "7"),
                    ("empty", "null"), ("other", "{ json: 5 }")):
    await trial(name, write % entry)
await trial("missing", "plant(undefined)")
await trial("blocked", '''plant({
  open() { throw new DOMException("blocked", "SecurityError"); } })''')
# An upgrade waits for as long as somebody else's connection stays open.
await trial("hanging", '''
  globalThis.held = await new Promise((done) => {
    const r = real.open("bascule", 1); r.onsuccess = () => done(r.result); });
  plant({ open: () => real.open("bascule", 2) })''')
run_js("held.close()")
await run_js("gone()")
await trial("sound again", "")
await trial("full", "", '''globalThis.put = IDBObjectStore.prototype.put;
  IDBObjectStore.prototype.put = () => { throw new DOMException("full", "QuotaExceededError"); }''')
run_js("IDBObjectStore.prototype.put = globalThis.put")
await trial("closed", "", "IDBDatabase.prototype.transaction_ = IDBDatabase.prototype.transaction;"
  "IDBDatabase.prototype.transaction = () => { throw new DOMException('x', 'InvalidStateError'); }")
run_js("IDBDatabase.prototype.transaction = IDBDatabase.prototype.transaction_")
await trial("newer", "await gone(); await raw(7, (d, done) => done())")
await trial("alien", '''await gone(); await new Promise((done) => {
  const r = real.open("bascule", 1);
  r.onupgradeneeded = () => r.result.createObjectStore("alien");
  r.onsuccess = () => { r.result.close(); done(); }; })''')
json.dumps(found)
"""


def test_whatever_is_wrong_with_indexeddb_costs_speed_only(
    engine: Engine, site: Site, new_page: Callable[[str], Page]
) -> None:
    page = new_page(f"{site.url}/lab/?no-numpy")
    wait_for(page, "globalThis.lab")
    result = json.loads(page.run("(code) => lab.run(code)", FAULTS))
    for name, output in result.items():
        print(engine.name, name, output)
        assert output["back"] == [{"new": 1}, {"new": 2}], name
        assert output["s"] < 30, name  # not for ever
        sound = name in ("sound", "kept", "sound again", "alien")
        assert output["warned"] == (0 if sound else 1), name
        assert output["got"] == ({"new": 1} if name in ("kept", "full", "closed") else None), name
    for name in ("sound", "kept", "garbage", "number", "alien"):
        assert result[name]["again"] == {"new": 1}, name
    assert result["hanging"]["s"] > 2.9


LOAD_BLOCKED = """
import json
from pyodide.code import run_js
run_js('''globalThis.warned = 0;
console.warn = () => { globalThis.warned += 1; };
Object.defineProperty(globalThis, "indexedDB", { value: {
  open() { throw new DOMException("blocked", "SecurityError"); } } });''')
import bascule
model = await bascule.load("/goldens/tiny-bert", tier="webgpu")
found = await model.embed(TEXTS)
report = await model.tune(1.0)
json.dumps([found.tolist(), (await model.embed(TEXTS)).tolist(), run_js("warned")])
"""


@pytest.mark.one_engine
def test_a_private_window_loads_and_tunes_all_the_same(
    webgpu_engine: Engine, site: Site, new_page: Callable[[str], Page]
) -> None:
    expected = golden("tiny-bert")
    page = new_page(f"{site.url}/lab/")
    wait_for(page, "globalThis.lab")
    code = LOAD_BLOCKED.replace("TEXTS", f"json.loads({json.dumps(json.dumps(expected.texts))})")
    before, after, warned = json.loads(page.run("(code) => lab.run(code)", code))
    assert (cosines(before, expected.embeddings) >= 0.99999).all()
    assert (cosines(after, expected.embeddings) >= 0.99999).all()
    assert warned == 1


@pytest.mark.one_engine
def test_an_idle_page_tunes_and_makes_way(
    webgpu_engine: Engine, site: Site, new_page: Callable[[str], Page]
) -> None:
    expected = golden("tiny-bert")
    page = new_page(f"{site.url}/?model={TINY}&tier=webgpu&tune=now")
    assert settled(page) == "ready"
    result = page.run(EMBED, expected.texts)  # stops what may be running, and goes first
    assert (cosines(result, expected.embeddings) >= 0.99999).all()
    wait_for(page, "(await bascule.stats()).signatures_tuned > 0")
    result = page.run(EMBED, expected.texts)
    assert (cosines(result, expected.embeddings) >= 0.99999).all()
