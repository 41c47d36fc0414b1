"""Sources of model files: a folder, or a server behind the weight cache.

A source reads small files whole and streams large ones into a weight store, one chunk in memory at
a time.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from bascule.backend.base import WeightStore
from bascule.base.folders import file_nbytes, local_path, open_regular
from bascule.errors import (
    FileChangedError,
    FileMissingError,
    HashMismatchError,
    ModelFileError,
    ModelNotFoundError,
    SourceError,
)
from bascule.weights.manifest import MAX_MANIFEST_NBYTES, ManifestEntry, parse_manifest
from bascule.weights.names import FOREIGN_FILES, MANIFEST, check_file
from bascule.weights.pieces import Piece, Scatter, check_ends, chunk_order, leading

CHUNK_NBYTES = 4 << 20
MAX_SMALL_NBYTES = 128 << 20
UNLISTED_HINT = (
    f"{MANIFEST} does not list it: write the manifest again (`bascule manifest FOLDER`)."
)
EVICTED_HINT = "Load the model again, with room for its files in the cache."
# The version of a local file: modification time in ns, bytes, inode.
Stamp = tuple[int, int, int]
# (bytes of pieces so far, number of leading complete pieces)
Report = Callable[[int, int], None]


class Source(Protocol):
    """The files of a model's folder.

    FileMissingError if a file does not exist, SourceError if reading fails, FileChangedError if a
    file changes during the load, HashMismatchError if its bytes have the wrong hash.
    """

    location: str

    @property
    def stats(self) -> Mapping[str, float]:
        """Bytes from the network and from the cache, retries, peak bytes of weights in memory."""
        ...

    async def read(self, file: str, offset: int = 0, nbytes: int | None = None) -> bytes:
        """Read a small file, or a part of any file; never fewer bytes than requested."""
        ...

    async def size(self, file: str) -> int:
        """Return the file's size in bytes."""
        ...

    async def chunk_nbytes(self, file: str) -> int:
        """Return the size of the chunks that `stream` reads; the last may be shorter."""
        ...

    async def stream(
        self, file: str, pieces: Sequence[Piece], store: WeightStore, report: Report
    ) -> None:
        """Copy pieces into the store, chunk by chunk in the order in which the pieces need them.

        `report` is called for each chunk before the next is written. Cancelling stops between
        chunks.
        """
        ...

    async def reread(self, file: str, pieces: Sequence[Piece], store: WeightStore) -> None:
        """Copy pieces of a file that `stream` has read once more, from the folder or the cache.

        FileChangedError if the file has changed, FileMissingError or SourceError if it is gone.
        """
        ...

    async def forget(self, file: str) -> None:
        """Evict a file from the cache, so that the next read starts over."""
        ...

    async def settle(self) -> None:
        """End the load: close connections, and let other processes load."""
        ...

    def release(self) -> None:
        """Mark the files as no longer in use: the cache may evict them."""
        ...


async def read_optional(source: Source, file: str) -> bytes | None:
    """Read a small file; None if it is missing. Other errors as `Source.read`."""
    try:
        return await source.read(file)
    except FileMissingError:
        return None


def expected_of(
    manifest: Mapping[str, ManifestEntry], file: str, location: str
) -> ManifestEntry | None:
    """Return a file's entry in the manifest; None if there is no manifest.

    A manifest lists all files of its folder: FileMissingError for any other, without asking the
    server. FOREIGN_FILES, which no manifest lists, may be looked for.
    """
    if manifest and file not in manifest and file not in FOREIGN_FILES:
        raise FileMissingError(f"{location}/{file}", hint=UNLISTED_HINT)
    return manifest.get(file)


ReadChunk = Callable[[int], Awaitable[bytes]]


class Proof:
    """Hashes a whole file while its chunks pass in file order."""

    def __init__(self, wanted: str) -> None:
        self._wanted = wanted
        self._hasher = hashlib.sha256()

    async def add(self, data: bytes) -> None:
        """Hash the next bytes, in a thread: hashlib releases the GIL."""
        await asyncio.to_thread(self._hasher.update, data)

    def check(self, place: str) -> None:
        """HashMismatchError unless the hash is the expected one."""
        result = self._hasher.hexdigest()
        if result != self._wanted:
            raise HashMismatchError(
                place, f"its SHA-256 is {result}, and {self._wanted} was promised"
            )


