"""What offline.js keeps, renews and drops, on a site of a few small files."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from e2e.conftest import ROOT
from e2e.engines import TIMEOUT_S, Engine, Page, wait_for, wait_until
from tests.weights.faulty import Fault, FaultyServer

FILES = {
    "index.html": "<!doctype html><title>-</title><script type=module src=part.js></script>",
    "part.js": 'document.title = "first";',
    "data.json": "{}",
    "models/config.json": "{}",
    "wheel/index.json": json.dumps(
        {"wheel": "toy-1-0a-py3-none-any.whl", "snapshot": {"file": "a.snapshot.gz"}}
    ),
    "wheel/toy-1-0a-py3-none-any.whl": "wheel a",
    "wheel/a.snapshot.gz": "snapshot a",
    "wheel/b.snapshot": "snapshot b",
    "wheel/toy-1-0b-py3-none-any.whl": "wheel b",
    "wheel/toy_more-1-py3-none-any.whl": "another project's",
    "pyodide/pyodide.mjs": '// "pyodide.asm.js" "pyodide.asm.wasm" "python_stdlib.zip"',
    "pyodide/pyodide.asm.js": "first",
    "pyodide/pyodide.asm.wasm": "first",
    "pyodide/python_stdlib.zip": "first",
    "pyodide/numpy.whl": "first",
    "pyodide/pyodide-lock.json": json.dumps(
        {"packages": {"numpy": {"file_name": "numpy.whl", "depends": []}}}
    ),
}
KEEP = """async () => {
  const { keepOffline } = await import("/offline-client.js");
  return keepOffline("/pyodide/");
}"""
KEPT = """async () => {
  const cache = await caches.open("bascule-offline-1");
  return (await cache.keys()).map(({ url }) => new URL(url).pathname).sort();
}"""
FETCH = "async (path) => (await fetch(path)).text()"
IMPATIENT = "/offline.js?pyodide=%2Fpyodide%2F&patience=300"
TITLE = "() => document.title"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[FaultyServer]:
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    for name in ("offline.js", "offline-client.js"):
        shutil.copy(ROOT / "web" / name, tmp_path)
    with FaultyServer(tmp_path) as running:
        yield running


@pytest.fixture
def fresh(engine: Engine, new_page: Callable[[str], Page], server: FaultyServer) -> Page:
    """The site's page, with nothing kept yet."""
    page = new_page(f"{server.url}/")
    if not page.run("() => 'serviceWorker' in navigator"):
        pytest.skip(f"{engine.name} lacks navigator.serviceWorker")
    return page


@pytest.fixture
def visited(fresh: Page) -> Page:
    """The site's page after a first visit."""
    assert fresh.run(KEEP)
    wait_for(fresh, "navigator.serviceWorker.controller")
    return fresh


def test_a_first_visit_keeps_what_the_next_one_needs(visited: Page, server: FaultyServer) -> None:
    others = {"data.json", "models/config.json", "index.html"} | {
        "wheel/b.snapshot",
        "wheel/toy-1-0b-py3-none-any.whl",
        "wheel/toy_more-1-py3-none-any.whl",
    }
    expected = {"/", "/offline-client.js"} | {f"/{name}" for name in FILES if name not in others}
    assert set(visited.run(KEPT)) == expected
    server.down()
    visited.open(f"{server.url}/?another=query")
    assert visited.run(TITLE) == "first"
    assert visited.run("() => location.search") == "?another=query"
    assert visited.run(FETCH, "/wheel/toy-1-0a-py3-none-any.whl") == "wheel a"
    assert visited.run(FETCH, "/wheel/a.snapshot.gz") == "snapshot a"
    assert visited.run(KEEP)  # still all there


def test_data_models_and_ranges_pass_by(visited: Page, server: FaultyServer) -> None:
    asked = """async (path) => {
      const answer = await fetch(path, { headers: { Range: "bytes=0-2" } });
      return [answer.status, await answer.text()];
    }"""
    assert visited.run(FETCH, "/data.json") == visited.run(FETCH, "/models/config.json") == "{}"
    assert visited.run(asked, "/pyodide/pyodide.asm.js") == [206, "fir"]
    assert visited.run("async () => (await fetch('/', { method: 'HEAD' })).status") == 200
    assert not {"/data.json", "/models/config.json"} & set(visited.run(KEPT))
    server.down()
    failed = visited.run("() => fetch('/models/config.json').then(() => false, () => true)")
    assert failed


