"""A file that is asked for before it is known to be needed."""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from typing import Any

from bascule.errors import BasculeError
from bascule.weights.source import Source


class EarlyRead:
    """Reads a file at once; awaiting gives its bytes or raises what reading raised.

    The task itself never fails: a file that is missing and not needed is no error for the event
    loop to report.
    """

    def __init__(self, source: Source, file: str) -> None:
        self._task = asyncio.ensure_future(self._read(source, file))

    def __await__(self) -> Generator[Any, None, bytes]:
        result = yield from self._task.__await__()
        if isinstance(result, BasculeError):
            raise result
        return result

    async def stop(self) -> None:
        """Cancel the read unless it has ended."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    @staticmethod
    async def _read(source: Source, file: str) -> bytes | BasculeError:
        try:
            return await source.read(file)
        except BasculeError as error:
            return error
