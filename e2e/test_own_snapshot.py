"""A site ships no snapshot: the visitor's browser makes one, and then starts Python from it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from playwright.sync_api import Playwright

from bascule.server.app import create_app
from bascule.server.run import pyodide_folder, running
from e2e.conftest import GOLDENS, ROOT, Site, check_embeddings, settled
from e2e.engines import Engine, Page, PlaywrightTab, on_disk, wait_for
from e2e.test_csp import WITH_BLOB, WithHeaders
from e2e.test_snapshot import start
from tests.weights.faulty import FaultyServer

QUERY = "/?model=/goldens/tiny-bert&tier=wasm"
KEPT = "async () => (await bascule.cache('ls')).filter(({ kind }) => kind === 'snapshot')"
GENERATE = """() => bascule.generate([1, 85, 91], { greedy: true, max_new_tokens: 9 })
  .then(({ text }) => text)"""
HELD = "(await navigator.locks.query()).held.some(({ name }) => name === 'bascule:snapshot')"

# What comes of it where a worker's script is `url`; it takes a lock of the browser first.
MAKE = """async (url) => {
  const { SnapshotMaker } = await import("/snapshot-maker.js");
  const place = { pyodide: "/pyodide/", wheel: "/wheel/index.json" };
  const maker = new SnapshotMaker(() => new Worker(url, { type: "module" }), place);
  return maker.make(async () => false);
}"""
FOLDER = "() => navigator.storage.getDirectory().then(() => '', ({ name }) => name)"
HOLD = """() => new Promise((held) => {
  navigator.locks.request("bascule:snapshot", () => {
    held();
    return new Promise((release) => Object.assign(globalThis, { release }));
  });
})"""
# Keep the snapshot again, whole, as one of another build of Pyodide.
CHANGE = """async () => {
  const { openSnapshots } = await import("/snapshots.js");
  const snapshots = await openSnapshots();
  const [{ location }] = (await bascule.cache("ls")).filter(({ kind }) => kind === "snapshot");
  const key = location.slice(location.indexOf(":") + 1);
  const bytes = await snapshots.read(await snapshots.find(key));
  bytes[16] ^= 1;
  await snapshots.store(key, bytes);
}"""


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """The demo's site without a snapshot, under a strict policy."""
    folders = {"goldens": GOLDENS, "lab": ROOT / "e2e" / "pages"}
    app = create_app(models=GOLDENS, pyodide=pyodide_folder(), extra=folders)
    with running(WithHeaders(app, {"Content-Security-Policy": WITH_BLOB})) as url:
        yield url


def visit(page: Page, url: str) -> dict[str, Any]:
    page.open(url + QUERY)
    assert settled(page) == "ready", page.run("() => document.body.innerText")
    return page.run("() => bascule.stats()")


def make(page: Page) -> str:
    """What comes of `makeSnapshot`, which may take a driver's patience on a loaded machine."""
    page.run("() => { bascule.makeSnapshot().then((told) => { globalThis.outcome = told; }); }")
    wait_for(page, "globalThis.outcome", 600)
    return page.run("() => outcome")


def test_the_next_visit_starts_from_what_this_one_made(
    engine: Engine, url: str, new_page: Callable[[str], Page]
) -> None:
    page = new_page(f"{url}/style.css")
    first = visit(page, url)
    assert first["boot_snapshot"] == 0
    page.run(HOLD)
    assert page.run(MAKE, "/snapshot-worker.js") == "another tab makes it"
    page.run("() => release()")
    assert page.run(MAKE, "/no-such-worker.js")  # what it says is the browser's own
    assert page.run(KEPT) == []
    assert make(page) == "made"
    made = page.run("() => bascule.stats()")
    # WebKit's driver forgets an origin with its last page, unless a service worker is there.
    page.run("() => bascule.offline")
    second = visit(page, url)
    assert second["boot_own_snapshot"] == second["boot_snapshot"] == 1
    check_embeddings(page)
    (kept,) = page.run(KEPT)
    assert kept["stored_nbytes"] == kept["nbytes"] == made["snapshot_nbytes"]
    print(
        f"{engine.name}: {kept['nbytes'] / 1e6:.0f} MB made in {made['snapshot_make_ms']:.0f} ms; "
        f"Python starts in {second['boot_ms']:.0f} instead of {first['boot_ms']:.0f} ms"
    )
    if not engine.name.startswith("chromium"):  # what is checked then is the same everywhere
        return
    # One that is whole but does not work: Python starts plainly, and it is dropped.
    page.run(CHANGE)
    booted, _ = start(page, "own")
    assert not booted["snapshot"]
    assert "build id" in booted["plain"]
    assert page.run(KEPT) == []


