"""The interface of a store of learned facts, and one in memory."""

from __future__ import annotations

import json
from typing import Any, Protocol

from bascule.base.json_object import JsonLimits

Entry = dict[str, Any]

LIMITS = JsonLimits(16 << 20, 1 << 18)


class RememberedWarning(RuntimeWarning):
    """Learned facts could not be stored, and will be missing next time."""


class Remembered(Protocol):
    """A key-value store whose methods neither raise nor wait for long."""

    async def get(self, key: str) -> Entry | None:
        """Return the object of that key; None if it is missing or invalid."""
        ...

    async def put(self, key: str, entry: Entry) -> None:
        """Store an object, replacing an older one."""
        ...

    async def forget(self, key: str) -> None:
        """Remove that key's object, if there is one."""
        ...

    async def clear(self) -> None:
        """Remove everything."""
        ...


class MemoryRemembered:
    """A `Remembered` that lasts as long as the process."""

    def __init__(self) -> None:
        self._texts: dict[str, str] = {}

    async def get(self, key: str) -> Entry | None:
        text = self._texts.get(key)
        return None if text is None else json.loads(text)

    async def put(self, key: str, entry: Entry) -> None:
        self._texts[key] = json.dumps(entry)

    async def forget(self, key: str) -> None:
        self._texts.pop(key, None)

    async def clear(self) -> None:
        self._texts.clear()
