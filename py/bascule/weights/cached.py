"""One file by chunks: from the cache where a chunk is there and its hash is right, else from the
network, and then into the cache before anybody sees it.

web/bridge/download.js does the same in a page.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import AsyncGenerator
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from time import monotonic
from typing import IO, Any

import httpx
from filelock import Timeout

from bascule.errors import FileChangedError, FileMissingError, HashMismatchError, SourceError
from bascule.weights.journal import Entry, Journal, key_of
from bascule.weights.manifest import Expected
from bascule.weights.remote import Patience, Remote, Version

_REVALIDATE_S = 3.0
_TURN_S = 0.5
_BEAT_S = 0.2
SILENCE_S = 10.0


@dataclass(slots=True)
class _Run:
    """A response that is open: the chunk that it brings next, and the last."""

    next: int
    last: int
    parts: AsyncGenerator[bytes, None]
    rest: bytes = b""


class CachedFile:
    """A file at a URL, and what is kept of it. Without a journal nothing is kept."""

    def __init__(
        self,
        url: str,
        client: httpx.AsyncClient,
        journal: Journal | None,
        *,
        patience: Patience,
        chunk_nbytes: int,
    ) -> None:
        self.remote = Remote(url, patience, client)
        self.url = url
        self.cached_nbytes = 0
        self.filling = 0
        self._journal = journal
        self._chunk_nbytes = chunk_nbytes
        self._key = key_of(url)
        self._expected: Expected | None = None
        self._entry: Entry | None = None
        self._run: _Run | None = None
        self._after: dict[int, int] = {}
        self._lock: Any = None
        self._silent_s = self._beaten = 0.0
        self._use: IO[bytes] | None = None
        self._room_made = False

    @property
    def entry(self) -> Entry:
        """What is known of the file."""
        assert self._entry is not None  # the source opens a file before it hands it out
        return self._entry

    @property
    def is_open(self) -> bool:
        """Whether the file's version is known."""
        return self._entry is not None

    async def open(self, expected: Expected | None) -> None:
        """Find out the file's version. FileMissingError, SourceError."""
        self._expected = expected
        kept = self._journal.load(self._key) if self._journal else None
        if expected is None:
            self._entry = await self._revalidated(kept)
        elif kept and (kept.nbytes, kept.chunk_nbytes) == (expected.nbytes, expected.chunk_nbytes):
            self._entry = kept
        else:
            self._entry = self._fresh(Version(expected.nbytes), expected.chunk_nbytes)
        if self.entry.missing:
            raise FileMissingError(self.url)
        if self._journal:
            self.release()
            self._use = self._journal.hold(self._key)

    async def read_all(self, most: int) -> bytes:
        """All bytes of a small file, whose size the server need not tell."""
        if self.entry.nbytes >= 0:
            return b"".join([await self.chunk(i) for i in range(len(self.entry.hashes))])
        data = await self.remote.whole(most)
        assert self.remote.version is not None
        self._entry = self._fresh(self.remote.version, self._chunk_nbytes)
        for index in range(len(self.entry.hashes)):
            start = index * self._chunk_nbytes
            part = data[start : start + self._chunk_nbytes]
            self._keep(index, part, hashlib.sha256(part).hexdigest())
        return data

    def want(self, order: list[int]) -> None:
        """Say in which order chunks will be asked for, so that one request serves neighbours."""
        self._after = dict(pairwise(order))

    def needs_proof(self, sha256: str) -> bool:
        """Whether the whole file's hash has still to be compared."""
        return bool(sha256) and self._expected is None and self.entry.sha256 != sha256

    def proven(self, sha256: str) -> None:
        """Note that the whole file has this hash."""
        self.entry.sha256 = sha256
        self._save()

    async def chunk(self, index: int) -> bytes:
        """A chunk, verified where its hash is known."""
        while (found := self._from_cache(index)) is None:
            if self._lock is not None or self._journal is None or self._silent_s >= SILENCE_S:
                return await self._from_network(index)
            # Another process may be fetching the same file: then what it has kept is taken, chunk
            # by chunk. One that keeps nothing for long is frozen: fetching twice does no harm.
            journal, before = self._journal, self._journal.pulse(self._key)
            await self._acquire()
            kept = journal.load(self._key)
            news = journal.pulse(self._key) != before
            self._silent_s = 0.0 if news else self._silent_s + _TURN_S
            if kept and _version(kept).agrees(_version(self.entry)):
                self._entry = kept
        return found

    async def pause(self) -> None:
        """End what is open, and let other processes go on. What was kept stays."""
        await self._end_run()
        self._silent_s = 0.0
        if self._lock is not None:
            lock, self._lock = self._lock, None
            await lock.release()

    def release(self) -> None:
        """The file is in use no longer."""
        if self._use is not None:
            self._use.close()
            self._use = None

    async def forget(self) -> None:
        """Drop what is kept of this file."""
        await self.pause()
        self._entry = None
        if self._journal:
            self._journal.remove([self._key])

    async def _revalidated(self, kept: Entry | None) -> Entry:
        """What is kept, if the server still has that version or cannot be asked."""
        try:
            version = await self.remote.check(_REVALIDATE_S if kept else None)
        except FileMissingError:
            entry = Entry(self.url, 0, self._chunk_nbytes, missing=True)
            self._save(entry)
            raise
        except SourceError:
            if kept is None:
                raise
            self.remote.version = _version(kept)
            return kept
        if kept and not kept.missing and _version(kept).agrees(version):
            self.remote.version = _version(kept)
            return kept
        if kept and self._journal:
            self._journal.remove([self._key])
        return self._fresh(version, self._chunk_nbytes)

    def _fresh(self, version: Version, chunk_nbytes: int) -> Entry:
        hashes = [""] * max(0, -(-version.nbytes // chunk_nbytes))
        return Entry(self.url, version.nbytes, chunk_nbytes, hashes, version.etag, version.modified)

    def _hash(self, index: int) -> str:
        return self._expected.hashes[index] if self._expected else self.entry.hashes[index]

    def _from_cache(self, index: int) -> bytes | None:
        digest = self._hash(index)
        if not self._journal or not self._journal.has_chunk(digest):
            return None
        data = self._journal.chunk(digest)
        if data is None or len(data) != self.entry.length(index):
            _warn(f"A chunk of {self.url} is damaged in the cache; it is fetched again.")
            return None
        self.cached_nbytes += len(data)
        if not self.entry.hashes[index]:  # another model has brought it
            self.entry.hashes[index] = digest
            self._save()
        return data

    async def _from_network(self, index: int) -> bytes:
        wanted = self._hash(index)
        for _ in range(2):
            data = await self._pull(index)
            digest = hashlib.sha256(data).hexdigest()
            if not wanted or digest == wanted:
                self._keep(index, data, digest)
                return data
            await self._end_run()
        start = index * self.entry.chunk_nbytes
        if self._expected is None:
            told = f"its bytes from {start:,} are not those of the first load (SHA-256)"
            raise FileChangedError(self.url, told, offset=start)
        raise HashMismatchError(
            self.url, f"its bytes from {start:,} are not those of the manifest (SHA-256)"
        )

    async def _pull(self, index: int) -> bytes:
        """The next chunk of the response that is open, or of a new one."""
        if self._run is None or self._run.next != index:
            await self._begin_run(index)
        run = self._run
        assert run is not None
        found, length = bytearray(run.rest), self.entry.length(index)
        try:
            while len(found) < length:
                found += await anext(run.parts)
                self.filling = min(len(found), length)
                self._beat()
        except BaseException:
            await self._end_run()
            raise
        finally:
            self.filling = 0
        run.rest = bytes(found[length:])
        run.next += 1
        if run.next > run.last:
            await self._end_run()
        return bytes(memoryview(found)[:length])

    def _beat(self) -> None:
        if self._journal and monotonic() - self._beaten > _BEAT_S:
            self._beaten = monotonic()
            self._journal.beat(self._key)

    async def _begin_run(self, index: int) -> None:
        """One request serves all chunks up to one that is there, or that is not asked for next."""
        await self._end_run()
        last = index
        while self._after.get(last) == last + 1 and not self.entry.hashes[last + 1]:
            last += 1
        start = index * self.entry.chunk_nbytes
        end = min(self.entry.nbytes, (last + 1) * self.entry.chunk_nbytes)
        self._run = _Run(index, last, self.remote.read(start, end))

    async def _end_run(self) -> None:
        run, self._run = self._run, None
        if run is not None:
            with suppress(RuntimeError):  # it is being read by a task that was cancelled
                await run.parts.aclose()

    def _keep(self, index: int, data: bytes, digest: str) -> None:
        self.entry.hashes[index] = digest
        if not self._journal or not self._room():
            return
        try:
            self._journal.keep(digest, data)
            self._journal.save(self._key, self.entry)
        except OSError as error:
            self._stop_keeping(f"the disk took no more ({error.strerror})")

    def _room(self) -> bool:
        """Room for all that is missing is made before the first chunk is kept."""
        if self._room_made or not self._journal:
            return self._room_made
        missing = self.entry.hashes.count("") * self.entry.chunk_nbytes
        try:
            lacking = self._journal.make_room(min(missing, self.entry.nbytes))
        except OSError as error:
            self._stop_keeping(f"its folder cannot be used ({error.strerror})")
            return False
        self._room_made = lacking <= 0
        if lacking > 0:
            self._stop_keeping(f"{lacking / 1e6:.1f} MB too little room")
        return self._room_made

    def _stop_keeping(self, why: str) -> None:
        _warn(f"{self.url} is not kept for the next time: {why}.")
        self._journal = None

    def _save(self, entry: Entry | None = None) -> None:
        if self._journal:
            with suppress(OSError):
                self._journal.save(self._key, entry or self.entry)

    async def _acquire(self) -> None:
        """Become the one that fetches, unless another process is for the next moment."""
        assert self._journal is not None
        try:
            lock = self._journal.lock(self._key)
            await lock.acquire(timeout=_TURN_S, poll_interval=0.05)
        except Timeout:
            return
        except OSError as error:
            self._stop_keeping(f"its folder cannot be used ({error.strerror})")
            return
        self._lock = lock


def _version(entry: Entry) -> Version:
    return Version(entry.nbytes, entry.etag, entry.modified)


def _warn(text: str) -> None:
    warnings.warn(text, stacklevel=2)
