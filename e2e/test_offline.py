"""A page that was visited before opens with its server gone, and does not fetch Python again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import httpx
import pytest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from bascule.base.folders import models_folder
from bascule.server.app import create_app
from bascule.server.run import pyodide_folder, running
from e2e.conftest import GOLDENS, Site, settled
from e2e.engines import Engine, Page, wait_until
from tests.weights.faulty import FaultyServer

# Pyodide's files that are kept: offline.js looks each up three seconds after it served one.
PYODIDE = """async () => {
  const cache = await caches.open("bascule-offline-1");
  const places = (await cache.keys()).map(({ url }) => new URL(url).pathname);
  return places.filter((place) => place.startsWith("/pyodide/"));
}"""
EMBED = "async () => Array.from((await bascule.embed(['w4 w5'])).data)"
TINY_LLAMA = "tiny-llama/tiny-q4_1.gguf"
GENERATE = (
    "async () => (await bascule.generate([1, 85, 91], { greedy: true, max_new_tokens: 9 })).ids"
)
KEPT = "() => bascule.offline"


class Counted:
    """Counts the bytes of the bodies that an app sends, by path."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._sent: Counter[str] = Counter()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def count(message: Message) -> None:
            self._sent[scope["path"]] += len(message.get("body", b""))
            await send(message)

        await self._app(scope, receive, count if scope["type"] == "http" else send)

    @property
    def asked(self) -> set[str]:
        """The paths asked for since they were last taken."""
        return set(self._sent)

    def take(self, prefix: str) -> int:
        """Bytes sent of all paths that begin so, since this was last asked."""
        paths = [path for path in self._sent if path.startswith(prefix)]
        return sum(self._sent.pop(path) for path in paths)


@pytest.fixture
def app() -> Counted:
    """The demo's site, which ships a snapshot of Python, for a server of this test's own."""
    return Counted(create_app(models=models_folder(), pyodide=pyodide_folder(), snapshots=True))


@pytest.fixture
def models() -> Iterator[FaultyServer]:
    """A model on another server."""
    with FaultyServer(GOLDENS) as server:
        yield server


@contextmanager
def tab_of(page: Page, url: str) -> Iterator[Page]:
    tab = page.new_tab()
    tab.open(url)
    yield tab
    if tab is not page:
        tab.close()


def test_a_visited_page_opens_with_its_server_gone(
    engine: Engine,
    site: Site,  # whose server has made the snapshot
    new_page: Callable[[str], Page],
    app: Counted,
    models: FaultyServer,
) -> None:
    query = f"/?tier=cpu&model={models.url}/tiny-bert"
    with running(app) as url:
        page = new_page(url + query)
        assert settled(page) == "ready"
        if not page.run("() => 'serviceWorker' in navigator"):
            pytest.skip(f"{engine.name} lacks navigator.serviceWorker")
        assert page.run(KEPT)
        expected = page.run(EMBED)
        page.run(f"() => bascule.load('{models.url}/{TINY_LLAMA}', 'cpu')")
        answer = page.run(GENERATE)
        isolated = page.run("() => crossOriginIsolated")
        first = app.take("/pyodide/")
        app.take("/wheel/")
        with tab_of(page, url + query) as tab:
            assert settled(tab) == "ready"
            kept = set(tab.run(PYODIDE))
            wait_until(lambda: kept <= app.asked)
        again = app.take("/pyodide/")
        print(f"{engine.name}: Pyodide, first visit {first:,} bytes, second visit {again:,}")
        assert again == 0
        assert app.take("/wheel/") < 10_000  # the index
    with pytest.raises(httpx.ConnectError):
        httpx.get(url)
    models.down()
    with tab_of(page, url + query) as tab:
        assert settled(tab) == "ready"
        assert tab.run("() => bascule.stats()")["boot_snapshot"] == 1
        assert tab.run(EMBED) == expected
        assert tab.run("() => crossOriginIsolated") == isolated
        assert tab.run(KEPT)
    # The other page is kept with this one, though it was never open.
    with tab_of(page, f"{url}/chat.html?tier=cpu&model={models.url}/{TINY_LLAMA}") as tab:
        assert settled(tab) == "ready"
        assert tab.run(GENERATE) == answer
