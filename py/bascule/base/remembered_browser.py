"""Learned facts in the page's IndexedDB, stored by idb through web/bridge/remembered.js."""

from __future__ import annotations

import json
import warnings
from typing import Any

from pyodide.ffi import JsException

from bascule.base.bridge_browser import bridge_modules, js_message
from bascule.base.entries import LIMITS, Entry, MemoryRemembered, Remembered, RememberedWarning
from bascule.base.json_object import JsonFault, parse_json
from bascule.errors import SetupError


async def open_in_page() -> Remembered:
    """Return the origin's store; the bridge warns once, in the console, if it does not work."""
    try:
        bridge, library = await bridge_modules(("bridge/remembered.js", "vendor/idb.js"))
        return PageRemembered(await bridge.openRemembered(library))
    except (JsException, OSError, SetupError) as error:
        problem = js_message(error) if isinstance(error, JsException) else str(error)
        warnings.warn(f"Nothing is remembered in this page: {problem}.", RememberedWarning, 2)
        return MemoryRemembered()


class PageRemembered:
    """See `Remembered`. Entries cross the bridge as JSON."""

    def __init__(self, bridge: Any) -> None:
        self._bridge = bridge

    async def get(self, key: str) -> Entry | None:
        text = str(await self._bridge.get(key))
        if not text:
            return None
        try:
            return parse_json(text.encode("utf-8", "surrogatepass"), LIMITS)
        except JsonFault as fault:
            # The bridge has checked that it is an object; it warns once per worker.
            self._bridge.warn(f"an entry was damaged and has been dropped ({fault})")
            return None

    async def put(self, key: str, entry: Entry) -> None:
        await self._bridge.put(key, json.dumps(entry))

    async def forget(self, key: str) -> None:
        await self._bridge.forget(key)

    async def clear(self) -> None:
        await self._bridge.clear()
