"""A page whose GPU computes wrongly: it finds out, says what it rejected, and answers rightly."""

from __future__ import annotations

import json
from collections.abc import Callable

import numpy as np
import pytest

from e2e.conftest import Site, booted, check_embeddings, settled
from e2e.engines import Engine, Page
from e2e.limited_adapter import miscompiling
from tests.goldens import cosines, golden

TINY = "/goldens/tiny-bert"
REASON = "() => document.querySelector('#reason').textContent"


def test_a_wrong_kernel_is_replaced_by_another(
    webgpu_engine: Engine, site: Site, new_page: Callable[[str], Page]
) -> None:
    page = new_page("about:blank")
    wrong = miscompiling("layer_norm_lane")  # all its sizes; the one with a workgroup a row is fine
    for visit in ("first", "second"):
        page.open(f"{site.url}/{wrong}/?model={TINY}&tier=webgpu")
        assert settled(page) == "ready", page.run("() => document.body.innerText")
        stats = page.run("() => bascule.stats()")
        result = {name: round(stats[name], 1) for name in ("kernels_tried", "proof_ms", "load_ms")}
        print(f"{webgpu_engine.name}, {visit} visit: {result}")
        reason = page.run(REASON)
        assert "layer_norm_lane 16 was rejected: its numbers are off by" in reason
        check_embeddings(page)
        assert (stats["kernels_tried"] > 0) == (visit == "first")


# What a page's worker does, where a real GPU would be taken: it is remembered as fast.
LOADS = """
import json
import bascule
from bascule.base.remembered import open_remembered
from bascule.choosing.speed_records import SpeedRecord, speed_key
from bascule.choosing.speeds import Sample, Speeds
from bascule.page.worker_browser import PageSession

async def remember_as_fast():
    opened = await bascule.open_device("webgpu")
    identity = opened.backend.adapter.identity
    opened.close()
    row = tuple(Sample(work, 2e-12 + 1e-18 * work, 1e-12 + 1e-18 * work) for work in (1, 10**12))
    record = SpeedRecord(Speeds({"product": row, "pass": row, "blocks": row}))
    await (await open_remembered()).put(speed_key("webgpu", identity), record.as_json())

async def loads(model, texts):
    session = PageSession()
    refused = json.loads(await session.load(model, "webgpu", lambda *_: None))
    await remember_as_fast()
    taken = json.loads(await session.load(model, "auto", lambda *_: None))
    embedded = await session.embed(json.dumps(texts))
    return json.dumps([refused, taken, embedded.rows.tolist()])
"""


@pytest.mark.one_engine
def test_a_wrong_op_costs_the_tier(
    webgpu_engine: Engine, site: Site, new_page: Callable[[str], Page]
) -> None:
    page = new_page(f"{site.url}/{miscompiling('layer_norm_lane', 'layer_norm')}/lab/?no-numpy")
    booted(page)
    expected = golden("tiny-bert")
    code = f"{LOADS}\nawait loads({TINY!r}, {expected.texts!r})"
    refused, output, rows = json.loads(page.run("(code) => lab.run(code)", code))
    # Asked for by its name, the tier is not replaced: an error that says what is wrong.
    assert "layer_norm" in refused["error"]["what"]
    assert "is wrong on this device" in refused["error"]["what"]
    # "auto" would take it and leaves it.
    print(f"{webgpu_engine.name}: {output['reason']}")
    assert output["reason"].startswith("auto took wasm: ")
    assert "webgpu refused (layer_norm" in output["reason"]
    assert output["decision"]["chosen"] == "webgpu"
    assert output["tier"] == "wasm"
    (step,) = output["proof"]["steps"]
    assert step.startswith("webgpu was rejected: layer_norm")
    result = np.reshape(rows, expected.embeddings.shape)
    assert (cosines(result, expected.embeddings) >= 0.99999).all()
