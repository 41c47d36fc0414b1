"""The wheel under PyScript, by what PyScript's own documentation says of packages."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from bascule.server.app import create_app
from bascule.server.run import pyodide_folder, running
from bascule.server.wheel import write_wheel
from e2e.conftest import GOLDENS, ROOT
from e2e.engines import Engine, Page, wait_for
from tests.goldens import cosines, golden

PAGE = """<!doctype html><meta charset="utf-8"><link rel="icon" href="data:,">
<script type="module" src="/pyscript/core.js"></script>
<py-config>CONFIG</py-config>
<script type="py">
import json
import bascule
import js
try:
    model = await bascule.load("/models/tiny-bert", tier="wasm")
    embeddings = await model.embed(json.loads(js.texts))
    js.answer = json.dumps({"tier": model.tier, "rows": embeddings.tolist()})
except Exception as error:
    js.answer = json.dumps({"error": str(error)})
</script>"""


@pytest.mark.one_engine
def test_a_model_under_pyscript(
    engine: Engine, tmp_path: Path, new_page: Callable[[str], Page]
) -> None:
    wheel = write_wheel(tmp_path)
    packages = ["numpy", f"/own/{wheel.name}"]
    config = {"interpreter": "/pyodide/pyodide.mjs", "packages": packages}
    texts = json.dumps(golden("tiny-bert").texts)
    page_text = PAGE.replace("CONFIG", json.dumps(config))
    (tmp_path / "texts.js").write_text(f"globalThis.texts = {json.dumps(texts)};")
    (tmp_path / "index.html").write_text('<script src="texts.js"></script>' + page_text)
    folders = {"own": tmp_path, "pyscript": ROOT / "node_modules" / "@pyscript" / "core" / "dist"}
    app = create_app(models=GOLDENS, pyodide=pyodide_folder(), isolated=False, extra=folders)
    with running(app) as url:
        page = new_page(f"{url}/own/index.html")
        wait_for(page, "globalThis.answer")
        result = json.loads(page.run("() => globalThis.answer"))
    assert result.get("error") is None
    assert result["tier"] == "wasm"
    assert (cosines(np.array(result["rows"]), golden("tiny-bert").embeddings) >= 0.99999).all()
