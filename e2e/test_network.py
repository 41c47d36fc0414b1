"""Loading over a network that drops, stalls and lies, in pages.

tests/weights/test_network.py does the same natively. The server is another origin here, as a model
hub is.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from e2e.conftest import Site
from e2e.engines import Engine, Page
from tests.weights.faulty import Fault, FaultyServer
from tests.weights.test_network import (
    CHUNK,
    FILE,
    LARGE,
    safetensors_bytes,
    write_far,
    write_manifest,
)

SIZE = len(safetensors_bytes(1))
DIGEST = hashlib.sha256(safetensors_bytes(1)).hexdigest()

LOAD = """
import hashlib, json, warnings
import numpy as np
from bascule.backend.host_arrays import ReferenceStore
from bascule.errors import BasculeError
from bascule.program.program import Parameter
from bascule.weights.source_browser import PageSource
from bascule.weights.stream import load_weights

SHAPES = {"first": (301, 97), "second": (50_021,), "half": (40_003,), "last": (211, 103)}
PARAMETERS = tuple(Parameter(name, shape, (name,)) for name, shape in SHAPES.items())
RETRY = {"attempts": 4, "firstDelayMs": 5, "maxDelayMs": 20, "stallMs": 500, "maxWaitMs": 2000}

async def load(url, hashes=None, progress=None, **options):
    options = {"retry": RETRY, **options}
    source = PageSource(url, hashes, 1 << 16, **options)
    store = ReferenceStore(PARAMETERS)
    for array in store.arrays.values():
        array.fill(np.nan)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        try:
            await load_weights(source, PARAMETERS, store, progress=progress)
            whole = b"".join(store.arrays[name].tobytes() for name in SHAPES)
            found = {"digest": hashlib.sha256(whole).hexdigest()}
        except BasculeError as error:
            found = {"error": error.category, "told": str(error), "hint": error.hint}
    found["stats"] = dict(source.stats)
    source.release()
    fetcher = await source._open()
    found["warnings"] = [str(w.message) for w in told] + list(fetcher.warnings.to_py())
    found["store"] = fetcher.storeKind
    return found
