"""The store of an index in the cache of models: chunks named by their hash."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable
from typing import Protocol

from bascule.errors import ModelFileError, SourceError

CHUNK_NBYTES = 4 << 20


class IndexStore(Protocol):
    """A place in the cache for one index."""

    @property
    def url(self) -> str:
        """Its name in the cache."""
        ...

    async def write(self, nbytes: int, pieces: AsyncIterable[bytes]) -> None:
        """Store that many bytes in place of what was there, which stays if this fails.

        SourceError if the cache has no room; SetupError if it cannot be used.
        """
        ...

    async def open(self) -> tuple[int, AsyncGenerator[bytes]] | None:
        """Return how many bytes are stored, and these in chunks; None if there are none."""
        ...


def no_room(url: str, nbytes: int) -> SourceError:
    """Return the error of an index that does not fit the cache."""
    hint = "Make room with `bascule cache rm`; BASCULE_CACHE_MOST_GB is its limit."
    return SourceError(url, f"the cache has no room for {nbytes:,} bytes", hint=hint)


def damaged(url: str, index: int) -> ModelFileError:
    """Return the error of a stored chunk that is missing or damaged."""
    return ModelFileError(url, f"its chunk {index} is missing or damaged")


async def in_chunks(pieces: AsyncIterable[bytes]) -> AsyncGenerator[bytes]:
    """Yield the same bytes in chunks of CHUNK_NBYTES; only the last one is smaller."""
    waiting = bytearray()
    async for piece in pieces:
        at = 0
        while at < len(piece):
            end = at + CHUNK_NBYTES - len(waiting)
            waiting += piece[at:end]
            at = min(end, len(piece))
            if len(waiting) == CHUNK_NBYTES:
                yield bytes(waiting)
                waiting.clear()
    if waiting:
        yield bytes(waiting)
