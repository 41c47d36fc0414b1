"""Results that arrive piece by piece while a model works."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from typing import Generic, Self, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


class ResultStream(Generic[Item, Result]):
    """A stream of items: `async for item in stream`. `result` grows with them.

    Leaving the loop early does not stop the work; `await stream.aclose()` or `async with` does.
    """

    def __init__(self, result: Result, items: AsyncGenerator[Item]) -> None:
        self.result = result
        self._items = items

    def __aiter__(self) -> AsyncIterator[Item]:
        return self._items

    async def aclose(self) -> None:
        """Stop the work, and free the model for the next one."""
        await self._items.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()