"""


def expected(seed: int) -> str:
    """The hash of what a sound load leaves in memory."""
    from tests.weights.test_network import SHAPES, tensors

    made = tensors(seed)
    whole = b"".join(made[name].astype(np.float32).tobytes() for name in SHAPES)
    return hashlib.sha256(whole).hexdigest()


@dataclass
class Hub:
    """A faulty server with as many copies of the model as a test has cases."""

    server: FaultyServer
    root: Path

    def add(self, name: str, seed: int = 1) -> str:
        (self.root / name).mkdir(exist_ok=True)
        (self.root / name / FILE).write_bytes(safetensors_bytes(seed))
        os.utime(self.root / name / FILE, (1e9, 1e9))
        return f"{self.server.url}/{name}"

    def sent(self, name: str) -> int:
        return self.server.sent[f"/{name}/{FILE}"]


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    with FaultyServer(tmp_path) as server:
        yield Hub(server, tmp_path)
    shutil.rmtree(tmp_path)


@pytest.fixture
def lab(own_lab: Page) -> Callable[..., Any]:
    """Runs Python in a page whose stores are empty."""
    own_lab.run("(code) => lab.run(code)", LOAD)

    def run(code: str) -> Any:
        return json.loads(own_lab.run("(code) => lab.run(code)", f"json.dumps({code})"))

    for store in ("opfs", "cache", "indexeddb"):
        run(f"await clear(store={store!r})")
    return run


PASSING = {
    "drop": Fault("drop", LARGE),
    "drop-early": Fault("drop", LARGE, after=3),
    "truncate": Fault("truncate", LARGE),
    "length-too-long": Fault("lying_length_long", LARGE),
    "ends-early": Fault("lying_length_long", LARGE, after=20_001, extra=0),
    "length-too-short": Fault("lying_length_short", LARGE),
    "wrong-range": Fault("wrong_range", LARGE),
    "503": Fault("status", LARGE, status=503),
    "429-retry-after": Fault("status", LARGE, status=429, retry_after=0),
    "stall": Fault("stall", LARGE, after=30_000, seconds=5),
    "stall-headers": Fault("stall_headers", LARGE, seconds=5),
}


def test_faults_that_pass_are_survived(engine: Engine, hub: Hub, lab: Callable[..., Any]) -> None:
    for name, fault in PASSING.items():
        hub.add(name)
        hub.server.plan(f"{name}/{FILE}", fault, times=2)
        result = lab(f"await load({hub.server.url!r} + '/{name}')")
        assert result.get("digest") == expected(1), (name, result)
        # All that was asked for came before that lie shows: some browsers never hear of it.
        if name != "length-too-long":
            assert result["stats"]["network_retries"] >= 1, name


LASTING = {
    "overlong": Fault("overlong"),
    "whole": Fault("whole"),
    "no-content-range": Fault("no_content_range", LARGE),
    "no-length": Fault("no_length", LARGE),
    "weak-etag": Fault("weak_etag"),
    "no-etag": Fault("no_etag"),
    "slow": Fault("slow", LARGE, bytes_per_second=600_000),
    "redirect": Fault("redirect", location=f"/moved/{FILE}"),
}


def test_a_servers_own_ways_are_borne(engine: Engine, hub: Hub, lab: Callable[..., Any]) -> None:
    hub.add("moved")
    for name, fault in LASTING.items():
        hub.add(name)
        hub.server.plan(f"{name}/{FILE}", fault)
        result = lab(f"await load({hub.server.url!r} + '/{name}')")
        assert result.get("digest") == expected(1), (name, result)
    hub.server.down()
    for name in LASTING:
        result = lab(f"await load({hub.server.url!r} + '/{name}')")
        assert result.get("digest") == expected(1), (name, result)
        assert result["stats"]["network_nbytes"] == 0


def test_hidden_cors_headers_are_borne(
    engine: Engine, tmp_path: Path, lab: Callable[..., Any]
) -> None:
    with FaultyServer(tmp_path, hide_cors_headers=True) as server:
        hub = Hub(server, tmp_path)
        url = hub.add("hidden")
        result = lab(f"await load({url!r}, {{'{FILE}': {DIGEST!r}}})")
        assert result.get("digest") == expected(1), result
        result = lab(f"await load({url!r})")
        assert result["stats"]["network_nbytes"] == 0


STAYING = {
    "503": (Fault("status", LARGE, status=503), "source", "answered 503 (bytes "),
    "retry-later": (Fault("status", LARGE, status=503, retry_after=3600), "source", "wait 3600 s"),
    "403": (Fault("status", LARGE, status=403), "source", "answered 403"),
    "404": (Fault("status", LARGE, status=404), "file-missing", "no such file"),
    "drop": (Fault("drop", LARGE, after=0), "source", "tried 4 times"),
    "wrong-range": (Fault("wrong_range", LARGE), "source", "another range"),
    "encoded": (Fault("encoded", LARGE), "source", ""),
    "stall": (Fault("stall", LARGE, after=0, seconds=5), "source", "nothing came for 0.5 s"),
    "loop": (Fault("redirect", location=f"/loop/{FILE}"), "source", "tried 4 times"),
    # Across origins its absence may be a header that is hidden, so the bytes are looked at.
    "beginning": (Fault("no_content_range", LARGE, at=0), "source", "the file's beginning"),
}


def test_faults_that_stay_are_told_and_heal(
    engine: Engine, site: Site, hub: Hub, lab: Callable[..., Any]
) -> None:
    # On the page's own origin no header is hidden: a part without its range is refused.
    result = lab(f"await load('{site.url}/faults/unnamed/tiny-bert')")
    assert result.get("error") == "source", result
    assert "without its Content-Range" in result["told"]
    for name, (fault, category, output) in STAYING.items():
        url = hub.add(name)
        hub.server.plan(f"{name}/{FILE}", fault)
        result = lab(f"await load({url!r})")
        assert result.get("error") == category, (name, result)
        assert output in result["told"], (name, result)
        assert url in result["told"]
        assert result["hint"]
    hub.server.heal()
    hub.server.cors = False
    url = hub.add("no-cors")
    result = lab(f"await load({url!r})")
    assert result.get("error") == "source", result
    assert "may not send Access-Control-Allow-Origin for http://localhost:" in result["told"]
    assert "Access-Control-Allow-Origin" in result["hint"]
    assert result["stats"]["network_retries"] == 0
    hub.server.cors = True
    # A known name that is not there, a hub id, and what is no address.
    category, output = lab(f"await told('all-MiniLM-L6-v2', {hub.server.url!r} + '/none/')")
    assert category == "model-not-found", output
    assert f"{hub.server.url}/none/all-MiniLM-L6-v2/config.json" in output
    assert "give load() the URL" in output
    category, output = lab("await told('BAAI/bge-small-en-v1.5')")
    assert category == "model-not-found", output
    assert "bascule pull BAAI/bge-small-en-v1.5" in output
    for bad in ("http://[", "http://h:99999/x", "https://h/x?y", "http://a..b/x", "ftp://h/x", ""):
        assert lab(f"await told({bad!r})")[0] == "input", bad
    for name in STAYING:
        result = lab(f"await load({hub.server.url!r} + '/{name}')")
        assert result.get("digest") == expected(1), (name, result)


@pytest.mark.one_engine
def test_versions_hashes_and_manifests(engine: Engine, hub: Hub, lab: Callable[..., Any]) -> None:
    # A new version that appears between two loads, and one that appears within a load.
    url = hub.add("new")
    lab(f"await load({url!r})")
    hub.server.replace(f"new/{FILE}", safetensors_bytes(2))
    assert lab(f"await load({url!r})").get("digest") == expected(2)
    url = hub.add("changing")
    hub.server.plan(f"changing/{FILE}", Fault("etag_changes", LARGE), times=1)
    result = lab(f"await load({url!r})")
    assert result.get("error") == "model-file"  # the rotated file that came instead is no model

    # A wrong hash of the whole file: once more, then refused, and nothing of it is kept.
    url = hub.add("wrong-hash")
    result = lab(f"await load({url!r}, {{'{FILE}': {'0' * 64!r}}})")
    assert result.get("error") == "corrupt", result
    assert any("loaded again" in output for output in result["warnings"])

    # A manifest catches a byte that flips once, and refuses one that stays wrong.
    url = hub.add("flip")
    write_manifest(hub.root / "flip")
    hub.server.plan(f"flip/{FILE}", Fault("corrupt", LARGE, at=333_333), times=1)
    assert lab(f"await load({url!r})").get("digest") == expected(1)
    # Another model with the same chunks: nothing is fetched.
    url = hub.add("same")
    write_manifest(hub.root / "same")
    assert lab(f"await load({url!r})").get("digest") == expected(1)
    assert hub.sent("same") == 0
    url = hub.add("cut")
    (hub.root / "cut" / "bascule-manifest.json").write_bytes(b'{"version": 1, "chunk')
    result = lab(f"await load({url!r})")
    assert result.get("error") == "corrupt", result
    assert "truncated" in result["told"]
    url = hub.add("stays-wrong", seed=7)
    write_manifest(hub.root / "stays-wrong")
    hub.server.plan(f"stays-wrong/{FILE}", Fault("corrupt", at=333_333))
    result = lab(f"await load({url!r})")
    assert result.get("error") == "corrupt", result
    assert "manifest" in result["told"]


def test_20_drops_cost_at_most_20_chunks(engine: Engine, hub: Hub, lab: Callable[..., Any]) -> None:
    url = hub.add("drops")
    points = np.random.default_rng(5).integers(1, 60_000, 20)
    for after in points:
        hub.server.plan(f"drops/{FILE}", Fault("drop", LARGE, after=int(after)), times=1)
    result = lab(f"await load({url!r}, retry={{**RETRY, 'attempts': 30}})")
    assert result.get("digest") == expected(1), result
    assert hub.sent("drops") <= SIZE + 20 * CHUNK


def test_every_store_keeps_and_heals(engine: Engine, hub: Hub, lab: Callable[..., Any]) -> None:
    """OPFS, Cache API, IndexedDB: kept, damaged, healed; and none at all still loads."""
    works = []
    for kind in ("opfs", "cache", "indexeddb"):
        url = hub.add(kind)
        result = lab(f"await load({url!r}, store={kind!r})")
        assert result.get("digest") == expected(1), (kind, result)
        if result["store"] == "none":
            assert any("Nothing is cached" in output for output in result["warnings"])
            continue
        works.append(kind)
        hub.server.reset_counts()
        result = lab(f"await load({url!r}, store={kind!r})")
        assert result["stats"]["network_nbytes"] == 0, (kind, result)
        assert lab(f"await spoil({kind!r})") > 0
        result = lab(f"await load({url!r}, store={kind!r})")
        assert result.get("digest") == expected(1), (kind, result)
        assert 0 < hub.sent(kind) <= 2 * CHUNK
        assert any("damaged" in output for output in result["warnings"])
        # Site data are cleared while the page is open: the next loads keep and find again.
        if not lab(f"await clear_site({kind!r})"):
            continue
        for wanted in (expected(1), expected(1)):
            result = lab(f"await load({url!r}, store={kind!r})")
            assert result.get("digest") == wanted, (kind, result)
        assert result["stats"]["network_nbytes"] == 0, (kind, result)
        assert lab(f"await kept(store={kind!r})") == [kind]
    assert works == (["cache", "indexeddb"] if engine.name == "webkit" else works)
    assert "indexeddb" in works
    url = hub.add("nowhere")
    for _ in range(2):
        result = lab(f"await load({url!r}, {{'{FILE}': {DIGEST!r}}}, store='none')")
        assert result.get("digest") == expected(1), result
        assert result["store"] == "none"
    print(f"{engine.name}: stores that work: {', '.join(works)}")


LOAD += """
async def told(model, models=None):
    "The category and the words of a load that fails."
    import os
    import bascule
    from bascule.base.page_settings import MODELS
    before = os.environ.get(MODELS)
    if models:
        os.environ[MODELS] = models
    try:
        await bascule.load(model, tier="cpu")
    except BasculeError as error:
        return [error.category, str(error)]
    finally:
        os.environ.pop(MODELS, None)
        if before:
            os.environ[MODELS] = before

