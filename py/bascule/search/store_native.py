"""The store of an index outside a page: chunks in the cache, named by their hash."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncGenerator, AsyncIterable
from contextlib import suppress
from dataclasses import dataclass

from bascule.base.folders import unusable
from bascule.search.stores import CHUNK_NBYTES, damaged, in_chunks, no_room
from bascule.weights.journal import Entry, Journal, key_of


@dataclass(frozen=True, slots=True)
class NativeStore:
    """See `IndexStore`."""

    url: str

    async def write(self, nbytes: int, pieces: AsyncIterable[bytes]) -> None:
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
