"""What goes wrong in a page is said in the page, with what to try."""

from __future__ import annotations

from collections.abc import Callable
from http.client import HTTPConnection

import pytest

from e2e.conftest import OUT, Site, check_embeddings, settled
from e2e.engines import Engine, Page, wait_for
from e2e.faults import SMALL_NBYTES

SHOWN = """() => ({
  status: document.querySelector('#status').textContent,
  retry: !document.querySelector('#retry').hidden,
  what: document.querySelector('#error-what').textContent,
  hint: document.querySelector('#error-hint').textContent,
  category: document.querySelector('#error-category').textContent,
})"""


ONCE = pytest.mark.one_engine


def load(page: Page, model: str, tier: str) -> None:
    """Load a model; the page says what came of it."""
    asked = {"model": model, "tier": tier}
    page.run(
        "async ({ model, tier }) => { await bascule.load(model, tier).catch(() => {}); }", asked
    )


@pytest.mark.parametrize(
    ("model", "category", "told"),
    [
        pytest.param("all-MiniLM-L7", "model-not-found", "all-MiniLM-L6-v2", marks=ONCE),
        pytest.param("/goldens/nothing-here", "file-missing", "nothing-here", marks=ONCE),
        pytest.param("/faults/drop/tiny-bert", "source", "connection", marks=ONCE),
        pytest.param("/faults/status/tiny-bert", "source", "503", marks=ONCE),
        ("/faults/hostile/tiny-bert", "model-file", "header claims"),
        pytest.param("http://user:secret@localhost/x", "input", "password", marks=ONCE),
    ],
)
def test_faults_of_a_model_are_told(
    shared_page: Page, model: str, category: str, told: str
) -> None:
    load(shared_page, model, "wasm")
    check_told(shared_page, category, told)


@pytest.mark.one_engine
@pytest.mark.parametrize(
    ("query", "told"),
    [
        ("model=http://[", "http://["),
        ("pyodide=http://[", "http://["),
        ("pyodide=/models/m/", "?pyodide="),
        ("pyodide=https://example.com/pyodide/", "?pyodide="),
    ],
)
def test_faults_of_an_address_are_told(
    engine: Engine, site: Site, new_page: Callable[[str], Page], query: str, told: str
) -> None:
    check_told(new_page(f"{site.url}/?tier=wasm&{query}"), "input", told)


def check_told(page: Page, category: str, told: str) -> None:
    assert settled(page) == "error"
    shown = page.run(SHOWN)
    assert shown["category"] == category
    assert told in shown["what"] + shown["hint"]
    assert "secret" not in shown["what"] + shown["hint"]
    assert shown["hint"]
    assert shown["status"] == ""  # what happened stands first
    assert shown["retry"] == (category == "source")  # the others end the same once more


@ONCE
def test_an_unknown_name_offers_the_server_s_models(
    engine: Engine, site: Site, new_page: Callable[[str], Page]
) -> None:
    page = new_page(f"{site.url}/?tier=wasm&model=all-MiniLM-L7")
    assert settled(page) == "error"
    shown = page.run(SHOWN)
    assert (shown["category"], shown["retry"]) == ("model-not-found", False)
    assert "all-MiniLM-L7" in shown["what"]
    assert "all-MiniLM-L6-v2" in shown["hint"]
    wait_for(page, "!document.querySelector('#others').hidden")
    names = "() => [...document.querySelectorAll('#model-choice option')].map((each) => each.value)"
    assert "all-MiniLM-L6-v2" in page.run(names)
    assert "SmolLM2-135M-Instruct" not in page.run(names)  # this page has no use for it
    page.run("() => document.querySelector('#load-model').click()")
    state = page.run("() => document.querySelector('#status').dataset.state")
    assert state in ("booting", "loading")
    assert settled(page) == "ready"
    assert "model=all-MiniLM-L6-v2" in page.run("() => location.search")


@pytest.mark.one_engine
def test_retry_after_the_network_is_back(
    engine: Engine, site: Site, new_page: Callable[[str], Page]
) -> None:
    # Its server asks for patience that nobody has: no time goes by with attempts.
    page = new_page(f"{site.url}/?model=/faults/later/tiny-bert")
    check_told(page, "source", "wait 3600 s")
    page.screenshot(OUT / f"error-{engine.name}.png")
    site.faults.healed = True
    try:
        page.run("() => document.querySelector('#retry').click()")
        wait_for(page, "document.querySelector('#status').dataset.state === 'ready'")
    finally:
        site.faults.healed = False


def test_a_server_without_ranges_serves_too(shared_page: Page) -> None:
    load(shared_page, "/faults/whole/tiny-bert", "auto")
    assert settled(shared_page) == "ready"