async def clear_site(kind):
    "What clearing site data does to an open store; False where a page cannot do it by itself."
    import js
    if kind == "opfs":
        root = await js.navigator.storage.getDirectory()
        await root.removeEntry("bascule", recursive=True)
    elif kind == "cache":
        await js.caches.delete("bascule")
    return kind != "indexeddb"

async def spoil(kind):
    "Halve one large chunk of a store, as a tab that dies while it writes does."
    import js
    from bascule.base.bridge_browser import bridge_module
    from pyodide.ffi import create_proxy, to_js
    stores = await bridge_module("bridge/store.js")
    found = await stores.openStore(kind, create_proxy(lambda: bridge_module("vendor/idb.js")))
    store, spoilt = found.store, 0
    for name in (await store.names()).to_py():
        if not name.startswith("c-"):
            continue
        whole = await store.get(name)
        if whole.length == 1 << 16 and not spoilt:
            await store.put(name, whole.slice(0, 1 << 15))
            spoilt += 1
    return spoilt
"""


def test_little_room(engine: Engine, hub: Hub, lab: Callable[..., Any]) -> None:
    """The least recently used is evicted first, none in use; a lack of space warns once."""
    store = "cache" if engine.name == "webkit" else "opfs"
    room = f"store={store!r}, maxNbytes={int(2.5 * SIZE)}"
    lab(f"await clear({room})")
    urls = {name: hub.add(name, seed) for seed, name in enumerate(("old", "newer", "newest"), 1)}
    for url in urls.values():
        result = lab(f"await load({url!r}, {room})")
        assert "digest" in result, result
    assert lab(f"await kept({room})") == ["newer", "newest"]
    # What a server claims, and what is no model, evicts nothing.
    liars = {"vast": 10**13, "large": 9 * 10**9, "fitting": SIZE}
    for seed, (name, claimed) in enumerate(liars.items(), 20):
        url = hub.add(name, seed)
        (hub.root / name / FILE).write_bytes(b"\xff" * 8 + safetensors_bytes(seed)[8:])
        hub.server.claim(f"{name}/{FILE}", claimed)
        result = lab(f"await load({url!r}, {room})")
        assert result.get("error") == "model-file", result
        assert ("the server claims" in result["told"]) == (name == "vast")
        assert {"newer", "newest"} <= set(lab(f"await kept({room})")), name
    for location in ("http:", "http://", hub.server.url + "/new"):
        assert lab(f"await remove({location!r}, {room})") == 0
    # What a tab that died has left goes with the next look, and with all.
    assert lab(f"await orphaned({store!r})") == 1
    lab(f"await verify({room})")
    assert lab(f"await orphaned({store!r}, add=False)") == 0
    # It is listed, and removed, by name.
    assert lab("await listed_orphans()") == [[100], 1, []]
    small = f"store={store!r}, maxNbytes={SIZE // 2}"
    result = lab(f"await load({urls['old']!r}, {small})")
    assert result.get("digest") == expected(1)
    assert any("not enough space" in output for output in result["warnings"])


LOAD += """
async def clear(**options):
    source = PageSource("http://nowhere.invalid", None, 1 << 16, retry=RETRY, **options)
    return await (await source._open()).remove("[]")

