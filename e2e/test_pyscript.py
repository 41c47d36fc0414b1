"""The wheel under PyScript, by what PyScript's own documentation says of packages."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bascule.server.app import create_app
from bascule.server.run import pyodide_folder, running
from bascule.server.wheel import write_wheel
from e2e.conftest import GOLDENS, ROOT
from e2e.engines import Engine, Page, wait_for
from tests.goldens import cosines, golden

PAGE = """<!doctype html><meta charset="utf-8"><link rel="icon" href="data:,">
<canvas id="shown" width="70" height="30"></canvas>
<script type="module" src="/pyscript/core.js"></script>
<py-config>CONFIG</py-config>
<script type="py">
import json
import bascule
import js
try:
    BODY
except Exception as error:
    js.answer = json.dumps({"error": str(error)})
</script>"""
EMBED = """
    model = await bascule.load("/models/tiny-bert", tier="wasm")
    embeddings = await model.embed(json.loads(js.texts))
    js.answer = json.dumps({"tier": model.tier, "rows": embeddings.tolist()})
"""
# On the page's own thread: a kernel, an array and a canvas element.
COMPUTE = """
    import numpy as np
    import bascule.array as xp
    words = np.random.default_rng(9).integers(0, 1 << 32, (30, 70), dtype=np.uint32)
    async with await bascule.open_device("webgpu") as device:
        scale = bascule.elementwise("x: f32 -> y: f32", "y = x * 3.0", device=device)
        tripled = await (await scale(np.arange(5, dtype=np.float32))).numpy()
        x = device.asarray(np.arange(9, dtype=np.float32))
        canvas = device.canvas(70, 30, js.document.querySelector("#shown"))
        await canvas.draw(words)
        await canvas.next_frame()
        total = float(await xp.sum(x * x).numpy())
        found = {"tier": device.tier, "way": canvas.way, "total": total}
        js.answer = json.dumps({**found, "tripled": tripled.tolist()})
        while not hasattr(js, "seen"):
            await canvas.next_frame()
"""
# The colours that the element shows.
SHOWN = """() => {
  const context = new OffscreenCanvas(70, 30).getContext("2d");
  context.drawImage(document.querySelector("#shown"), 0, 0);
  const colours = [...context.getImageData(0, 0, 70, 30).data];
  globalThis.seen = true;
  return colours;
}"""


def _answer(folder: Path, body: str, new_page: Callable[[], Page]) -> tuple[Page, dict[str, Any]]:
    """The page that PyScript runs a script in, and what that answers."""
    wheel = write_wheel(folder)
    packages = ["numpy", f"/own/{wheel.name}"]
    config = {"interpreter": "/pyodide/pyodide.mjs", "packages": packages}
    texts = json.dumps(golden("tiny-bert").texts)
    page_text = PAGE.replace("CONFIG", json.dumps(config)).replace("BODY", body.strip())
    (folder / "texts.js").write_text(f"globalThis.texts = {json.dumps(texts)};")
    (folder / "index.html").write_text('<script src="texts.js"></script>' + page_text)
    folders = {"own": folder, "pyscript": ROOT / "node_modules" / "@pyscript" / "core" / "dist"}
    app = create_app(models=GOLDENS, pyodide=pyodide_folder(), isolated=False, extra=folders)
    with running(app) as url:
        page = new_page()
        page.open(f"{url}/own/index.html")
        wait_for(page, "globalThis.answer")
        result = json.loads(page.run("() => globalThis.answer"))
    assert result.get("error") is None
    return page, result


@pytest.mark.one_engine
def test_a_model_under_pyscript(engine: Engine, tmp_path: Path) -> None:
    page, result = _answer(tmp_path, EMBED, engine.new_page)
    page.close()
    assert result["tier"] == "wasm"
    assert (cosines(np.array(result["rows"]), golden("tiny-bert").embeddings) >= 0.99999).all()


def test_kernels_arrays_and_a_canvas_element_under_pyscript(
    webgpu_engine: Engine, tmp_path: Path
) -> None:
    page, result = _answer(tmp_path, COMPUTE, webgpu_engine.new_page)
    shown = np.array(page.run(SHOWN), np.uint8).reshape(30, 70, 4)
    page.close()
    # A canvas of a SwiftShader device takes all devices away from a page of Chromium.
    way = "copy" if webgpu_engine.name.startswith("firefox") else "pixels"
    assert (result["tier"], result["way"]) == ("webgpu", way)
    assert (result["tripled"], result["total"]) == ([0, 3, 6, 9, 12], 204)
    words = np.random.default_rng(9).integers(0, 1 << 32, (30, 70), dtype=np.uint32)
    np.testing.assert_array_equal(
        shown[:, :, :3], words.view(np.uint8).reshape(30, 70, 4)[:, :, :3]
    )
    assert (shown[:, :, 3] == 255).all()
