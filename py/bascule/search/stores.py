"""Where an index is stored: in the cache of models, by chunks that are named by their hash."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable
from typing import Protocol

from bascule.errors import ModelFileError, SourceError

CHUNK_NBYTES = 4 << 20


class IndexStore(Protocol):
    """A place in the cache for one index."""

    @property
    def url(self) -> str:
        """How the cache names it."""
        ...

    async def write(self, nbytes: int, pieces: AsyncIterable[bytes]) -> None:
        """Store so many bytes in place of what was there; what was there stays where this fails.

        SourceError where the cache has no room; SetupError where it may not be used.
        """
        ...

    async def open(self) -> tuple[int, AsyncGenerator[bytes]] | None:
        """How many bytes are stored, and these, in chunks; None where nothing is."""
        ...


def no_room(url: str, nbytes: int) -> SourceError:
    """The error of an index that does not fit the cache."""
    hint = "Make room with `bascule cache rm`; BASCULE_CACHE_MOST_GB is its limit."
    return SourceError(url, f"the cache has no room for {nbytes:,} bytes", hint=hint)


def damaged(url: str, index: int) -> ModelFileError:
    """The error of a stored chunk that is gone, or is not what was stored."""
    return ModelFileError(url, f"its chunk {index} is missing or damaged")


async def in_chunks(pieces: AsyncIterable[bytes]) -> AsyncGenerator[bytes]:
    """The same bytes in chunks of CHUNK_NBYTES; only the last one is smaller."""
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
