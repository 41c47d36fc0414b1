"""Which parameters have arrived: the first layers run while later ones still load."""

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
        """Mark parameters whose bytes have all arrived (or are queued for the GPU)."""
        self._missing.difference_update(names)
        self._wake()

    def restart(self, names: Iterable[str]) -> None:
        """Mark these as missing again: their file turned out to be wrong."""
        self._missing.update(names)

    def fail(self, error: BaseException) -> None:
        """End the load with an error, which waiting tasks get."""
        self._error = error
        self._wake()

    async def wait(self, names: Iterable[str]) -> None:
        """Wait until all of these have arrived; raises the error that ended the load."""
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
