"""A model folder on a server, read natively through the weight cache."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

import httpx

from bascule.backend.base import WeightStore
from bascule.errors import FileMissingError, HashMismatchError, ModelFileError, SourceError
from bascule.weights.cached import CachedFile, CacheSession
from bascule.weights.journal import Journal
from bascule.weights.manifest import MAX_MANIFEST_NBYTES, ManifestEntry, is_manifest, parse_manifest
from bascule.weights.names import MANIFEST, check_file
from bascule.weights.pieces import Piece, Scatter, check_ends, chunk_order
from bascule.weights.remote import RetryPolicy, check_address, open_client
from bascule.weights.source import (
    CHUNK_NBYTES,
    MAX_SMALL_NBYTES,
    Proof,
    Report,
    expected_of,
    stream_chunks,
)


class HttpSource:
    """See `Source`; with `journal` None nothing is cached."""

    def __init__(
        self,
        url: str,
        hashes: Mapping[str, str] | None = None,
        chunk_nbytes: int = CHUNK_NBYTES,
        *,
        retry: RetryPolicy | None = None,
        journal: Journal | str | None = "default",
        revalidate: bool = True,
    ) -> None:
        self.location = url
        check_address(url)
        self._hashes = hashes or {}
        self._chunk_nbytes = chunk_nbytes
        self._patience = retry or RetryPolicy()
        self._keeping = CacheSession(url, Journal() if isinstance(journal, str) else journal)
        self._keeping.revalidates = revalidate
        self._client: httpx.AsyncClient | None = None
        self._files: dict[str, CachedFile] = {}
        self._manifest: dict[str, ManifestEntry] | None = None
        self._reading = asyncio.Lock()
        self._last: tuple[str, int, bytes] | None = None  # the chunk that was reread last

    @property
    def stats(self) -> Mapping[str, float]:
        files = self._files.values()
        return {
            "network_nbytes": sum(f.remote.received for f in files),
            "network_retries": sum(f.remote.retries for f in files),
            "cached_nbytes": sum(f.cached_nbytes for f in files),
            # A chunk that is being filled, and what the response has delivered past its end.
            "peak_chunk_nbytes": 2 * self._chunk_nbytes,
        }

    async def size(self, file: str) -> int:
        nbytes = (await self._open(file)).entry.nbytes
        if nbytes < 0:
            raise SourceError(self._url(file), "the server does not report the file's size")
        return nbytes

    async def read(self, file: str, offset: int = 0, nbytes: int | None = None) -> bytes:
        result = await self._open(file)
        try:
            if nbytes is None and offset == 0:
                return await self._read_all(result, file)
            return await self._read_part(result, offset, nbytes)
        finally:
            await result.pause()

    async def chunk_nbytes(self, file: str) -> int:
        return (await self._open(file)).entry.chunk_nbytes

    async def stream(
        self, file: str, pieces: Sequence[Piece], store: WeightStore, report: Report
    ) -> None:
        result = await self._open(file)
        self._keeping.trusted = True  # the pieces come from the file's header
        for each in self._files.values():
            each.cache_waiting()
        check_ends(pieces, result.entry.nbytes, result.url)
        chunk, count = result.entry.chunk_nbytes, len(result.entry.hashes)
        digest = self._hashes.get(file, "")
        proof = Proof(digest) if result.needs_proof(digest) else None
        order = chunk_order(pieces, chunk, count if proof else 0)
        if proof and self._keeping.journal is None:
            order.sort()  # nothing could be read a second time for its hash
        result.want(order)
        try:
            await stream_chunks(pieces, order, chunk, result.chunk, store, report, proof)
            if proof:
                await self._prove(proof, result, digest)
        finally:
            await result.pause()

    async def reread(self, file: str, pieces: Sequence[Piece], store: WeightStore) -> None:
        """See `Source.reread`: each chunk is read from the cache and verified."""
        result, scatter = self._files[file], Scatter(pieces, store)
        size = result.entry.chunk_nbytes
        for index in chunk_order(pieces, size):
            # The next stage starts in the chunk in which this one ends.
            if self._last is None or self._last[:2] != (file, index):
                self._last = (file, index, await asyncio.to_thread(result.kept, index))
            scatter.feed(index * size, self._last[2])

    async def forget(self, file: str) -> None:
        result = self._files.pop(file, None)
        if result is not None:
            await result.forget()

    async def settle(self) -> None:
        for result in self._files.values():
            await result.pause()
        client, self._client = self._client, None
        if client is not None:
            await client.aclose()

    def release(self) -> None:
        self._last = None
        for result in self._files.values():
            result.release()

    async def _open(self, file: str) -> CachedFile:
        url = self._url(file)
        if self._client is None:
            self._client = open_client()
        expected = None if file == MANIFEST else await self._expected(file)
        result = self._files.get(file)
        if result is None:
            result = self._files[file] = CachedFile(
                url,
                self._client,
                self._keeping,
                retry=self._patience,
                chunk_nbytes=self._chunk_nbytes,
            )
        if not result.is_open:
            await result.open(expected)
        return result

    async def _read_all(self, cached: CachedFile, file: str) -> bytes:
        max_nbytes = MAX_MANIFEST_NBYTES if file == MANIFEST else MAX_SMALL_NBYTES
        if cached.entry.nbytes > max_nbytes:
            raise ModelFileError(cached.url, "it is too large for its kind")
        data = await cached.read_all(max_nbytes)
        if digest := self._hashes.get(file, ""):
            proof = Proof(digest)
            await proof.add(data)
            await self._prove(proof, cached, digest)
        return data

    async def _read_part(self, cached: CachedFile, offset: int, nbytes: int | None) -> bytes:
        end = cached.entry.nbytes if nbytes is None else offset + nbytes
        if end > cached.entry.nbytes:
            missing = end - cached.entry.nbytes
            raise SourceError(cached.url, f"it ends {missing:,} bytes early", offset=offset)
        if end - offset > MAX_SMALL_NBYTES:
            raise ModelFileError(cached.url, "a part of it is too large for its kind")
        size, parts = cached.entry.chunk_nbytes, list[bytes]()
        for index in range(offset // size, -(-end // size)):
            data, start = await cached.chunk(index), index * size
            parts.append(data[max(0, offset - start) : end - start])
        return b"".join(parts)

    async def _prove(self, proof: Proof, cached: CachedFile, digest: str) -> None:
        try:
            proof.check(cached.url)
        except HashMismatchError:
            await cached.forget()
            raise
        cached.proven(digest)

    async def _expected(self, file: str) -> ManifestEntry | None:
        async with self._reading:
            if self._manifest is None:
                try:
                    data = await self.read(MANIFEST)
                    place = self._url(MANIFEST)
                    self._manifest = parse_manifest(data, place) if is_manifest(data) else {}
                except FileMissingError:
                    self._manifest = {}
        return expected_of(self._manifest, file, self.location)

    def _url(self, file: str) -> str:
        return f"{self.location}/{check_file(file)}"
