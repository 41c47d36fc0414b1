"""Python starts from a memory snapshot; one that is not as promised costs time only."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Any

import pytest

from bascule.server.run import pyodide_folder
from bascule.server.snapshot import (
    Snapshot,
    find_snapshot,
    snapshots_folder,
    write_site_snapshot,
)
from e2e.conftest import Site, check_embeddings, settled
from e2e.engines import Engine, Page, wait_for

START = """async (query) => {
  const worker = new Worker("/lab/lab-worker.js?no-numpy&" + query, { type: "module" });
  const code = "import js, json, os, random, bascule.errors;" +
    "json.dumps([json.loads(js.lab_booted), random.random(), hash(object()), os.getcwd()])";
  const { value, error } = await new Promise((resolve, reject) => {
    worker.onerror = ({ message }) => reject(new Error(message));
    worker.onmessage = ({ data }) => resolve(data);
    worker.postMessage({ id: 0, code });
  });
  worker.terminate();
  if (error) throw new Error(error);
  return JSON.parse(value);
}"""


FETCH = """async (index) => {
  const { fetchSnapshot } = await import("/shipped.js");
  const { snapshot } = await (await fetch(index)).json();
  return fetchSnapshot(new URL(snapshot.file, new URL(index, location)), snapshot)
    .then((bytes) => `${bytes.length} bytes`, (error) => error.message);
}"""


def start(page: Page, query: str = "") -> tuple[dict[str, Any], float]:
    """Boot another worker in the page: how it booted, and its first random number."""
    booted, first, *_ = page.run(START, query)
    return booted, first


def test_a_page_starts_from_a_snapshot(
    engine: Engine, site: Site, new_page: Callable[[str], Page]
) -> None:
    page = new_page(f"{site.url}/?model=/goldens/tiny-bert&BASCULE_FORCE_CPU=1")
    assert settled(page) == "ready"
    stats = page.run("() => bascule.stats()")
    assert stats["boot_snapshot"] == 1
    assert stats["boot_compiled"] == 1  # by the page, while its worker started
    boot = [stats[f"boot_{stage}_ms"] for stage in ("library", "fetch", "start")]
    # Between them little is done; their sum is rounded.
    assert 0.5 * stats["boot_ms"] <= sum(boot) <= stats["boot_ms"] + 1e-6
    for stage in ("worker_ms", "package_ms", "config_ms", "tokenizer_ms"):
        assert stats[stage] > 0
    # The environment is the page's own, not that of the Pyodide that was remembered.
    assert page.run("() => document.querySelector('#tier').textContent") == "cpu"
    check_embeddings(page)


@pytest.fixture(scope="session")
def offers(site: Site) -> dict[str, str]:
    """Snapshots under /extra/offers/, a fault each; what fetching gives, by the site's name."""
    folder = site.extra / "offers"
    write_site_snapshot(pyodide_folder(), folder / "shipped")
    wheel = next((folder / "shipped").glob("*.whl"))
    snapshot = find_snapshot(pyodide_folder(), wheel)
    assert snapshot
    data = (snapshots_folder() / snapshot.file).read_bytes()
    noise = random.Random(0).randbytes(4096)
    faults = {
        "missing": (replace(snapshot, file="gone"), b"", "404"),
        "truncated": (snapshot, data[:-1000], "bytes instead of"),
        "corrupted": (snapshot, data[: 10 << 20] + noise + data[(10 << 20) + 4096 :], "hash"),
        "no-snapshot": (as_offered(snapshot, noise), noise, "no snapshot"),
        "whole": (snapshot, data, f"{len(data)} bytes"),
        "other-package": (replace(snapshot, key="another"), data, f"{len(data)} bytes"),
    }
    for name, (offered, body, _) in faults.items():
        site = folder / name
        site.mkdir(parents=True)
        (site / wheel.name).write_bytes(wheel.read_bytes())
        index = {"wheel": wheel.name, "snapshot": asdict(offered)}
        (site / "index.json").write_text(json.dumps(index))
        (site / snapshot.file).write_bytes(body)
    return {name: words for name, (_, _, words) in faults.items()}


def as_offered(snapshot: Snapshot, data: bytes) -> Snapshot:
    return replace(snapshot, sha256=hashlib.sha256(data).hexdigest(), nbytes=len(data))


def test_snapshots_that_are_not_as_promised(
    engine: Engine, site: Site, new_page: Callable[[str], Page], offers: dict[str, str]
) -> None:
    page = new_page(f"{site.url}/lab/?no-numpy")
    wait_for(page, "globalThis.lab")
    firsts = []
    for _ in range(2):
        booted, first = start(page, "index=/extra/offers/shipped/index.json")
        assert booted["snapshot"], booted
        firsts.append(first)
    assert firsts[0] != firsts[1]  # seeds are no part of what is remembered
    for name, words in offers.items():
        assert words in page.run(FETCH, f"/extra/offers/{name}/index.json"), name
    # The deepest fall: a memory that was restored and then judged.
    booted, _ = start(page, "index=/extra/offers/other-package/index.json")
    assert not booted["snapshot"]
    assert "another package" in booted["plain"]
    # For a Pyodide of another version none is fetched.
    booted, _ = start(page, "pyodide=/pyodide314/")
    assert not booted["snapshot"]
    assert not booted["plain"]
