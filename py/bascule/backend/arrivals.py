"""Which parameters have come: what lets the first layers run while later ones still load."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable


class Arrivals:
    """Parameters by name. A load marks them; computations wait for those that they read."""

    def __init__(self, names: Iterable[str]) -> None:
        self._missing = set(names)
        self._changed: list[asyncio.Future[None]] = []
        self._error: BaseException | None = None

    @property
    def complete(self) -> bool:
        """Whether nothing is missing."""
        return not self._missing

    def mark(self, names: Iterable[str]) -> None:
        """Note parameters whose bytes are all there (queued for the GPU counts)."""
        self._missing.difference_update(names)
        self._wake()

    def restart(self, names: Iterable[str]) -> None:
        """The file was not what it seemed: these are missing again."""
        self._missing.update(names)

    def fail(self, error: BaseException) -> None:
        """The load has failed; waiting tasks get the error."""
        self._error = error
        self._wake()

    async def wait(self, names: Iterable[str]) -> None:
        """Until all of these have come; raises what ended the load."""
        wanted = set(names)
        while wanted & self._missing:
            if self._error is not None:
                raise self._error
            change = asyncio.get_running_loop().create_future()
            self._changed.append(change)
            await change

    def _wake(self) -> None:
        changed, self._changed = self._changed, []
        for change in changed:
            if not change.done():
                change.set_result(None)
