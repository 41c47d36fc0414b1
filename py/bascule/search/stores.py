"""Where an index is stored: in the cache of models, by chunks that are named by their hash."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncGenerator, AsyncIterable
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol

from bascule.base.folders import unusable
from bascule.errors import ModelFileError, SourceError
from bascule.weights.journal import Entry, Journal, key_of

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


@dataclass(frozen=True, slots=True)
class NativeStore:
    """See `IndexStore`."""

    url: str

    async def write(self, nbytes: int, pieces: AsyncIterable[bytes]) -> None:
        """See `IndexStore.write`."""
        journal, part = Journal(), key_of(f"{self.url}.part")
        try:
            if await asyncio.to_thread(journal.make_room, nbytes):
                raise no_room(self.url, nbytes)
            count = -(-nbytes // CHUNK_NBYTES)
            entry = Entry(f"{self.url}.part", nbytes, CHUNK_NBYTES, [""] * count)
            index = 0
            async for chunk in in_chunks(pieces):
                entry.hashes[index] = hashlib.sha256(chunk).hexdigest()
                await asyncio.to_thread(journal.save, part, entry)  # a chunk always has an owner
                await asyncio.to_thread(journal.keep, entry.hashes[index], chunk)
                index += 1
            entry.url = self.url
            journal.save(key_of(self.url), entry)
        except OSError as error:
            raise unusable(error) from None
        finally:
            with suppress(OSError):
                journal.remove([part])
                journal.drop_orphans()

    async def open(self) -> tuple[int, AsyncGenerator[bytes]] | None:
        """See `IndexStore.open`."""
        entry = await asyncio.to_thread(Journal().load, key_of(self.url))
        if entry is None or entry.url != self.url:
            return None
        return entry.nbytes, self._chunks(entry)

    async def _chunks(self, entry: Entry) -> AsyncGenerator[bytes]:
        journal = Journal()
        held = journal.hold(key_of(self.url))
        try:
            for index, digest in enumerate(entry.hashes):
                data = await asyncio.to_thread(journal.chunk, digest) if digest else None
                if data is None or len(data) != entry.length(index):
                    raise damaged(self.url, index)
                yield data
        finally:
            if held is not None:
                held.close()