def test_an_edit_shows_at_the_next_reload(visited: Page, server: FaultyServer) -> None:
    server.replace("part.js", b'document.title = "second";')
    visited.open(f"{server.url}/")
    assert visited.run(TITLE) == "second"
    server.down()
    visited.open(f"{server.url}/")
    assert visited.run(TITLE) == "second"


def test_a_server_that_stalls_is_not_waited_for(fresh: Page, server: FaultyServer) -> None:
    fresh.run(f"async () => void (await navigator.serviceWorker.register('{IMPATIENT}'))")
    wait_for(fresh, "navigator.serviceWorker.controller")
    fresh.open(f"{server.url}/")
    wait_until(lambda: "/part.js" in fresh.run(KEPT))
    server.plan("/part.js", Fault("stall_headers", seconds=2 * TIMEOUT_S))  # `open` gives up first
    fresh.open(f"{server.url}/")
    assert fresh.run(TITLE) == "first"
    assert server.count("/part.js", 0) == 1  # it was asked


def test_a_server_that_answers_with_an_error_is_heard(visited: Page, server: FaultyServer) -> None:
    server.plan("index.json", Fault("status", status=500))
    status = "async () => (await fetch('/wheel/index.json')).status"
    assert visited.run(status) == 500
    server.heal()
    assert visited.run(status) == 200


def test_a_new_wheel_takes_the_place_of_the_old_one(visited: Page, server: FaultyServer) -> None:
    visited.run(FETCH, "/wheel/toy_more-1-py3-none-any.whl")
    index_b = {"wheel": "toy-1-0b-py3-none-any.whl", "snapshot": {"file": "b.snapshot"}}
    server.replace("wheel/index.json", json.dumps(index_b).encode())
    server.plan("-0b-py3-none-any.whl", Fault("drop", after=3), times=2)
    index = "async () => (await (await fetch('/wheel/index.json')).json()).wheel"
    assert "-0b-" in visited.run(index)
    wheels = f"async () => (await ({KEPT})()).filter((path) => path.endsWith('none-any.whl'))"
    wait_until(lambda: server.count("-0b-py3-none-any.whl") >= 1)
    time.sleep(0.5)
    assert [path[-19:-17] for path in visited.run(wheels)] == ["0a", "-1"]  # it did not come
    server.heal()
    assert "-0b-" in visited.run(index)
    wait_until(lambda: "-0a-" not in "".join(visited.run(wheels)))  # kept until all is there
    assert [path[-19:-17] for path in visited.run(wheels)] == ["0b", "-1"]
    server.down()
    assert "-0b-" in visited.run(index)
    assert visited.run(FETCH, "/wheel/toy-1-0b-py3-none-any.whl") == "wheel b"
    assert visited.run(FETCH, "/wheel/b.snapshot") == "snapshot b"
    assert "/wheel/a.snapshot.gz" not in visited.run(KEPT)


def test_a_new_pyodide_comes_whole_at_the_visit_after(visited: Page, server: FaultyServer) -> None:
    files = ["/pyodide/pyodide.asm.js", "/pyodide/pyodide.asm.wasm"]
    for file in files:
        server.replace(file, b"second")
    server.plan("asm.wasm", Fault("status"), times=1)
    server.reset_counts()
    assert [visited.run(FETCH, file) for file in files] == ["first", "first"]
    wait_until(lambda: server.count("asm.wasm", 503) == 1)
    time.sleep(0.5)
    assert visited.run(FETCH, files[0]) == "first"  # not one without the other
    wait_until(lambda: visited.run(FETCH, files[0]) == "second")
    wait_until(lambda: visited.run(FETCH, files[1]) == "second")
    assert server.sent["/pyodide/python_stdlib.zip"] == 0
    assert server.count("python_stdlib.zip", 304) > 0
