"""A file that is requested before it is known to be needed."""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from typing import Any

from bascule.errors import BasculeError
from bascule.weights.source import Source


class EarlyRead:
    """Starts reading a file at once; awaiting it returns the bytes or raises the read's error.

    The task itself never fails, so the event loop reports no error for a missing file that nobody
    needs.
    """

    def __init__(self, source: Source, file: str) -> None:
        self._task = asyncio.ensure_future(self._read(source, file))

    def __await__(self) -> Generator[Any, None, bytes]:
        result = yield from self._task.__await__()
        if isinstance(result, BasculeError):
            raise result
        return result

    async def stop(self) -> None:
        """Cancel the read unless it has finished."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    @staticmethod
    async def _read(source: Source, file: str) -> bytes | BasculeError:
        try:
            return await source.read(file)
        except BasculeError as error:
            return error
