"""Servers and engines, started once a session."""

from __future__ import annotations

import logging
import shutil
import tempfile
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from playwright.sync_api import Playwright, Response
from xdist.scheduler import LoadScopeScheduling

from bascule.base.folders import models_folder
from bascule.server.app import create_app
from bascule.server.run import pyodide_folder, running
from bascule.server.snapshot import make_snapshot
from bascule.server.wheel import WheelHouse
from e2e.engines import ENGINES, Engine, Engines, Page, PlaywrightTab, wait_for
from e2e.faults import OFFLINE, Faults
from e2e.limited_adapter import WrappedWorkers
from tests.goldens import cosines, golden

ROOT = Path(__file__).resolve().parent.parent
OUT = ROOT / "out"
GOLDENS = ROOT / "tests" / "goldens"
MET_WEBGPU = "met WebGPU"
TIME_OF = "time of"  # as conftest.py at the root has it


@dataclass(frozen=True)
class Site:
    """A running dev server."""

    url: str
    faults: Faults
    extra: Path

    @property
    def offline_url(self) -> str:
        """The same site with its service worker, which `url` lacks."""
        return f"{self.url}/{OFFLINE}"


@contextmanager
def serving(*, isolated: bool = True, checkout: Path | None = None) -> Iterator[Site]:
    """The real dev server on a free port, with the tests' own folders mounted beside it."""
    folder = Path(tempfile.mkdtemp(prefix="bascule-e2e-"))
    if checkout is None:  # or the first pages would boot without it
        house = WheelHouse()
        make_snapshot(pyodide_folder(), house.current())
        house.close()
    app = create_app(
        models=models_folder(),
        pyodide=pyodide_folder(),
        isolated=isolated,
        checkout=checkout,
        snapshots=checkout is None,  # of a tree that changes none would be ready in time
        extra={
            "goldens": GOLDENS,
            "extra": folder,
            "lab": ROOT / "e2e" / "pages",
            "wrappers": ROOT / "e2e" / "wrappers",
            "pyodide314": ROOT / "node_modules" / "pyodide",
        },
    )
    faults = Faults(app, GOLDENS)
    logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)  # planned faults are no news
    with running(WrappedWorkers(faults)) as url:
        yield Site(url, faults, folder)
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def site() -> Iterator[Site]:
    with serving() as result:
        yield result


@pytest.fixture(scope="session")
def plain_site() -> Iterator[Site]:
    """The same without cross-origin isolation."""
    with serving(isolated=False) as result:
        yield result


# With WebGPU, without, and the third engine: for tests to which the other two add nothing.
ONE_OF_EACH = ("chromium-webgpu", "firefox-no-webgpu", "webkit")
WEBGPU_ENGINES = ("chromium-webgpu", "firefox-webgpu", "webkit")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Select the tests that run in each engine.

    Those marked `every_engine` in all five set-ups, those marked `one_engine` in the first, those
    that ask for `webgpu_engine` where there is WebGPU, all others once an engine: where all tiers
    are that it has for those marked `webgpu_engines`.
    """

    def wanted(item: pytest.Item) -> bool:
        callspec = getattr(item, "callspec", None)
        name = callspec.params.get("engine") if callspec else None
        if name is None or item.get_closest_marker("every_engine"):
            return True
        if item.get_closest_marker("one_engine"):
            return name == ONE_OF_EACH[0]
        if "webgpu_engine" in getattr(item, "fixturenames", ()):
            return ENGINES[name][1]
        return name in (
            WEBGPU_ENGINES if item.get_closest_marker("webgpu_engines") else ONE_OF_EACH
        )

    kept = [item for item in items if wanted(item)]
    config.hook.pytest_deselected(items=[item for item in items if item not in kept])
    longest = [f"test_{name}.py" for name in LONGEST]
    ranks = {name: rank for rank, name in enumerate(longest)}
    items[:] = sorted(kept, key=lambda item: ranks.get(item.path.name, len(ranks)))


# What takes longest begins first, or one worker would still run it when the other has ended. By the
# time that a file takes in the engine that is slowest at it.
LONGEST = (
    *("language", "errors", "cache", "network", "own_snapshot", "choosing", "remembering"),
    *("matrix", "csp", "tiers_agree", "memory", "chat", "limited_adapter", "capabilities"),
    *("faults", "offline", "sentences_page", "snapshot", "anywhere", "texts", "reopening"),
    *("bridge", "chat_page", "wasm_language", "quantize", "reload", "proven", "pyscript"),
    *("transcribe_page", "new_families", "console_page", "offline_worker", "arrays", "console"),
    *("webnn", "gguf", "strategies"),
)


class ByFileAndEngine(LoadScopeScheduling):
    """The tests of a file in one engine, which may share a page, are one worker's, in order."""

    def _split_scope(self, nodeid: str) -> str:
        file, _, test = nodeid.partition("::")
        return f"{file} {next((name for name in ENGINES if f'[{name}' in test), '')}"


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadScopeScheduling:
    config.option.loadscopereorder = False  # not by their number: see LONGEST
    return ByFileAndEngine(config, log)


@pytest.fixture(scope="session")
def engines(playwright: Playwright) -> Iterator[Engines]:
    started = Engines(playwright)
    yield started
    started.close()


@pytest.fixture(scope="session", params=ENGINES)
def engine(request: pytest.FixtureRequest, engines: Engines) -> Engine:
    """A browser; see `pytest_collection_modifyitems` for which tests run in which."""
    return engines.named(request.param)


@pytest.fixture
def webgpu_engine(engine: Engine, record_property: Callable[[str, object], None]) -> Engine:
    record_property(MET_WEBGPU, True)
    return engine


