"""The WebAssembly tier in each engine."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from e2e.conftest import Site, settled
from e2e.engines import Engine, Page
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