async def remove(location, **options):
    source = PageSource("http://nowhere.invalid", None, 1 << 16, retry=RETRY, **options)
    return await (await source._open()).remove(json.dumps([location]))

async def verify(**options):
    source = PageSource("http://nowhere.invalid", None, 1 << 16, retry=RETRY, **options)
    return await (await source._open()).verify()

async def orphaned(kind, add=True):
    "Chunks in a store that no entry names, after one more."
    import js
    from bascule.base.bridge_browser import bridge_module
    from pyodide.ffi import create_proxy
    stores = await bridge_module("bridge/store.js")
    found = await stores.openStore(kind, create_proxy(lambda: bridge_module("vendor/idb.js")))
    name = "c-" + "ab" * 32
    if add:
        await found.store.put(name, js.Uint8Array.new(100))
    return (await found.store.names()).to_py().count(name)

async def listed_orphans():
    "Sizes of what `ls` calls orphaned, how many go, and sizes afterwards."
    from bascule import cache
    await orphaned("auto")
    sizes = lambda found: [each.stored_nbytes for each in found if each.kind == "orphaned"]
    before = sizes(await cache.ls())
    return [before, await cache.rm([cache.ORPHANED]), sizes(await cache.ls())]

async def kept(**options):
    source = PageSource("http://nowhere.invalid", None, 1 << 16, retry=RETRY, **options)
    entries = json.loads(await (await source._open()).entries())
    return sorted(e["location"].split("/")[-2] for e in entries if e["stored_nbytes"])
