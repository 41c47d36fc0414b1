"""Text to text and pictures in a page: what transformers answers, on the page's own tiers."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np

from e2e.conftest import Site
from e2e.engines import Engine, Page
from tests.goldens.t5 import N_GREEDY, TEXTS
from tests.goldens.t5 import build as build_t5
from tests.goldens.vision import build_vit, pictures

GOLDENS = Path(__file__).parents[1] / "tests" / "goldens"
SCRIPT = """
import io
import json

import bascule
import numpy as np
from pyodide.http import pyfetch

async def answers(tier, base, texts, most):
    picture = np.load(io.BytesIO(await (await pyfetch(f"{base}/picture.npy")).bytes()))
    async with await bascule.open_device(tier) as device:
        async with await device.load(f"{base}/t5") as model:
            written = [each.ids for each in await model.generate(texts, max_new_tokens=most)]
        async with await device.load(f"{base}/vit") as model:
            logits = await model.logits(picture)
    return json.dumps({"ids": written, "logits": logits.tolist()})
"""


def test_text_to_text_and_pictures(
    webgpu_engine: Engine, site: Site, shared: Callable[[str], Page]
) -> None:
    base = site.extra / f"families-{webgpu_engine.name}"
    build_t5("t5", base / "t5")
    build_vit(base / "vit")
    np.save(base / "picture.npy", pictures()[0])
    written, logits = np.load(GOLDENS / "t5.npz"), np.load(GOLDENS / "vision.npz")["vit_logits"][:1]
    page = shared(f"{site.url}/lab/?pyodide=/pyodide/")
    page.run("(code) => lab.run(code)", SCRIPT)
    for tier in ("webgpu", "wasm"):
        asked = (tier, f"{site.url}/extra/{base.name}", TEXTS[:2], N_GREEDY)
        found = json.loads(page.run("(code) => lab.run(code)", f"await answers{asked!r}"))
        expected = [written[f"t5.{at}.greedy"].tolist() for at in range(2)]
        assert found["ids"] == expected, tier
        assert np.abs(np.array(found["logits"]) - logits).max() < 1e-5 * np.abs(logits).max(), tier
