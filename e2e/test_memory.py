"""Memory is a promise: the peak of a load, and what a long life leaves behind."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Playwright

from e2e.conftest import Site, settled
from e2e.engines import Engine, Page, PlaywrightTab, on_disk

CHUNK_NBYTES = 4 << 20
# Beside the weights there are compiled shaders, the driver's staging memory and garbage: 1.9 to 2.5
# times was seen. A second copy of the file, in any process, would add 1.0.
MOST_GROWTH = 2.7
# JavaScript heaps of the page and its worker, after a collection. Chromium tells, where isolated.
JS_HEAPS = """async () => {
  if (!performance.measureUserAgentSpecificMemory) return 0;
  return (await performance.measureUserAgentSpecificMemory()).bytes;
}"""
FLAT = ("gpu_nbytes", "gpu_objects", "wasm_heap_nbytes", "pyproxies")


def browser_nbytes() -> int:
    """Proportional set size of every process below this one: browsers and their helpers."""
    parents: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            after = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        parents.setdefault(int(after[1]), []).append(int(stat.parent.name))
    waiting, total = list(parents.get(os.getpid(), [])), 0
    while waiting:
        pid = waiting.pop()
        waiting += parents.get(pid, [])
        try:
            rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
        except OSError:
            continue
        total += sum(int(row.split()[1]) for row in rollup.splitlines() if row.startswith("Pss:"))
    return total * 1024


@contextmanager
def sampled(peaks: list[int]) -> Iterator[None]:
    running = True

    def sample() -> None:
        while running:
            peaks.append(browser_nbytes())
            time.sleep(0.05)

    thread = threading.Thread(target=sample)
    thread.start()
    try:
        yield
    finally:
        running = False
        thread.join()


def test_the_peak_of_a_load(webgpu_engine: Engine, site: Site, playwright: Playwright) -> None:
    """Bytes under way stay within three chunks; the browser's growth is measured from outside."""
    ratios: list[float] = []
    # Garbage that was not collected yet only ever adds: the least of up to three loads tells.
    while len(ratios) < 3 and (not ratios or ratios[-1] >= MOST_GROWTH):
        ratios.append(_growth_of_a_load(webgpu_engine, site, playwright))
    assert min(ratios) < MOST_GROWTH, ratios


def _growth_of_a_load(engine: Engine, site: Site, playwright: Playwright) -> float:
    with on_disk(playwright, engine.name) as context:
        page = PlaywrightTab(context.new_page())
        page.open(f"{site.url}/?model=/goldens/tiny-bert&tier=webgpu&tune=off")
        assert settled(page) == "ready"
        before, peaks = browser_nbytes(), list[int]()
        with sampled(peaks):
            page.run("async () => { await bascule.load('all-MiniLM-L6-v2', 'webgpu'); }")
            time.sleep(0.5)
        stats = page.run("() => bascule.stats()")
    weights, growth = stats["weights_nbytes"], max(peaks) - before
    print(
        f"{engine.name}: weights {weights / 1e6:.1f} MB, under way at most "
        f"{stats['peak_chunk_nbytes'] / 1e6:.1f} MB, browser grew by {growth / 1e6:.1f} MB "
        f"({growth / weights:.2f} of the weights)"
    )
    assert 0 < stats["peak_chunk_nbytes"] <= 3 * CHUNK_NBYTES
    return growth / weights


def test_a_long_life_stays_flat(
    webgpu_engine: Engine, site: Site, new_page: Callable[[str], Page]
) -> None:
    """500 passes and 80 loads, with the small model: the objects are those of a large one.

    Where the browser measures no heap, what is counted needs fewer to show one that stays.
    """
    page = new_page(f"{site.url}/?count-proxies&tier=webgpu&model=/goldens/tiny-bert")
    assert settled(page) == "ready"
    passes = """async (count) => {
      // Ten in flight: a lone read-back takes Firefox 100 ms.
      for (let i = 0; i < count; i += 10) {
        await Promise.all(Array.from({ length: 10 }, () => bascule.embed(["w4 w5 w6"])));
      }
      return bascule.stats();
    }"""
    before = page.run(passes, 50)
    heaps = [page.run(JS_HEAPS)]
    n_passes, n_loads = (500, 80) if heaps[0] else (200, 12)
    after = page.run(passes, n_passes)
    heaps.append(page.run(JS_HEAPS))
    assert heaps[1] - heaps[0] < 500_000  # a leak of one kilobyte a pass would exceed this
    assert after["pyproxies"] > 0
    assert after["passes"] - before["passes"] == n_passes
    assert {k: after[k] for k in FLAT} == {k: before[k] for k in FLAT}

    loads = """async (count) => {
      for (let i = 0; i < count; i++) await bascule.load("/goldens/tiny-bert", "webgpu");
      return bascule.stats();
    }"""
    # The first ones bring code that stays, and after 20 to 25 the last step of Python's heap.
    before = page.run(loads, 30)
    heaps.append(page.run(JS_HEAPS))
    began = browser_nbytes()
    after = page.run(loads, n_loads)
    grown = (browser_nbytes() - began) / 1e6
    heaps.append(page.run(JS_HEAPS))
    print(
        f"{webgpu_engine.name}: {n_loads} loads grew the browser by {grown:.1f} MB, heaps {heaps}"
    )
    # The list of the page's fetches grows by 3 kB a load until it is full; a leak of 8 is seen.
    assert heaps[3] - heaps[2] < 640_000
    assert {k: after[k] for k in FLAT} == {k: before[k] for k in FLAT}
