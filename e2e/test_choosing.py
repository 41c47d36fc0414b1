"""What "auto" takes in each engine: the tier that was measured to be fastest, with its reason."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from e2e.conftest import Site, check_embeddings, settled
from e2e.engines import Engine, Page
from e2e.limited_adapter import NO_SIMD, limited
from tests.goldens import cosines, golden

LOADED = "async () => bascule.ready"  # the load that the address asked for
MODEL = "model=/goldens/tiny-bert"
# Which is faster at so small a model is for `load` to check: WebKit's clock counts whole ms.
ON_CPU = ("wasm", "cpu")
REFUSALS = {"reject": "planned refusal", "null": "found no adapter"}


def load(page: Page) -> tuple[str, str, dict[str, Any]]:
    """The tier that "auto" took, the reason that the page shows, what was considered by tier."""
    assert settled(page) == "ready", page.run("() => document.body.innerText")
    loaded = page.run(LOADED)
    reason: str = loaded["reason"]
    print(f"{reason} (device_ms {loaded['stats']['device_ms']:.0f})")
    assert page.run("() => document.querySelector('#reason').textContent") == reason
    assert f"auto took {loaded['tier']}: " in reason
    check_embeddings(page)
    decision = loaded["decision"]
    rows = {row["tier"]: row for row in decision["considered"]} if decision else {}
    able = {name: row["expected_ms"] for name, row in rows.items() if not row["refused"]}
    if decision:
        assert loaded["tier"] == decision["chosen"] == min(able, key=lambda name: able[name])
        assert ("software adapter" in decision["warning"]) == any("webgpu" in name for name in able)
    return loaded["tier"], reason, rows


@pytest.mark.every_engine
def test_auto_takes_the_fastest_and_says_why(
    engine: Engine, site: Site, new_page: Callable[[str], Page]
) -> None:
    page = new_page(f"{site.offline_url}/?{MODEL}")
    tier, reason, rows = load(page)
    # Every WebGPU here is a software one, which loses; the page says so in plain words.
    assert tier in ON_CPU
    assert (not rows["webgpu"]["refused"]) == engine.webgpu
    assert ("software adapter" in reason) == engine.webgpu
    if engine.webgpu:
        assert "webgpu works, on the same adapter" in rows["webgpu-limited"]["refused"]
    else:
        why = "no adapter" if engine.name.startswith("chromium") else "no navigator.gpu"
        assert why in rows["webgpu"]["refused"]
        assert f"webgpu refused ({rows['webgpu']['refused']})" in reason
    listed = page.run(
        "() => [...document.querySelectorAll('#decision li')]"
        ".map((row) => [row.textContent, row.ariaCurrent])"
    )
    assert [result.split(":")[0] for result, _ in listed] == list(rows)
    assert [result.split(":")[0] for result, current in listed if current] == [tier]
    _check_second_visit(page, site, tier, rows)


def _check_second_visit(page: Page, site: Site, tier: str, rows: dict[str, Any]) -> None:
    """What the first one found serves: one tier is opened, and neither visit needs numpy."""
    first = page.run("() => bascule.stats()")
    # WebKit's driver forgets an origin with its last page, unless a service worker is there.
    page.run("() => bascule.offline")
    page.open(f"{site.offline_url}/?{MODEL}")
    again, _, rows_again = load(page)
    second = page.run("() => bascule.stats()")
    assert again == tier
    for name, row in rows.items():  # the same figures, to the last digit
        assert rows_again[name]["expected_ms"] == row["expected_ms"]
        assert rows_again[name]["source"] == row["source"]
    # Nothing here rivals WASM, so no visitor waits until it is measured.
    typical = "typical elsewhere (no other tier here could be faster)"
    assert rows[tier]["source"] == (typical if tier == "wasm" else "predicted")
    assert first["tiers_open"] == sum(row["expected_ms"] is not None for row in rows.values())
    assert second["tiers_open"] == 1
    assert first["numpy_loaded"] == second["numpy_loaded"] == 0


@pytest.mark.parametrize("answer", ["reject", "null"])
@pytest.mark.one_engine
def test_real_webgpu_that_is_refused(
    webgpu_engine: Engine, site: Site, new_page: Callable[[str], Page], answer: Any
) -> None:
    tier, reason, rows = load(new_page(f"{site.url}/{limited(answer=answer)}/?{MODEL}"))
    assert tier in ON_CPU
    assert REFUSALS[answer] in rows["webgpu"]["refused"]
    assert REFUSALS[answer] in rows["webgpu-limited"]["refused"]
    assert f"webgpu refused ({rows['webgpu']['refused']})" in reason


@pytest.mark.one_engine
def test_an_adapter_that_serves_the_limited_tier_alone(
    webgpu_engine: Engine, site: Site, new_page: Callable[[str], Page]
) -> None:
    where = f"{limited(answer='compatibility')}/?{MODEL}&BASCULE_DISABLE_WASM=1"
    tier, reason, rows = load(new_page(f"{site.url}/{where}"))
    assert tier in ("webgpu-limited", "cpu")  # which is faster is for a quiet machine to know
    assert "no adapter" in rows["webgpu"]["refused"]
    assert rows["webgpu-limited"]["expected_ms"] > 0
    assert "BASCULE_DISABLE_WASM is set" in reason


@pytest.mark.one_engine  # whose lack of it is a wrapper's doing
def test_without_simd(engine: Engine, site: Site, new_page: Callable[[str], Page]) -> None:
    tier, reason, rows = load(new_page(f"{site.url}/{NO_SIMD}/?{MODEL}"))
    assert tier == "cpu" or (engine.webgpu and tier == "webgpu")
    assert "SIMD" in rows["wasm"]["refused"]
    assert "SIMD" in reason


@pytest.mark.one_engine
def test_a_tier_that_the_address_forces(
    engine: Engine, site: Site, new_page: Callable[[str], Page]
) -> None:
    result, reason, _ = load(new_page(f"{site.url}/?{MODEL}&BASCULE_FORCE_WEBGPU_LIMITED=1"))
    assert result == "webgpu-limited"
    assert "BASCULE_FORCE_WEBGPU_LIMITED asks for it" in reason


FORCED = """
import bascule, json, os
os.environ[SWITCH] = "1"
try:
    async with await bascule.load("/goldens/tiny-bert", tier="auto") as model:
        rows = (await model.embed(TEXTS)).tolist()
        found = [model.tier, model.tier_reason, rows]
