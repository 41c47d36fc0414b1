"""Read one file chunk by chunk: from the cache if a chunk is there and its hash matches, else from
the network and into the cache.

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

from bascule.errors import (
    FileChangedError,
    FileMissingError,
    HashMismatchError,
    ModelFileError,
    SourceError,
)
from bascule.weights.journal import MAX_CHUNKS, Entry, Journal, key_of
from bascule.weights.manifest import ManifestEntry
from bascule.weights.remote import Remote, RetryPolicy, Version
from bascule.weights.source import EVICTED_HINT

_REVALIDATE_S = 3.0
_TURN_S = 0.5
_BEAT_S = 0.2
SILENCE_S = 10.0


# Bytes that may be written between two checks of the free space.
_MAX_CREDIT_NBYTES = 64 << 20
# Bytes that may wait in memory until the model's header has been read.
_MAX_WAITING_NBYTES = 64 << 20


class CacheSession:
    """State that the files of one model share: the journal, until it fails, and the permission to
    evict.

    Nothing is evicted for a model before its header has been read (`trusted`), so a server cannot
    flush the cache by announcing a model that it does not have.
    """

    def __init__(self, location: str, journal: Journal | None) -> None:
        self.journal = journal
        self.trusted = False
        self.revalidates = True  # whether the server is asked for versions of what is kept
        self._location = location

    def stop(self, why: str) -> None:
        """Stop caching, with one warning."""
        if self.journal is not None:
            self.journal = None
            _warn(f"{self._location} is not cached: {why}.")


@dataclass(slots=True)
class _Run:
    """An open response: the next chunk that it delivers, and the last."""

    next: int
    last: int
    parts: AsyncGenerator[bytes, None]
    rest: bytes = b""


class CachedFile:
    """A file at a URL and its cached chunks; without a journal nothing is cached."""

    def __init__(
        self,
        url: str,
        client: httpx.AsyncClient,
        keeping: CacheSession,
        *,
        retry: RetryPolicy,
        chunk_nbytes: int,
    ) -> None:
        self.remote = Remote(url, retry, client)
        self.url = url
        self.cached_nbytes = 0
        self.filling = 0
        self._keeping = keeping
        self._fits = True
        self._chunk_nbytes = chunk_nbytes
        self._key = key_of(url)
        self._expected: ManifestEntry | None = None
        self._entry: Entry | None = None
        self._run: _Run | None = None
        self._after: dict[int, int] = {}
        self._lock: Any = None
        self._silent_s = self._beaten = 0.0
        self._use: IO[bytes] | None = None
        self._credit = 0
        self._waiting: dict[str, bytes] = {}

    @property
    def _journal(self) -> Journal | None:
        return self._keeping.journal if self._fits else None

    @property
    def entry(self) -> Entry:
        """The file's journal entry."""
        assert self._entry is not None  # the source opens a file before it hands it out
        return self._entry

    @property
    def is_open(self) -> bool:
        """Whether the file's version is known."""
        return self._entry is not None

    async def open(self, expected: ManifestEntry | None) -> None:
        """Find out the file's version. Raises FileMissingError, SourceError."""
        self._expected = expected
        stored = self._journal.load(self._key) if self._journal else None
        if expected is None:
            self._entry = await self._revalidated(stored)
        elif stored and (stored.nbytes, stored.chunk_nbytes) == (
            expected.nbytes,
            expected.chunk_nbytes,
        ):
            self._entry = stored
        else:
            self._entry = self._fresh(Version(expected.nbytes), expected.chunk_nbytes)
        if self.entry.missing:
            raise FileMissingError(self.url)
        if self._journal:
            waiting = self._waiting.copy()
            self.release()
            self._waiting = waiting
            self._use = self._journal.hold(self._key)

    async def read_all(self, max_nbytes: int) -> bytes:
        """Read all bytes of a small file; the server need not report its size."""
        if self.entry.nbytes >= 0:
            return b"".join([await self.chunk(i) for i in range(len(self.entry.hashes))])
        data = await self.remote.read_all(max_nbytes)
        assert self.remote.version is not None
        self._entry = self._fresh(self.remote.version, self._chunk_nbytes)
        for index in range(len(self.entry.hashes)):
            start = index * self._chunk_nbytes
            part = data[start : start + self._chunk_nbytes]
            self._keep(index, part, hashlib.sha256(part).hexdigest())
        return data

    def want(self, order: list[int]) -> None:
        """Announce the order of the reads, so that one request serves neighbouring chunks."""
        self._after = dict(pairwise(order))

    def needs_proof(self, sha256: str) -> bool:
        """Whether the hash of the whole file still has to be checked."""
        return bool(sha256) and self._expected is None and self.entry.sha256 != sha256

    def proven(self, sha256: str) -> None:
        """Record that the whole file has this hash."""
        self.entry.sha256 = sha256
        self._save()

    async def chunk(self, index: int) -> bytes:
        """Return a chunk, verified if its hash is known."""
        while (result := self._from_cache(index)) is None:
            if self._lock is not None or self._journal is None or self._silent_s >= SILENCE_S:
                return await self._from_network(index)
            # Another process may be fetching the same file: then its cached chunks are used as they
            # arrive. If it caches nothing for a long time it has stopped; fetching the file twice
            # does no harm.
            journal, before = self._journal, self._journal.pulse(self._key)
            await self._acquire()
            stored = journal.load(self._key)
            news = journal.pulse(self._key) != before
            self._silent_s = 0.0 if news else self._silent_s + _TURN_S
            if stored and _version(stored).agrees(_version(self.entry)):
                self._entry = stored
        return result

    def kept(self, index: int) -> bytes:
        """Return a chunk from the cache; SourceError if it is missing or damaged."""
        digest = self._hash(index)
        data = self._journal.chunk(digest) if self._journal and digest else None
        if data is None or len(data) != self.entry.length(index):
            raise SourceError(
                self.url,
                "these bytes are no longer in the cache",
                offset=index * self.entry.chunk_nbytes,
                hint=EVICTED_HINT,
            )
        self.cached_nbytes += len(data)
        return data

    async def pause(self) -> None:
        """Close the connection and let other processes fetch; cached chunks stay."""
        await self._end_run()
        self._silent_s = 0.0
        if self._lock is not None:
            lock, self._lock = self._lock, None
            await lock.release()

    def release(self) -> None:
        """Mark the file as no longer in use."""
        self._waiting.clear()
        if self._use is not None:
            self._use.close()
            self._use = None

    async def forget(self) -> None:
        """Evict this file."""
        await self.pause()
        self._entry = None
        self._waiting.clear()
        self._remove()

    async def _revalidated(self, stored: Entry | None) -> Entry:
        """Return the cached entry if it is still current, if the server cannot be reached, or if it
        must not be asked; otherwise a fresh one.
        """
        if stored and not self._keeping.revalidates:
            self.remote.version = _version(stored)
            return stored
        try:
            version = await self.remote.check(_REVALIDATE_S if stored else None)
        except FileMissingError:
            entry = Entry(self.url, 0, self._chunk_nbytes, missing=True)
            self._save(entry)
            raise
        except SourceError:
            if stored is None:
                raise
            self.remote.version = _version(stored)
            return stored
        if stored and not stored.missing and _version(stored).agrees(version):
            self.remote.version = _version(stored)
            return stored
        if stored:
            self._remove()
        return self._fresh(version, self._chunk_nbytes)

    def _remove(self) -> None:
        if self._journal:
            try:
                self._journal.remove([self._key])
            except OSError as error:
                self._keeping.stop(f"its folder cannot be used ({error.strerror})")

    def _fresh(self, version: Version, chunk_nbytes: int) -> Entry:
        if version.nbytes > MAX_CHUNKS * chunk_nbytes:
            raise ModelFileError(
                self.url,
                f"the server claims {version.nbytes:,} bytes, more than the "
                f"{MAX_CHUNKS * chunk_nbytes:,} that are read of a file",
                hint="The Content-Length of that server is wrong, or this is no model's file.",
            )
        hashes = [""] * max(0, -(-version.nbytes // chunk_nbytes))
        return Entry(self.url, version.nbytes, chunk_nbytes, hashes, version.etag, version.modified)

    def _hash(self, index: int) -> str:
        return self._expected.hashes[index] if self._expected else self.entry.hashes[index]

    def _from_cache(self, index: int) -> bytes | None:
        digest = self._hash(index)
        if digest in self._waiting:
            return self._waiting[digest]
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
            problem = f"its bytes from {start:,} are not those of the first load (SHA-256)"
            raise FileChangedError(self.url, problem, offset=start)
        raise HashMismatchError(
            self.url, f"its bytes from {start:,} are not those of the manifest (SHA-256)"
        )

    async def _pull(self, index: int) -> bytes:
        """Return the next chunk of the open response, or of a new one."""
        if self._run is None or self._run.next != index:
            await self._begin_run(index)
        run = self._run
        assert run is not None
        result, length = bytearray(run.rest), self.entry.length(index)
        try:
            while len(result) < length:
                result += await anext(run.parts)
                self.filling = min(len(result), length)
                self._beat()
        except BaseException:
            await self._end_run()
            raise
        finally:
            self.filling = 0
        run.rest = bytes(result[length:])
        run.next += 1
        if run.next > run.last:
            await self._end_run()
        return bytes(memoryview(result)[:length])

    def _beat(self) -> None:
        if self._journal and monotonic() - self._beaten > _BEAT_S:
            self._beaten = monotonic()
            self._journal.beat(self._key)

    async def _begin_run(self, index: int) -> None:
        """Open one request for all chunks up to the next that is cached or not asked for."""
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

    def cache_waiting(self) -> None:
        """Cache the chunks that waited for the model's header to be read."""
        waiting, self._waiting = self._waiting, {}
        for digest, data in waiting.items():
            self._store(digest, data)

    def _keep(self, index: int, data: bytes, digest: str) -> None:
        self.entry.hashes[index] = digest
        self._store(digest, data)

    def _store(self, digest: str, data: bytes) -> None:
        journal = self._journal
        if journal is None:
            return
        try:
            if self._has_room(journal, digest, data):
                journal.keep(digest, data)
                journal.save(self._key, self.entry)
        except OSError as error:
            self._keeping.stop(f"writing to the disk failed ({error.strerror})")

    def _has_room(self, journal: Journal, digest: str, data: bytes) -> bool:
        """Whether a chunk can be cached now. Others are evicted only for bytes that have arrived,
        and never if evicting all of them would not make room for this file.
        """
        nbytes = len(data)
        if nbytes > self._credit:
            try:
                space = journal.space()
                missing = self.entry.hashes.count("") * self.entry.chunk_nbytes + nbytes
                lacking = min(missing, self.entry.nbytes) - space.freeable
                if lacking <= 0 and nbytes > space.free:
                    if not self._keeping.trusted:
                        if sum(map(len, self._waiting.values())) + nbytes <= _MAX_WAITING_NBYTES:
                            self._waiting[digest] = data
                        return False
                    lacking = journal.make_room(nbytes)
                    space = journal.space()
            except OSError as error:
                self._keeping.stop(f"its folder cannot be used ({error.strerror})")
                return False
            if lacking > 0:
                self._fits = False
                _warn(
                    f"{self.url} is not cached: not enough space ({lacking / 1e6:.1f} MB missing)."
                )
                return False
            self._credit = max(nbytes, min(space.free, _MAX_CREDIT_NBYTES))
        self._credit -= nbytes
        return True

    def _save(self, entry: Entry | None = None) -> None:
        if self._journal:
            with suppress(OSError):
                self._journal.save(self._key, entry or self.entry)

    async def _acquire(self) -> None:
        """Take the fetch lock, unless another process keeps it for the next moment."""
        assert self._journal is not None
        try:
            lock = self._journal.lock(self._key)
            await lock.acquire(timeout=_TURN_S, poll_interval=0.05)
        except Timeout:
            return
        except OSError as error:
            self._keeping.stop(f"its folder cannot be used ({error.strerror})")
            return
        self._lock = lock


def _version(entry: Entry) -> Version:
    return Version(entry.nbytes, entry.etag, entry.modified)


def _warn(text: str) -> None:
    warnings.warn(text, stacklevel=2)