async def stream_chunks(
    pieces: Sequence[Piece],
    order: Sequence[int],
    chunk_nbytes: int,
    read: ReadChunk,
    store: WeightStore,
    report: Report,
    proof: Proof | None,
) -> None:
    """Read chunks in order and scatter them; with a proof, hash all of them in file order."""
    scatter, ready = Scatter(pieces, store), leading(pieces)
    in_order = list(order) == sorted(order)
    for index in order:
        data = await read(index)
        if proof and in_order:
            await proof.add(data)
        scatter.feed(index * chunk_nbytes, data)
        report(scatter.done, ready(index * chunk_nbytes, len(data)))
    if proof and not in_order:
        for index in sorted(order):
            await proof.add(await read(index))


class FileSource:
    """A `Source` in a local folder."""

    def __init__(
        self,
        folder: str | Path,
        hashes: Mapping[str, str] | None = None,
        chunk_nbytes: int = CHUNK_NBYTES,
    ) -> None:
        self._folder = local_path(str(folder))
        self._hashes = hashes or {}
        self._chunk_nbytes = chunk_nbytes
        self._manifest: dict[str, ManifestEntry] | None = None
        self._reading = asyncio.Lock()
        self._last: tuple[str, int, bytes] | None = None  # the chunk that was verified last
        self._streamed: dict[str, Stamp] = {}  # of files that were streamed
        self.location = str(self._folder)
        self.stats: dict[str, float] = {"peak_chunk_nbytes": chunk_nbytes}
        if not os.path.isdir(self._folder):
            there = os.path.exists(self._folder)
            reason = "that is not a folder" if there else "there is no such folder"
            raise ModelNotFoundError(
                self.location,
                reason,
                hint="Give a model's folder or a .gguf file.",
            )

    async def size(self, file: str) -> int:
        nbytes = self._nbytes(file)
        expected = await self._expected(file)
        if expected and expected.nbytes != nbytes:
            problem = f"it has {nbytes:,} bytes, and its manifest says {expected.nbytes:,}"
            raise HashMismatchError(f"{self.location}/{file}", problem)
        return nbytes

    async def read(self, file: str, offset: int = 0, nbytes: int | None = None) -> bytes:
        """See `Source.read`; verified if a manifest or the registry has the file's hash."""
        size = await self.size(file)
        wanted = max(0, size - offset) if nbytes is None else nbytes
        if wanted > MAX_SMALL_NBYTES:
            raise ModelFileError(f"{self.location}/{file}", f"it is too large ({size:,} bytes)")
        expected = await self._expected(file)
        if expected:
            return await self._read_verified(file, expected, offset, wanted)
        data = await asyncio.to_thread(self._read, file, offset, wanted)
        digest = self._hashes.get(file, "")
        if nbytes is None and offset == 0 and digest:
            proof = Proof(digest)
            await proof.add(data)
            proof.check(f"{self.location}/{file}")
        return data

    async def chunk_nbytes(self, file: str) -> int:
        expected = await self._expected(file)
        return expected.chunk_nbytes if expected else self._chunk_nbytes

    async def stream(
        self, file: str, pieces: Sequence[Piece], store: WeightStore, report: Report
    ) -> None:
        size, expected = await self.size(file), await self._expected(file)
        chunk = await self.chunk_nbytes(file)
        place = f"{self.location}/{file}"
        check_ends(pieces, size, place)

        async def read(index: int) -> bytes:
            if expected:
                return await self._chunk(file, expected, index)
            start = index * chunk
            return await asyncio.to_thread(self._read, file, start, min(chunk, size - start))

        self._streamed[file] = self._stamp(file)
        digest = "" if expected else self._hashes.get(file, "")
        proof = Proof(digest) if digest else None
        order = chunk_order(pieces, chunk, -(-size // chunk) if proof else 0)
        await stream_chunks(pieces, order, chunk, read, store, report, proof)
        if proof:
            proof.check(place)

    async def reread(self, file: str, pieces: Sequence[Piece], store: WeightStore) -> None:
        """See `Source.reread`: a file has changed if its modification time, size or inode has."""
        self._check_same(file)
        for piece in pieces:
            scatter = Scatter([piece], store)
            for at in range(piece.file_offset, piece.file_offset + piece.nbytes, CHUNK_NBYTES):
                nbytes = min(CHUNK_NBYTES, piece.file_offset + piece.nbytes - at)
                scatter.feed(at, await asyncio.to_thread(self._read, file, at, nbytes))
        self._check_same(file)

    def _check_same(self, file: str) -> None:
        if self._stamp(file) != self._streamed.get(file):
            raise FileChangedError(
                f"{self.location}/{file}", "it has changed since the model was loaded"
            )

    def _stamp(self, file: str) -> Stamp:
        try:
            result = self._path(file).stat()
        except OSError as error:
            raise self._fault(file, error) from None
        return result.st_mtime_ns, result.st_size, result.st_ino

    async def forget(self, file: str) -> None:
        self._last = None
        self._streamed.pop(file, None)

    async def settle(self) -> None:
        """Do nothing: no connection is open."""
        self._last = None

    def release(self) -> None:
        """Do nothing: nothing is cached."""

    async def _read_verified(
        self, file: str, expected: ManifestEntry, offset: int, nbytes: int
    ) -> bytes:
        """Read bytes from chunks whose hashes match the manifest."""
        chunk, end = expected.chunk_nbytes, offset + nbytes
        if end > expected.nbytes:
            raise self._too_short(file, end - expected.nbytes, offset)
        parts: list[bytes] = []
        for index in range(offset // chunk, -(-end // chunk)):
            if self._last is None or self._last[:2] != (file, index):
                self._last = (file, index, await self._chunk(file, expected, index))
            start = index * chunk
            parts.append(self._last[2][max(0, offset - start) : end - start])
        return b"".join(parts)

    async def _chunk(self, file: str, expected: ManifestEntry, index: int) -> bytes:
        start = index * expected.chunk_nbytes
        nbytes = min(expected.chunk_nbytes, expected.nbytes - start)
        data = await asyncio.to_thread(self._read, file, start, nbytes)
        if await _digest(data) != expected.hashes[index]:
            problem = f"chunk {index} is not that of the manifest"
            raise HashMismatchError(f"{self.location}/{file}", problem)
        return data

    async def _expected(self, file: str) -> ManifestEntry | None:
        if file == MANIFEST:
            return None
        async with self._reading:
            if self._manifest is None:
                self._manifest = await self._read_manifest()
        return expected_of(self._manifest, file, self.location)

    async def _read_manifest(self) -> dict[str, ManifestEntry]:
        try:
            size = self._nbytes(MANIFEST)
        except FileMissingError:
            return {}
        place = f"{self.location}/{MANIFEST}"
        if size > MAX_MANIFEST_NBYTES:
            raise ModelFileError(place, "it is too large")
        return parse_manifest(await asyncio.to_thread(self._read, MANIFEST, 0, size), place)

    def _path(self, file: str) -> Path:
        return self._folder / check_file(file)

    def _nbytes(self, file: str) -> int:
        try:
            return file_nbytes(self._path(file))
        except OSError as error:
            raise self._fault(file, error) from None

    def _read(self, file: str, offset: int, nbytes: int) -> bytes:
        try:
            with open_regular(self._path(file)) as handle:
                handle.seek(offset)
                data = handle.read(nbytes)
        except OSError as error:
            raise self._fault(file, error) from None
        if len(data) != nbytes:
            raise self._too_short(file, nbytes - len(data), offset)
        return data

    def _too_short(self, file: str, missing: int, offset: int) -> SourceError:
        return SourceError(str(self._path(file)), f"it ends {missing:,} bytes early", offset=offset)

    def _fault(self, file: str, error: OSError) -> SourceError:
        path = str(self._path(file))
        if isinstance(error, FileNotFoundError | NotADirectoryError):
            return FileMissingError(path)
        return SourceError(path, error.strerror or type(error).__name__)


async def _digest(data: bytes) -> str:
    return (await asyncio.to_thread(hashlib.sha256, data)).hexdigest()