"""


def test_offsets_past_4_gib(
    engine: Engine, site: Site, tmp_path: Path, lab: Callable[..., Any]
) -> None:
    """A sparse file of the dev server: what lies behind 4.5 GiB is read, and they are not."""
    wanted = np.arange(1000, dtype=np.float32)
    write_far(site.extra / "huge", wanted)
    result = lab(f"await far('{site.url}/extra/huge')")
    assert result == [1000, float(wanted.sum())]


LOAD += """
async def far(url):
    parameters = (Parameter("b", (1000,), ("b",)),)
    store = ReferenceStore(parameters)
    source = PageSource(url, None, 1 << 16, retry=RETRY)
    await load_weights(source, parameters, store)
    source.release()
    return [len(store.arrays["b"]), float(store.arrays["b"].sum())]
"""


def test_a_frozen_holder_is_not_waited_for(
    engine: Engine, hub: Hub, lab: Callable[..., Any]
) -> None:
    """A tab that holds the lock and keeps nothing, as a frozen one does: after some silence, ten
    seconds by default, this one fetches, too."""
    url = hub.add("frozen")
    assert lab(f"await freeze({url!r} + '/{FILE}')")
    result = lab(f"await load({url!r}, retry={{**RETRY, 'silenceMs': 300}})")
    assert result.get("digest") == expected(1), result


LOAD += """
async def freeze(url):
    "Use the lock as another worker would, and never let go."
    from pyodide.code import run_js
    key = hashlib.sha256(url.encode()).hexdigest()[:32]
    await run_js("(name) => new Promise((held) => { navigator.locks.request(name, () => { held(); "
                 "return new Promise(() => {}); }); })")(f"bascule:load:{key}")
    return True
"""
