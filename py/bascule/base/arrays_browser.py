"""numpy in a page: Pyodide's own build, fetched on first use."""

from __future__ import annotations

from typing import Any

import pyodide_js
from pyodide.ffi import JsException


async def fetch_numpy() -> None:
    """Load Pyodide's numpy; does nothing if there is none, or offline."""

    def ignore(_: Any) -> None:
        """Drop a message that does not belong in the console."""

    try:
        await pyodide_js.loadPackage("numpy", messageCallback=ignore, errorCallback=ignore)
    except JsException:  # this Pyodide has no numpy
        return
