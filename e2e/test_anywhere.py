"""Bascule's files where others put them: below a path, elsewhere, in a bundle, in a venv."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import numpy as np
import pytest

from bascule.server.app import create_app
from bascule.server.run import pyodide_folder, running
from bascule.server.wheel import write_wheel
from bascule.weights.manifest import make_manifest
from bascule.weights.names import MANIFEST, model_files
from e2e.conftest import GOLDENS, ROOT, console_of
from e2e.engines import Engine, Page, wait_for
from e2e.static_site import static_site
from tests.goldens import cosines, golden

pytestmark = pytest.mark.one_engine
VITE = ROOT / "node_modules" / ".bin" / "vite"
PAGE = """<!doctype html><meta charset="utf-8"><link rel="icon" href="data:,">
<script type="module" src="page.js"></script>"""
SCRIPT = """import { BasculeClient } from "CLIENT";
globalThis.embed = async ({ model, tier, texts, prepared = [] }) => {
  const client = new BasculeClient();
  for (const name of prepared) client.prepare(name);
  const isFetched = () =>
    performance.getEntriesByType("resource").some(({ name }) => name.endsWith("/worker.js"));
  while (prepared.length && !isFetched()) await new Promise((wake) => setTimeout(wake, 10));
  const { tier: took } = await client.load(model, tier);
  const { data, columns } = await client.embed(texts);
  return { tier: took, data: Array.from(data), columns };
};"""


def check(page: Page, model: str, tier: str, prepared: Sequence[str] = ()) -> None:
    """What a page's `embed` makes of tiny-bert's texts is what the reference makes."""
    wait_for(page, "globalThis.embed")
    expected = golden("tiny-bert")
    asked = {"model": model, "tier": tier, "texts": expected.texts, "prepared": prepared}
    result: dict[str, Any] = page.run("(asked) => globalThis.embed(asked)", asked)
    assert result["tier"] == tier
    matrix = np.reshape(result["data"], (-1, result["columns"]))
    assert (cosines(matrix, expected.embeddings) >= 0.99999).all()


def unpack(folder: Path) -> Path:
    """All that a site needs: client.js from the wheel, with wheel, pyodide and models beside it."""
    wheel = write_wheel(folder / "wheel")
    with ZipFile(wheel) as archive:
        for name in archive.namelist():
            if name.startswith("bascule/web/"):
                target = folder / name.removeprefix("bascule/web/")
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(archive.read(name))
    (folder / "pyodide").symlink_to(pyodide_folder())
    shutil.copytree(GOLDENS / "tiny-bert", folder / "models" / "tiny-bert")
    return folder


def test_a_static_site_below_a_path(
    webgpu_engine: Engine, tmp_path: Path, new_page: Callable[[str], Page]
) -> None:
    """With a manifest nothing is asked for that is not there, and the console stays empty."""
    project = tmp_path / "myproject"
    model = unpack(project / "bascule") / "models" / "tiny-bert"
    listed = make_manifest(model, model_files(model), 4 << 20, lambda _: None)
    (model / MANIFEST).write_bytes(listed)
    (project / "index.html").write_text(PAGE)
    (project / "page.js").write_text(SCRIPT.replace("CLIENT", "./bascule/client.js"))
    with static_site(tmp_path) as url:
        page = new_page("about:blank")
        console = console_of(page)
        page.open(f"{url}/myproject/")
        check(page, "bascule/models/tiny-bert", "webgpu")
        assert console == []


def test_a_page_of_another_origin(
    engine: Engine, tmp_path: Path, new_page: Callable[[str], Page]
) -> None:
    (tmp_path / "index.html").write_text(PAGE)
    with static_site(tmp_path) as own:
        app = create_app(models=GOLDENS, pyodide=pyodide_folder(), isolated=False, cors=own)
        with running(app) as url:
            script = SCRIPT.replace("CLIENT", f"{url}/client.js")
            (tmp_path / "page.js").write_text(script)
            check(new_page(f"{own}/"), f"{url}/models/tiny-bert", "wasm")


@pytest.mark.parametrize("prepared", ["models/tiny-bert", "models/no-such-model", "http://["])
def test_python_starts_before_a_model_is_loaded(
    engine: Engine, tmp_path: Path, new_page: Callable[[str], Page], prepared: str
) -> None:
    """Whatever was prepared, the model that is loaded then answers."""
    unpack(tmp_path)
    (tmp_path / "index.html").write_text(PAGE)
    (tmp_path / "page.js").write_text(SCRIPT.replace("CLIENT", "./client.js"))
    with static_site(tmp_path) as url:
        check(new_page(f"{url}/"), "models/tiny-bert", "wasm", [prepared])


def test_a_page_that_vite_builds(
    engine: Engine, tmp_path: Path, new_page: Callable[[str], Page]
) -> None:
    built = tmp_path / "app"
    subprocess.run(
        [VITE, "build", "--outDir", built, "--emptyOutDir", "--logLevel", "warn"],
        cwd=ROOT / "e2e" / "pages" / "vite",
        check=True,
    )
    write_wheel(built / "wheel")
    (built / "pyodide").symlink_to(pyodide_folder())
    shutil.copytree(GOLDENS / "tiny-bert", built / "tiny-bert")
    with static_site(tmp_path) as url:
        check(new_page(f"{url}/app/"), "./tiny-bert", "wasm")


@contextmanager
def served(bascule: Path, folder: Path) -> Iterator[str]:
    """Run an installed `bascule serve` in a folder; gives its URL."""
    keep = ("PATH", "HOME", "XDG_RUNTIME_DIR")
    environment = {name: os.environ[name] for name in keep if name in os.environ}
    environment["BASCULE_CACHE"] = str(folder / "cache")
    fetch = [bascule, "pyodide", "--from", pyodide_folder()]
    subprocess.run(fetch, cwd=folder, env=environment, check=True, capture_output=True)
    server = subprocess.Popen(
        [bascule, "serve", "--port", "0", "--models", GOLDENS],
        cwd=folder,
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert server.stderr
        output = server.stderr.readline()
        result = re.search(r"http://\S+", output)
        assert result, output
        yield result[0]
    finally:
        server.terminate()
        server.wait(timeout=20)


def test_an_installed_package_serves_without_a_checkout(
    engine: Engine, tmp_path: Path, new_page: Callable[[str], Page]
) -> None:
    venv = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", venv], check=True)
    install = [sys.executable, "-m", "pip", "--python", venv / "bin" / "python", "install"]
    wheel = write_wheel(tmp_path / "dist")
    subprocess.run([*install, "--quiet", "--no-deps", "--no-index", wheel], check=True)
    # The packages that Bascule needs are those of the tests; its own checkout is not among them.
    inside = next((venv / "lib").glob("python*/site-packages"))
    (inside / "needed.pth").write_text(sysconfig.get_path("purelib") + "\n")
    expected = golden("tiny-bert")
    with served(venv / "bin" / "bascule", tmp_path) as url:
        page = new_page(f"{url}?model=/models/tiny-bert&tier=wasm")
        wait_for(page, "document.querySelector('#embed')")
        page.run(
            "(texts) => { document.querySelector('#texts').value = texts.join('\\n');"
            " document.querySelector('#embed').click(); }",
            expected.texts[:3],
        )
        wait_for(page, "document.querySelector('#result').textContent")
        shown = page.run("() => document.querySelector('#result').textContent")
        status = page.run("() => document.querySelector('#status').textContent")
    rows = np.array([[float(x) for x in line.split()] for line in shown.splitlines()])
    assert status == f"3 embeddings of {expected.embeddings.shape[1]} numbers on wasm."
    np.testing.assert_allclose(rows, expected.embeddings[:3, :4], atol=1e-4)