FAILED = pytest.StashKey[bool]()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, Any, Any]:
    report = yield
    item.stash[FAILED] = item.stash.get(FAILED, False) or report.failed
    return report


# The running test, for `settled`, which has no fixture to find it by.
_current: list[pytest.Item] = []


def record_time(kind: str, began: float) -> None:
    """Count the time since `began` to a kind in the run's summary (conftest.py at the root)."""
    for node in _current:
        node.user_properties.append((TIME_OF, (kind, time.monotonic() - began)))


@pytest.fixture(autouse=True)
def timed_test(request: pytest.FixtureRequest) -> None:
    _current[:] = [request.node]


class SharedPages:
    """Pages by their address, each opened when a test first asks for it."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._open: dict[str, Page] = {}

    def at(self, url: str) -> Page:
        if url not in self._open:
            self._open[url] = opened(self._engine, url)
        return self._open[url]

    def close(self) -> None:
        for page in self._open.values():
            page.close()
        self._open.clear()


@pytest.fixture(scope="module")
def shared_pages(engine: Engine) -> Iterator[SharedPages]:
    pages = SharedPages(engine)
    yield pages
    pages.close()


@pytest.fixture
def shared(
    shared_pages: SharedPages, request: pytest.FixtureRequest
) -> Iterator[Callable[[str], Page]]:
    """Opens pages that the tests of a file in one engine share.

    For tests that leave a page as they found it. The tests after one that fails get new pages.
    """
    yield shared_pages.at
    if request.node.stash.get(FAILED, False):
        shared_pages.close()


@pytest.fixture
def shared_page(shared: Callable[[str], Page], site: Site) -> Page:
    """One of them for tests that load their own models: one that needs no numpy is up first."""
    page = shared(f"{site.url}/?model=/goldens/tiny-bert&tier=wasm")
    settled(page)
    return page


@pytest.fixture
def own_lab(shared: Callable[[str], Page], site: Site) -> Page:
    """A page that runs the Python of a file's tests, which share its globals."""
    page = shared(f"{site.url}/lab/")
    booted(page)
    return page


@pytest.fixture(scope="session")
def labs(engines: Engines) -> Iterator[dict[Engine, Page]]:
    """Closed before the engines are, which is all that it needs of them."""
    pages: dict[Engine, Page] = {}
    yield pages
    for page in pages.values():
        page.close()


@pytest.fixture
def shared_lab(
    labs: dict[Engine, Page], engine: Engine, site: Site, request: pytest.FixtureRequest
) -> Iterator[Page]:
    """A page that runs Python for the tests of all files, for those that plant nothing in it.

    The tests after one that fails get a new page.
    """
    if engine not in labs:
        labs[engine] = opened(engine, f"{site.url}/lab/")
        booted(labs[engine])
    yield labs[engine]
    if request.node.stash.get(FAILED, False):
        labs.pop(engine).close()


@pytest.fixture
def new_page(engine: Engine) -> Iterator[Callable[[str], Page]]:
    """Opens pages and closes them after the test."""
    pages: list[Page] = []

    def open_page(url: str) -> Page:
        pages.append(opened(engine, url))
        return pages[-1]

    yield open_page
    for page in pages:
        page.close()


def opened(engine: Engine, url: str) -> Page:
    """A new page at an address; one that cannot get there is closed again."""
    began = time.monotonic()
    page = engine.new_page()
    try:
        page.open(url)
    except BaseException:
        page.close()
        raise
    record_time("open a page", began)
    return page


def booted(page: Page) -> None:
    """Wait for the page at /lab/ to run Python."""
    began = time.monotonic()
    wait_for(page, "globalThis.lab")
    page.run("() => lab.run('0')")
    record_time("boot and load", began)


def settled(page: Page) -> str:
    """Wait for the demo page to be ready or to fail; tells which."""
    ready = "['ready','error'].includes(document.querySelector('#status')?.dataset.state)"
    began = time.monotonic()
    wait_for(page, ready)
    record_time("boot and load", began)
    return page.run("() => document.querySelector('#status').dataset.state")


def console_of(page: Page) -> list[str]:
    """A list that fills with what the page writes to its console, and with answers that failed."""
    assert isinstance(page, PlaywrightTab)
    lines: list[str] = []
    page.page.on("console", lambda message: lines.append(f"{message.type}: {message.text}"))
    page.page.on("pageerror", lambda error: lines.append(f"uncaught: {error}"))

    def hear(answer: Response) -> None:
        if not answer.ok and answer.status != 304:  # 304: kept and still true
            lines.append(f"{answer.status}: {answer.url}")

    page.page.on("response", hear)
    return lines


def check_embeddings(page: Page) -> None:
    """What tiny-bert, loaded in the page, makes of its texts is what the reference makes."""
    expected = golden("tiny-bert")
    result = page.run(
        "async (texts) => { const { data, columns } = await bascule.embed(texts);"
        " return { data: Array.from(data), columns }; }",
        expected.texts,
    )
    matrix = np.reshape(result["data"], (-1, result["columns"]))
    assert (cosines(matrix, expected.embeddings) >= 0.99999).all()


class WebGpuCount:
    """A full run in which no test used a WebGPU device proves nothing: it fails."""

    def __init__(self) -> None:
        self._stories = self._on_webgpu = 0

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call":
            self._stories += 1
            self._on_webgpu += (MET_WEBGPU, True) in report.user_properties

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        if exitstatus == 0 and self._stories > 20 and not self._on_webgpu:
            session.exitstatus = 1
            print("No test ran on WebGPU.")


def pytest_configure(config: pytest.Config) -> None:
    if not hasattr(config, "workerinput"):  # workers see their own share only
        config.pluginmanager.register(WebGpuCount())
