"""The page's JavaScript modules of web/bridge/, loaded from the package itself.

Each module imports nothing, so a blob: URL serves, and `micropip.install` of the wheel is all that
a page needs. A page with a Content-Security-Policy must allow blob: in script-src.
"""

from __future__ import annotations

from typing import Any

import js
from pyodide.code import run_js
from pyodide.ffi import JsException, to_js

from bascule import assets

_modules: dict[str, Any] = {}


async def bridge_module(name: str) -> Any:
    """The module web/<name>, imported once a page (or worker)."""
    if name not in _modules:
        options = to_js({"type": "text/javascript"}, dict_converter=js.Object.fromEntries)
        blob = js.Blob.new(to_js([assets.text(f"web/{name}")]), options)
        url = js.URL.createObjectURL(blob)
        try:
            # run_js: `import` is no function that Python could call.
            _modules[name] = await run_js("(url) => import(url)")(url)
        finally:
            js.URL.revokeObjectURL(url)
    return _modules[name]


def js_message(error: JsException) -> str:
    """What a JavaScript error says, without its class name."""
    return str(getattr(error, "message", "") or error)