finally:
    del os.environ[SWITCH]
json.dumps(found)
"""


@pytest.mark.parametrize(
    ("switch", "tier"), [("BASCULE_FORCE_CPU", "cpu"), ("BASCULE_FORCE_NUMBA", "wasm")]
)
@pytest.mark.one_engine
def test_a_tier_that_the_environment_forces(shared_lab: Page, switch: str, tier: str) -> None:
    """Where the address's switches go; in one page, which their address would boot anew."""
    expected = golden("tiny-bert")
    head = f"SWITCH, TEXTS = {switch!r}, {expected.texts!r}\n"
    result, reason, rows = json.loads(shared_lab.run("(code) => lab.run(code)", head + FORCED))
    assert result == tier
    assert f"{switch} asks for it" in reason
    assert (cosines(np.array(rows), expected.embeddings) >= 0.99999).all()


@pytest.mark.one_engine  # the address's switches end in Python's environment
def test_tiers_that_the_address_disables(
    engine: Engine, site: Site, new_page: Callable[[str], Page]
) -> None:
    off = "BASCULE_DISABLE_WASM=1&BASCULE_PLATFORM_NAME=cpu&BASCULE_WEIGHTS=/nowhere"
    tier, reason, rows = load(new_page(f"{site.url}/?{MODEL}&{off}"))
    assert tier == "cpu"
    assert "BASCULE_DISABLE_WASM is set" in rows["wasm"]["refused"]
    for name in ("webgpu", "webgpu-limited"):
        assert "BASCULE_PLATFORM_NAME says cpu" in rows[name]["refused"]
    assert "the only tier that is not refused" in reason


@pytest.mark.one_engine
def test_switches_that_contradict_each_other_are_told(
    engine: Engine, site: Site, new_page: Callable[[str], Page]
) -> None:
    page = new_page(f"{site.url}/?{MODEL}&BASCULE_FORCE_CPU=1&BASCULE_DISABLE_CPU=1")
    assert settled(page) == "error"
    assert "BASCULE_DISABLE_CPU" in page.run("() => document.querySelector('#error').textContent")
