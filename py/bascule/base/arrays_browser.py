"""numpy in a page: Pyodide's own build, fetched when it is first needed."""

from __future__ import annotations

from typing import Any

import pyodide_js
from pyodide.ffi import JsException


async def fetch_numpy() -> None:
    """Load Pyodide's numpy; without one, or offline, nothing happens."""

    def ignore(_: Any) -> None:
        """Take a message that is not for the console."""

    try:
        await pyodide_js.loadPackage("numpy", messageCallback=ignore, errorCallback=ignore)
    except JsException:  # this Pyodide has no numpy
        return
