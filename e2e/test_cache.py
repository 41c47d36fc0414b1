"""What a visit leaves for the next: weights that are not fetched again, loads that go on where they
stopped, tabs that share."""

from __future__ import annotations

import contextlib
import json
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import Error
from safetensors.numpy import load_file, save_file

from e2e.conftest import OUT, Site, settled
from e2e.engines import Engine, Page, PlaywrightTab, wait_for
from e2e.test_matrix import embed
from tests.goldens import TINY_BERT, cosines, golden
from tests.weights.faulty import Fault, FaultyServer

FILE = "model.safetensors"
CHUNK = 4 << 20
N_WORDS = 200_000  # a table of words of 28 MB


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """tiny-bert with a table of words that takes seven chunks, most of which no text asks for."""
    folder = tmp_path_factory.mktemp("cache") / "wide"
    shutil.copytree(TINY_BERT, folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "vocab_size": N_WORDS}))
    weights = load_file(folder / FILE)
    words = weights["embeddings.word_embeddings.weight"]
    # Noise, or all chunks would have one hash, and one of them would be fetched.
    table = np.random.default_rng(0).standard_normal((N_WORDS, words.shape[1]), np.float32)
    table[: len(words)] = words
    save_file({**weights, "embeddings.word_embeddings.weight": table}, folder / FILE)
    return folder


@pytest.fixture
def hub(model: Path) -> Iterator[FaultyServer]:
    """The model on a server of its own, which counts, and can be gone."""
    with FaultyServer(model.parent) as server:
        yield server


@pytest.fixture
def size(model: Path) -> int:
    return (model / FILE).stat().st_size


def sent(hub: FaultyServer) -> int:
    return hub.sent[f"/wide/{FILE}"]


def link(site: Site, hub: FaultyServer) -> str:
    return f"{site.url}/?tier=wasm&model={hub.url}/wide"


def offline_link(site: Site, hub: FaultyServer) -> str:
    """With a service worker: WebKit's driver forgets an origin with its last page without one."""
    return f"{site.offline_url}/?tier=wasm&model={hub.url}/wide"


def assert_right(page: Page) -> None:
    expected = golden("tiny-bert")
    assert (cosines(embed(page, expected.texts), expected.embeddings) >= 0.99999).all()


def test_a_second_visit_fetches_no_weights(
    engine: Engine, site: Site, hub: FaultyServer, size: int, new_page: Callable[[str], Page]
) -> None:
    page = new_page(offline_link(site, hub))
    assert settled(page) == "ready", page.run("() => document.body.innerText")
    assert sent(hub) == size
    first = page.run("() => bascule.stats()")
    page.run("() => bascule.offline")
    hub.reset_counts()
    page.open(offline_link(site, hub))
    assert settled(page) == "ready"
    assert sum(hub.sent.values()) == 0
    second = page.run("() => bascule.stats()")
    assert second["network_nbytes"] == 0
    hub.down()
    page.open(offline_link(site, hub))
    assert settled(page) == "ready", page.run("() => document.body.innerText")
    assert_right(page)
    print(
        f"{engine.name}: weights_ms {first['weights_ms']:.0f} on the first visit, "
        f"{second['weights_ms']:.0f} on the second, "
        f"{page.run('() => bascule.stats()')['weights_ms']:.0f} with the server gone"
    )


def test_a_tab_that_dies_half_way_goes_on(
    engine: Engine, site: Site, hub: FaultyServer, size: int, new_page: Callable[[str], Page]
) -> None:
    # So slow that a loaded machine kills the tab before all has come.
    hub.plan(FILE, Fault("slow", CHUNK, bytes_per_second=4_000_000))
    # A visit before, which starts the service worker.
    page = new_page(f"{site.offline_url}/?tier=wasm&model=/goldens/tiny-bert")
    assert settled(page) == "ready"
    page.run("() => bascule.offline")
    page.open(offline_link(site, hub))
    share = "document.querySelector('#bytes').textContent.match(/([0-9.]+) of ([0-9.]+) MB/)"
    wait_for(page, f"((found) => found && found[1] / found[2] >= 0.5)({share})")
    kept = size * page.run(f"() => {{ const found = {share}; return found[1] / found[2]; }}")
    tab = page.new_tab()
    kill(page)
    hub.heal()
    wait_for_silence(hub)
    hub.reset_counts()
    tab.open(offline_link(site, hub))
    assert settled(tab) == "ready", tab.run("() => document.body.innerText")
    print(f"{engine.name}: killed at {kept / size:.0%}, then fetched {sent(hub) / size:.0%}")
    assert 0 < sent(hub) <= size - kept + CHUNK
    assert_right(tab)
    tab.close()


