"""The facts of a page or worker, from the feature tests of web/bridge/probe.js."""

from __future__ import annotations

import asyncio
import json
import platform
from typing import Any

import pyodide
from pyodide.ffi import JsException

from bascule import __version__
from bascule.base.bridge_browser import bridge_module, js_message
from bascule.errors import SetupError

# Longer than probe.js itself waits; WebKit never answers an import that it cannot do.
_LIMIT_S = 20.0


async def browser_facts() -> dict[str, Any]:
    """See `Capabilities`; a page whose policy forbids the bridge still reports versions."""
    versions = {
        "bascule": __version__,
        "python": platform.python_version(),
        "pyodide": pyodide.__version__,
    }
    fields: dict[str, Any] = {"host": "page", "versions": versions}
    try:
        async with asyncio.timeout(_LIMIT_S):
            probe = await bridge_module("bridge/probe.js")
            result = json.loads(await probe.probe(await bridge_module("bridge/device.js")))
    except TimeoutError:
        return fields | _not_probed(f"web/bridge/ could not be loaded within {_LIMIT_S:.0f} s")
    except JsException as error:
        return fields | _not_probed(js_message(error))
    except SetupError as error:  # a policy forbids the import
        return fields | _not_probed(error.what)
    except OSError as error:  # the package lacks a file
        return fields | _not_probed(str(error))
    return result | fields


def _not_probed(why: str) -> dict[str, Any]:
    return {"problems": {"webgpu": why}}
