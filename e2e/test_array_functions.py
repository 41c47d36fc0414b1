"""The native tests of arrays' functions, run by pytest in each browser's Python."""

from __future__ import annotations

import io
import itertools
import json
import os
from collections.abc import Callable
from pathlib import Path
from zipfile import ZIP_DEFLATED, ZipFile

import _pytest
import iniconfig
import pluggy
import pygments
import pytest

from e2e.conftest import ROOT, Site
from e2e.engines import Engine, Page

MODULES = ("test_elementwise.py", "test_shapes.py", "test_fft.py")
OF_TIERS = {"wasm": ("test_loops.py", "test_groups.py", "test_host_plans.py")}
# A page opens the device before, and pytest of a page has no tests/conftest.py.
CONFTEST = """
import bascule.array as xp
import numpy as np
import pytest
from __main__ import opened, seed
from tests.array.loop_fixtures import any_size, by_loops

@pytest.fixture
def tier():
    xp.set_default_device(opened[-1])
    return opened[-1].tier

@pytest.fixture
def on_wasm():
    xp.set_default_device(opened[-1])

@pytest.fixture
def rng():
    return np.random.default_rng(seed)
"""
SCRIPT = """
import io, json, sys, zipfile
import bascule
import pyodide_js
from pyodide.http import pyfetch

await pyodide_js.loadPackage(["packaging"])
files = await (await pyfetch(URL)).bytes()
zipfile.ZipFile(io.BytesIO(files)).extractall("/home/pyodide/checked")
sys.path.insert(0, "/home/pyodide/checked")
import pytest

seed, opened = SEED, []

class Outcomes:
    def __init__(self):
        self.passed, self.failed = 0, []

    def pytest_runtest_logreport(self, report):
        if report.failed:
            self.failed.append(f"{report.nodeid}: {str(report.longrepr)[-1500:]}")
        self.passed += report.when == "call" and report.passed

async def check(tier, modules):
    plain = ("-p", "no:cacheprovider", "-p", "no:faulthandler", "--capture=no")
    outcomes = Outcomes()
    async with await bascule.open_device(tier) as device:
        opened.append(device)
        folder = "/home/pyodide/checked/tests/array"
        files = [f"{folder}/{name}" for name in modules]
        pytest.main(["-q", "--tb=short", *plain, *files], plugins=[outcomes])
    return json.dumps([outcomes.passed, outcomes.failed])
"""


def packed() -> bytes:
    """pytest with what it needs, and the tests."""
    target = io.BytesIO()
    with ZipFile(target, "w", ZIP_DEFLATED) as files:
        for module in (pytest, _pytest, pluggy, iniconfig, pygments):
            folder = Path(str(module.__file__)).parent
            for path in folder.rglob("*.py"):
                files.write(path, f"{folder.name}/{path.relative_to(folder)}")
        files.write(Path(str(pytest.__file__)).parent.parent / "py.py", "py.py")
        for name in itertools.chain(MODULES, ("loop_fixtures.py",), *OF_TIERS.values()):
            files.write(ROOT / "tests" / "array" / name, f"tests/array/{name}")
        files.writestr("tests/array/conftest.py", CONFTEST)
    return target.getvalue()


@pytest.fixture
def checked_page(engine: Engine, site: Site, shared: Callable[[str], Page]) -> Page:
    """A page whose Python has pytest and the tests; plain code waits there where JSPI lets it."""
    # Installed anew: Python that a snapshot started has no JSPI in this Pyodide.
    page = shared(f"{site.url}/lab/?pyodide=/pyodide/&micropip=1")
    if not page.run("() => globalThis.hasTests"):
        name = f"array-tests-{engine.name}.zip"
        (site.extra / name).write_bytes(packed())
        seed = int.from_bytes(os.urandom(4))
        print(f"seed {seed}")
        script = SCRIPT.replace("URL", repr(f"{site.url}/extra/{name}")).replace("SEED", str(seed))
        page.run("(code) => lab.run(code)", script)
        page.run("() => { globalThis.hasTests = true; }")
    return page


def check(page: Page, tier: str) -> None:
    modules = (*MODULES, *OF_TIERS.get(tier, ()))
    code = f"await check({tier!r}, {modules})"
    passed, failed = json.loads(page.run("(code) => lab.run(code)", code))
    assert failed == [], tier
    assert passed > 100


def test_every_function_without_a_gpu(checked_page: Page) -> None:
    for tier in ("wasm", "cpu"):
        check(checked_page, tier)


def test_every_function_on_a_gpu(webgpu_engine: Engine, checked_page: Page) -> None:
    assert webgpu_engine.webgpu
    check(checked_page, "webgpu")