def wait_for_silence(hub: FaultyServer) -> None:
    """Until nothing more is sent to a tab that is gone."""
    before = -1
    while before != (before := sent(hub)):
        time.sleep(0.5)


def test_a_connection_that_drops_20_times_completes(
    engine: Engine, site: Site, hub: FaultyServer, size: int, new_page: Callable[[str], Page]
) -> None:
    rng = np.random.default_rng(3)
    for after in rng.integers(1, size // 12, 20):
        hub.plan(FILE, Fault("drop", CHUNK, after=int(after)), times=1)
    page = new_page(link(site, hub))
    assert settled(page) == "ready", page.run("() => document.body.innerText")
    assert_right(page)
    print(f"{engine.name}: {hub.count(FILE)} requests, {sent(hub) / size:.2f} of the file sent")
    assert hub.count(FILE) > 10
    assert sent(hub) <= size + 20 * CHUNK


def test_a_quota_that_is_too_small(
    engine: Engine, site: Site, hub: FaultyServer, size: int, new_page: Callable[[str], Page]
) -> None:
    """The model works, is not kept, and the page says why."""
    page = new_page(f"{site.url}/style.css")
    if not isinstance(page, PlaywrightTab) or not engine.name.startswith("chromium"):
        pytest.skip(f"{engine.name} lets no driver set a quota")
    session = page.page.context.new_cdp_session(page.page)
    quota = {"origin": site.url, "quotaSize": 12_000_000}
    session.send("Storage.overrideQuotaForOrigin", quota)
    page.open(link(site, hub))
    assert settled(page) == "ready", page.run("() => document.body.innerText")
    assert_right(page)
    result = page.run("() => document.querySelector('#notes').textContent")
    assert "not cached for the next visit" in result
    assert "not enough space" in result or "writing to the store failed" in result
    print(f"{engine.name}: {sent(hub) / size:.2f} of the file sent where a third of it can be kept")
    kept = page.run("() => bascule.cache('ls')")
    assert sum(each["stored_nbytes"] for each in kept) < 12_000_000


def kill(page: Page) -> None:
    """The process of the tab dies, where the browser has a way to ask for that."""
    if not isinstance(page, PlaywrightTab):
        page.open("about:blank")
        return
    with contextlib.suppress(Error):  # it never ends, or the browser knows no such page
        page.page.goto("chrome://crash", timeout=3000)
    page.page.close()


def test_two_tabs_at_once_fetch_it_once(
    engine: Engine, site: Site, hub: FaultyServer, size: int, new_page: Callable[[str], Page]
) -> None:
    if engine.name == "webkit":
        pytest.skip("a driver of WebKitGTK runs one tab at a time")
    hub.plan(FILE, Fault("slow", CHUNK, bytes_per_second=10_000_000))
    first = new_page(link(site, hub))
    second = first.new_tab()
    second.open(link(site, hub))
    for page in (first, second):
        assert settled(page) == "ready", page.run("() => document.body.innerText")
        assert_right(page)
    assert sent(hub) == size
    second.close()


def test_what_is_kept_is_shown_verified_and_removed(
    engine: Engine, site: Site, new_page: Callable[[str], Page]
) -> None:
    page = new_page(f"{site.url}/?tier=wasm&model=/goldens/tiny-bert")
    assert settled(page) == "ready"
    page.run("() => bascule.load('/goldens/tiny-llama/tiny-k.gguf', 'wasm')")
    page.run("() => { document.querySelector('#kept').open = true; }")
    wait_for(page, "document.querySelectorAll('#kept li').length === 2")
    # A model a line, whatever the number of its files.
    shown = page.run("() => document.querySelector('#kept').innerText")
    assert "tiny-bert\n" in shown.replace(" \n", "\n")
    assert "tiny-k.gguf" in shown
    assert "config.json" not in shown
    assert "2 models" in shown
    assert shown.count("in use") >= 1
    OUT.mkdir(exist_ok=True)
    page.screenshot(OUT / f"kept-{engine.name}.png")
    page.run("() => document.querySelector('#kept [name=verify]').click()")
    verified = "document.querySelector('#kept [role=status]').textContent"
    wait_for(page, f"{verified} === 'No file in the cache is damaged.'")
    page.run("() => document.querySelector('#kept [aria-label$=gguf]').click()")
    wait_for(page, "document.querySelectorAll('#kept li').length === 1")
    # The button that had the focus is gone.
    wait_for(page, "document.activeElement.textContent === 'tiny-k.gguf was removed.'")
    page.run("() => document.querySelector('#kept [name=remove]').click()")
    wait_for(page, "document.querySelectorAll('#kept li').length === 0")
    assert page.run("() => bascule.cache('ls')") == []
    page.open(f"{site.url}/?tier=wasm&model=/goldens/tiny-bert")
    assert settled(page) == "ready"
