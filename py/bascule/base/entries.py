"""The interface of a store of what was learned, and a store in memory alone."""

from __future__ import annotations

import json
from typing import Any, Protocol

from bascule.base.json_object import JsonLimits

Entry = dict[str, Any]

LIMITS = JsonLimits(16 << 20, 1 << 18)


class RememberedWarning(RuntimeWarning):
    """What was learned will not be there next time."""


class Remembered(Protocol):
    """None of these raises or waits for long."""

    async def get(self, key: str) -> Entry | None:
        """The object of that key; None if there is none, or none that is sound."""
        ...

    async def put(self, key: str, entry: Entry) -> None:
        """Keep an object, in place of an older one."""
        ...

    async def forget(self, key: str) -> None:
        """Drop that key's object, if there is one."""
        ...

    async def clear(self) -> None:
        """Forget everything."""
        ...


class MemoryRemembered:
    """A `Remembered` that keeps nothing past this process."""

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
