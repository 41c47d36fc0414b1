"""What "auto" takes in each engine: the tier that was measured to be fastest, with its reason."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from e2e.conftest import Site, settled
from e2e.engines import Engine, Page
from tests.goldens import cosines, golden

LOADED = "async () => bascule.load('/goldens/tiny-bert', 'auto')"


@pytest.mark.every_engine
def test_auto_takes_the_fastest_and_says_why(
    engine: Engine, site: Site, new_page: Callable[[str], Page]
) -> None:
    page = new_page(f"{site.url}/?model=/goldens/tiny-bert")
    assert settled(page) == "ready", page.run("() => document.body.innerText")
    loaded = page.run(LOADED)
    decision = loaded["decision"]
    print(f"{engine.name}: {loaded['reason']} (device_ms {loaded['stats']['device_ms']:.0f})")
    rows = {row["tier"]: row for row in decision["considered"]}
    able = {name: row["expected_ms"] for name, row in rows.items() if not row["refused"]}
    assert loaded["tier"] == decision["chosen"] == min(able, key=lambda name: able[name])
    assert ("webgpu" in able) == engine.webgpu
    # Every WebGPU here is a software one: the page says so in plain words.
    assert ("software one" in decision["warning"]) == engine.webgpu
    listed = page.run(
        "() => [...document.querySelectorAll('#decision li')]"
        ".map((row) => [row.textContent, row.ariaCurrent])"
    )
    assert [told.split(":")[0] for told, _ in listed] == [
        row["tier"] for row in decision["considered"]
    ]
    assert [told.split(":")[0] for told, current in listed if current] == [loaded["tier"]]
    shown = page.run("() => document.querySelector('#reason').textContent")
    assert shown == loaded["reason"]
    assert f"auto took {loaded['tier']}: " in shown
    assert engine.webgpu or "webgpu refused" in shown

    expected = golden("tiny-bert")
    found = page.run(
        "async (texts) => { const { data, rows } = await bascule.embed(texts);"
        " return { data: Array.from(data), rows }; }",
        expected.texts,
    )
    width = len(found["data"]) // found["rows"]
    matrix = [found["data"][i : i + width] for i in range(0, len(found["data"]), width)]
    assert (cosines(matrix, expected.embeddings) >= 0.99999).all()
