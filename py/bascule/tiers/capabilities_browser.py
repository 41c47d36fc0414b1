"""The facts of a page or worker, from the feature tests of web/bridge/probe.js."""

from __future__ import annotations

import json
import platform
from typing import Any

import pyodide
from pyodide.ffi import JsException

from bascule import __version__
from bascule.backend.webgpu.gpu_browser import BrowserGpu, open_browser
from bascule.bridge_browser import bridge_module, js_message


async def browser_facts() -> dict[str, Any]:
    """See `Capabilities`; a page whose policy forbids the bridge still tells its versions."""
    versions = {
        "bascule": __version__,
        "python": platform.python_version(),
        "pyodide": pyodide.__version__,
    }
    told: dict[str, Any] = {"host": "page", "versions": versions}
    try:
        probe, device = [await bridge_module(f"bridge/{name}.js") for name in ("probe", "device")]
        return json.loads(await probe.probe(device)) | told
    except JsException as error:
        return told | {"problems": {"webgpu": js_message(error)}}


async def open_gpu() -> BrowserGpu:
    """A device of its own; the one that waits for the first model stays where it is."""
    return await open_browser(early=False)
