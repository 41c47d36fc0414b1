"""The WebAssembly tier in each engine."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from e2e.conftest import Site, settled
from e2e.engines import Engine, Page, wait_for
from tests.goldens import cosines, golden

EMBED = """async (texts) => {
  const { data, rows, columns, tier, ms } = await bascule.embed(texts);
  return { data: Array.from(data), rows, columns, tier, ms };
}"""


def test_minilm_on_wasm(
    engine: Engine,
    site: Site,
    new_page: Callable[[str], Page],
    record_property: Callable[[str, object], None],
) -> None:
    """The goldens' embeddings; the time of a pass of 128 tokens is printed, not judged."""
    page = new_page(site.url + "/?tier=wasm")
    assert settled(page) == "ready", page.run("() => document.body.innerText")
    expected = golden("minilm")
    found = page.run(EMBED, expected.texts)
    assert found["tier"] == "wasm"
    rows = np.array(found["data"]).reshape(found["rows"], found["columns"])
    assert (cosines(rows, expected.embeddings) >= 0.99999).all()

    for tokens in (16, 128):
        text = " ".join(["bridge"] * (tokens - 2))
        ms = float(np.median([page.run(EMBED, [text])["ms"] for _ in range(7)]))
        record_property(f"ms_1x{tokens}", ms)
        print(f"{engine.name}: MiniLM 1x{tokens} on wasm in {ms:.1f} ms (median)")


LINK = """
import ctypes
from array import array
from bascule import assets
kernels = ctypes.CDLL(str(assets.path("web/wasm/kernels.wasm")))
a, b, y = array("f", range(9)), array("f", [0.5] * 9), array("f", [float("nan")] * 9)
kernels.multiply(y.buffer_info()[0], a.buffer_info()[0], b.buffer_info()[0], 9)
list(y) == [n / 2 for n in range(9)]
"""


def test_the_newest_pyodide_links_the_kernels(site: Site, new_page: Callable[[str], Page]) -> None:
    """It has no numpy here; the module, its dynamic linking and its memory are the same."""
    page = new_page(f"{site.url}/lab/?pyodide=/pyodide314/")
    wait_for(page, "globalThis.lab")
    assert page.run("(code) => lab.run(code)", LINK) is True
