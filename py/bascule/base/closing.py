"""`with` and `async with` for classes that have a `close`."""

from __future__ import annotations

from typing import Self


class Closing:
    """Calls `close` at the end of `with` and `async with`."""

    def close(self) -> None:
        """Free what it holds."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()