@pytest.mark.every_engine
def test_asking_for_webgpu_where_there_is_none(engine: Engine, shared_page: Page) -> None:
    load(shared_page, "/goldens/tiny-bert", "webgpu")
    if engine.webgpu:
        assert settled(shared_page) == "ready"
        return
    assert settled(shared_page) == "error"
    shown = shared_page.run(SHOWN)
    assert shown["category"] == "tier-unavailable"
    assert "navigator.gpu" in shown["what"] or "adapter" in shown["what"]
    assert "auto" in shown["hint"]


def test_cancel_leaves_a_usable_page(
    engine: Engine, site: Site, new_page: Callable[[str], Page]
) -> None:
    page = new_page(f"{site.url}/?model=/faults/slow/tiny-bert")
    wait_for(page, "document.querySelector('#status').textContent.includes('weights')")
    page.run("() => document.querySelector('#cancel').click()")
    assert settled(page) == "error"  # left alone, the load would end well at last
    assert page.run(SHOWN)["category"] == "cancelled"
    result = page.run(
        """async () => {
          await bascule.load("/goldens/tiny-bert", "auto");
          return (await bascule.embed(["w4 w5"])).columns;
        }"""
    )
    assert result == 35


def test_a_slow_file_s_head_leaves_its_connection_free(site: Site) -> None:
    """Else a load behind a cancelled one now and then waits 30 s for its first answer."""
    connection = HTTPConnection(site.url.removeprefix("http://"), timeout=5)
    try:
        connection.request("HEAD", "/faults/slow/tiny-bert/model.safetensors")
        slow = connection.getresponse()
        slow.read()
        assert int(slow.headers["Content-Length"]) > SMALL_NBYTES
        connection.request("GET", "/goldens/tiny-bert/config.json")
        assert connection.getresponse().status == 200
    finally:
        connection.close()


@pytest.mark.one_engine
def test_python_is_cancelled_cannot_start_and_starts(
    engine: Engine, site: Site, new_page: Callable[[str], Page]
) -> None:
    """Cancelled while Python starts; then a retry for which its files are missing; then another."""
    retry = "() => document.querySelector('#retry').click()"
    site.faults.wheel_held = True  # or Python might be up before the click, on a fast machine
    try:
        page = new_page(f"{site.url}/?model=/goldens/tiny-bert")
        # The text stands in the page before any script runs: who clicks then is not heard.
        wait_for(page, "globalThis.bascule")
        wait_for(page, "document.querySelector('#status').textContent.includes('Python')")
        page.run("() => document.querySelector('#cancel').click()")
        assert settled(page) == "error"
        assert page.run(SHOWN)["category"] == "cancelled"
        site.faults.wheel_down = True
    finally:
        site.faults.wheel_held = False
    try:
        page.run(retry)
        wait_for(page, "document.querySelector('#error-what').textContent.includes('503')")
        assert settled(page) == "error"
    finally:
        site.faults.wheel_down = False
    page.run(retry)
    wait_for(page, "document.querySelector('#status').dataset.state === 'ready'")


def test_cancel_right_behind_a_load(shared_page: Page) -> None:
    load(shared_page, "/goldens/tiny-bert", "auto")
    assert settled(shared_page) == "ready"
    category = shared_page.run(
        """async () => {
          const loading = bascule.load("/goldens/tiny-bert", "auto").catch((e) => e.category);
          await new Promise((resolve) => setTimeout(resolve)); // the request leaves
          await bascule.cancel();
          return loading;
        }"""
    )
    assert category == "cancelled"


@pytest.mark.one_engine
def test_a_stuck_worker_is_ended_and_another_one_loads(
    engine: Engine, site: Site, new_page: Callable[[str], Page]
) -> None:
    model = "/goldens/tiny-bert"
    page = new_page(f"{site.url}/with/stuck/-/?model={model}&tier=wasm")
    assert settled(page) == "ready"
    ended = page.run(
        """async () => {
          const stuck = bascule.embed(["stuck"]).catch(({ category }) => category);
          await new Promise((resolve) => setTimeout(resolve, 200)); // the worker has the text
          await bascule.cancel();
          return await stuck;
        }"""
    )
    assert ended == "cancelled"
    loading = "(model) => bascule.load(model, 'wasm').then(({ tier }) => tier)"
    assert page.run(loading, model) == "wasm"
    check_embeddings(page)
    # A load ends such a worker by itself.
    page.run(
        """async () => {
          globalThis.stuck = bascule.embed(["stuck"]).catch(({ category }) => category);
          await new Promise((resolve) => setTimeout(resolve, 200));
        }"""
    )
    assert page.run(loading, model) == "wasm"
    assert page.run("() => stuck") == "cancelled"
    check_embeddings(page)