@pytest.mark.one_engine
def test_visits_on_which_none_is_made(
    engine: Engine, url: str, new_page: Callable[[str], Page]
) -> None:
    page = new_page(f"{url}{QUERY}&snapshot=off")
    wait_for(page, "globalThis.bascule")
    assert page.run("() => bascule.makeSnapshot()") == "snapshots are switched off"
    low = "() => Object.defineProperty(navigator, 'deviceMemory', { value: 2 })"
    page.run(low)
    assert page.run(MAKE, "/snapshot-worker.js") == "this machine has 2 GiB of memory"
    # Storage that is full shows when the snapshot is written: nothing of it stays.
    assert isinstance(page, PlaywrightTab)
    session = page.page.context.new_cdp_session(page.page)
    session.send("Storage.overrideQuotaForOrigin", {"origin": url, "quotaSize": 30_000_000})
    visit(page, url)
    assert make(page) != "made"
    kinds = "async () => (await bascule.cache('ls')).map(({ kind }) => kind)"
    assert set(page.run(kinds)) <= {"fetched"}
    session.send("Storage.overrideQuotaForOrigin", {"origin": url})
    # It begins by itself after a result; the tab is closed meanwhile, and the lock goes with it.
    visit(page, url)
    check_embeddings(page)
    wait_for(page, HELD)
    visit(page, url)
    assert not page.run(f"async () => {HELD}")
    assert page.run(KEPT) == []
    # Two attempts were begun and came to nothing. After a third there is none for a week.
    attempts = "() => JSON.parse(localStorage.getItem('bascule-snapshot-attempts')).count"
    assert page.run(attempts) == 2


def test_firefox_with_full_storage_starts_plainly(
    playwright: Playwright, site: Site, url: str
) -> None:
    """Its quota manager refuses: the preference, in KiB, is for this profile alone."""
    full = {"dom.quotaManager.temporaryStorage.fixedLimit": 8 << 10}
    with on_disk(playwright, "firefox", full) as context:
        page = PlaywrightTab(context.new_page())
        assert visit(page, url)["boot_snapshot"] == 0
        check_embeddings(page)
        assert make(page).startswith("there is no room for it")
        assert page.run(KEPT) == []
        assert visit(page, url)["boot_snapshot"] == 0
        check_embeddings(page)
        # Of this model's 91 MB little can stay: the rest is refused, and it loads all the same.
        page.open(f"{site.url}/?model=all-MiniLM-L6-v2&tier=wasm")
        assert settled(page) == "ready"
        listed = page.run("() => bascule.cache('ls')")
        assert sum(each["stored_nbytes"] for each in listed) < 8 << 20


def test_the_pages_work_and_store_in_a_private_window_of_firefox(
    playwright: Playwright, site: Site, url: str
) -> None:
    """It has no private file system: IndexedDB stores what comes back on the next visit."""
    private = {"browser.privatebrowsing.autostart": True}
    with on_disk(playwright, "firefox", private) as context:
        page = PlaywrightTab(context.new_page())
        assert visit(page, url)["boot_snapshot"] == 0
        assert page.run(FOLDER) == "SecurityError"  # the window is private
        check_embeddings(page)
        assert make(page) == "made"
        second = visit(page, url)
        assert second["boot_own_snapshot"] == second["early_tokenizer"] == 1
        check_embeddings(page)
        answers: list[str] = []
        with FaultyServer(GOLDENS / "tiny-llama") as server:
            chat = f"{site.url}/chat.html?model={server.url}/tiny-q4_1.gguf&tier=webgpu"
            for _ in range(2):
                server.reset_counts()
                page.open(chat)
                assert settled(page) == "ready"
                answers.append(page.run(GENERATE))
                page.run("() => bascule.cache('ls')")  # once the load is remembered
            assert {each.method for each in server.requests} == {"HEAD"}
        assert answers[0] == answers[1]
