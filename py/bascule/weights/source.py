"""Where model files come from: a folder, or a server.

A source reads small files whole and streams large ones by pieces into a weight store. Nothing here
keeps a file: at most one chunk is in memory at a time.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol
from urllib.parse import urlsplit

from bascule.backend.base import WeightStore
from bascule.errors import (
    FileMissingError,
    InputError,
    ModelFileError,
    ModelNotFoundError,
    SourceError,
)
from bascule.weights.widen import Writer

if TYPE_CHECKING:
    import httpx

CHUNK_NBYTES = 4 << 20
# The only names that are ever looked for: none comes from a model's own files.
ALLOWED_FILES = frozenset(
    {
        "config.json",
        "tokenizer.json",
        "model.safetensors",
        "modules.json",
        "sentence_bert_config.json",
        "1_Pooling/config.json",
    }
)
MOST_SMALL_NBYTES = 128 << 20
_TIMEOUT_S = 30.0


@dataclass(frozen=True, slots=True)
class Piece:
    """A run of a file's bytes and where it goes.

    `nbytes` counts the file's bytes. F16 and BF16 are widened on the way, so that `target_offset`
    counts bytes of float32.
    """

    file_offset: int
    nbytes: int
    target: int
    target_offset: int
    dtype: str = "F32"


Report = Callable[[int], None]


class Source(Protocol):
    """A model folder somewhere.

    FileMissingError if it lacks a file, SourceError if reading fails.
    """

    location: str

    @property
    def peak_chunk_nbytes(self) -> int:
        """Most bytes of weights that were under way at once."""
        ...

    async def read(self, file: str, offset: int = 0, nbytes: int | None = None) -> bytes:
        """Read a small file, or a part of any file. Never fewer bytes than asked for."""
        ...

    async def size(self, file: str) -> int:
        """The file's size in bytes."""
        ...

    async def stream(
        self, file: str, pieces: Sequence[Piece], store: WeightStore, report: Report
    ) -> None:
        """Copy pieces (sorted by offset, not overlapping) into the store.

        `report` is told the sum of the pieces' bytes so far. Cancelling stops between chunks.
        """
        ...


def open_source(location: str) -> Source:
    """A source for an http(s) URL, in the page always one, or else for a local folder."""
    scheme = urlsplit(location).scheme if "://" in location else ""
    if scheme in ("http", "https"):
        url = check_url(location)
        if sys.platform == "emscripten":
            from bascule.weights.source_browser import PageSource

            return PageSource(url)
        return HttpSource(url)
    if scheme:
        raise InputError("model location", "http://, https:// or a folder", f"{scheme}://")
    return FileSource(location)


def check_url(url: str) -> str:
    """The URL of a folder without its last slash; InputError if it carries what it should not."""
    parts = urlsplit(url)
    if not parts.hostname:
        raise InputError("model URL", "a host name", repr(url))
    if parts.username or parts.password:
        raise InputError(
            "model URL",
            "no user name or password in it",
            f"one for {parts.hostname}",
            hint="Put the model where it can be read without one.",
        )
    if parts.query or parts.fragment:
        raise InputError("model URL", "the URL of a folder, with no ? or #", repr(url))
    return url.rstrip("/")


def check_file(file: str) -> str:
    """The name, if it is one that may be looked for."""
    if file not in ALLOWED_FILES:
        raise InputError("model file", f"one of {sorted(ALLOWED_FILES)}", repr(file))
    return file


class FileSource:
    """A local folder."""

    peak_chunk_nbytes = CHUNK_NBYTES

    def __init__(self, folder: str | Path) -> None:
        self._folder = Path(folder).expanduser()
        self.location = str(self._folder)
        if not self._folder.is_dir():
            reason = "that is a file" if self._folder.exists() else "there is no such folder"
            raise ModelNotFoundError(
                self.location, reason, hint="Give the folder that holds config.json."
            )

    async def size(self, file: str) -> int:
        """See `Source.size`."""
        try:
            return self._path(file).stat().st_size
        except OSError as error:
            raise self._fault(file, error) from None

    async def read(self, file: str, offset: int = 0, nbytes: int | None = None) -> bytes:
        """See `Source.read`."""
        size = await self.size(file)
        wanted = max(0, size - offset) if nbytes is None else nbytes
        if wanted > MOST_SMALL_NBYTES:
            raise ModelFileError(f"{self.location}/{file}", f"it is too large ({size:,} bytes)")
        return await asyncio.to_thread(self._read, file, offset, wanted)

    async def stream(
        self, file: str, pieces: Sequence[Piece], store: WeightStore, report: Report
    ) -> None:
        """See `Source.stream`."""
        done = 0
        for piece in pieces:
            writer = Writer(store, piece)
            for at in range(0, piece.nbytes, CHUNK_NBYTES):
                count = min(CHUNK_NBYTES, piece.nbytes - at)
                chunk = await asyncio.to_thread(self._read, file, piece.file_offset + at, count)
                writer.feed(chunk)
                done += count
                report(done)

    def _path(self, file: str) -> Path:
        return self._folder / check_file(file)

    def _read(self, file: str, offset: int, nbytes: int) -> bytes:
        try:
            with self._path(file).open("rb") as handle:
                handle.seek(offset)
                data = handle.read(nbytes)
        except OSError as error:
            raise self._fault(file, error) from None
        if len(data) != nbytes:
            raise SourceError(
                str(self._path(file)), f"it ends {nbytes - len(data):,} bytes early", offset=offset
            )
        return data

    def _fault(self, file: str, error: OSError) -> SourceError:
        path = str(self._path(file))
        if isinstance(error, FileNotFoundError | NotADirectoryError):
            return FileMissingError(path)
        return SourceError(path, error.strerror or type(error).__name__)


class HttpSource:
    """A folder on a server, natively."""

    peak_chunk_nbytes = CHUNK_NBYTES

    def __init__(self, url: str) -> None:
        self.location = url
        self._sizes: dict[str, int] = {}

    async def size(self, file: str) -> int:
        """See `Source.size`: the total of a one-byte range, since HEAD is often refused."""
        if file not in self._sizes:
            async with self._open(file, 0, 1) as response:
                self._sizes[file] = _total(response, self._url(file))
        return self._sizes[file]

    async def read(self, file: str, offset: int = 0, nbytes: int | None = None) -> bytes:
        """See `Source.read`."""
        parts: list[bytes] = []
        total = 0
        async for part in self._bytes(file, offset, nbytes):
            parts.append(part)
            total += len(part)
            if total > MOST_SMALL_NBYTES:
                raise ModelFileError(self._url(file), "it is too large for what it should hold")
        return b"".join(parts)

    async def stream(
        self, file: str, pieces: Sequence[Piece], store: WeightStore, report: Report
    ) -> None:
        """See `Source.stream`. One request runs over all pieces; gaps between them are skipped."""
        if not pieces:
            return
        start = pieces[0].file_offset
        end = pieces[-1].file_offset + pieces[-1].nbytes
        feeder = _Feeder(pieces, store)
        async for part in self._bytes(file, start, end - start):
            report(feeder.feed(part))

    def _url(self, file: str) -> str:
        return f"{self.location}/{check_file(file)}"

    def _open(self, file: str, offset: int, nbytes: int | None) -> _Opened:
        return _Opened(self._url(file), offset, nbytes)

    async def _bytes(self, file: str, offset: int, nbytes: int | None) -> AsyncIterator[bytes]:
        """Exactly the bytes asked for, whether the server answers with 206 or with 200."""
        import httpx

        url, at = self._url(file), offset
        end = None if nbytes is None else offset + nbytes
        try:
            async with self._open(file, offset, nbytes) as response:
                promised = _length(response)
                skip = offset if response.status_code == 200 else 0
                received = 0
                async for part in response.aiter_raw(CHUNK_NBYTES):
                    received += len(part)
                    kept = part[skip:]
                    skip -= len(part) - len(kept)
                    kept = kept if end is None else kept[: end - at]
                    at += len(kept)
                    if kept:
                        yield kept
                    if end is not None and at >= end:
                        return
        except httpx.HTTPError as error:
            told = f"the connection failed ({type(error).__name__})"
            raise SourceError(url, told, offset=at) from error
        if end is not None or (promised is not None and received != promised):
            missing = f"{end - at:,} bytes" if end is not None else "the end"
            raise SourceError(url, f"the server sent too little: {missing} missing", offset=at)


class _Opened:
    """One GET with an optional range, as an async context."""

    def __init__(self, url: str, offset: int, nbytes: int | None) -> None:
        self._url = url
        self._headers = {"Accept-Encoding": "identity"}
        if offset or nbytes is not None:
            last = "" if nbytes is None else str(offset + nbytes - 1)
            self._headers["Range"] = f"bytes={offset}-{last}"
        self._offset = offset

    async def __aenter__(self) -> httpx.Response:
        import httpx

        self._client = httpx.AsyncClient(timeout=_TIMEOUT_S, follow_redirects=True, max_redirects=5)
        try:
            request = self._client.build_request("GET", self._url, headers=self._headers)
            self._response = await self._client.send(request, stream=True)
        except httpx.HTTPError as error:
            await self._client.aclose()
            told = f"the connection failed ({type(error).__name__}: {error})"
            raise SourceError(self._url, told, offset=self._offset) from error
        try:
            check_status(
                self._url, self._response.status_code, self._response.headers, self._offset
            )
        except BaseException:
            await self.__aexit__()
            raise
        return self._response

    async def __aexit__(self, *_: object) -> None:
        await self._response.aclose()
        await self._client.aclose()


def check_status(url: str, status: int, headers: httpx.Headers, offset: int) -> None:
    """Raise for every answer that does not carry the bytes asked for."""
    if status in (404, 410):
        raise FileMissingError(url)
    if status not in (200, 206):
        raise SourceError(url, f"the server answered {status}", offset=offset)
    if headers.get("content-encoding", "identity") != "identity":
        raise SourceError(url, "the server compressed a file that was asked for as it is")
    start = headers.get("content-range", "").removeprefix("bytes ").split("-")[0]
    if status == 206 and start != str(offset):
        raise SourceError(url, f"the server sent another range, from byte {start!r}", offset=offset)


def _total(response: httpx.Response, url: str) -> int:
    found = response.headers.get("content-range", "").rpartition("/")[2]
    if response.status_code == 200:
        found = response.headers.get("content-length", "")
    if not found.isdigit():
        raise SourceError(url, "the server does not tell the file's size")
    return int(found)


def _length(response: httpx.Response) -> int | None:
    found = response.headers.get("content-length", "")
    return int(found) if found.isdigit() else None


class _Feeder:
    """Cuts one run of bytes into pieces."""

    def __init__(self, pieces: Sequence[Piece], store: WeightStore) -> None:
        self._pieces = list(pieces)
        self._store = store
        self._index = 0
        self._at = pieces[0].file_offset
        self._writer = Writer(store, pieces[0])
        self._done = 0

    def feed(self, part: bytes) -> int:
        """Take the next bytes of the run; returns the pieces' bytes so far."""
        view = memoryview(part)
        while view.nbytes and self._index < len(self._pieces):
            piece = self._pieces[self._index]
            gap = min(view.nbytes, max(0, piece.file_offset - self._at))
            count = min(view.nbytes - gap, piece.file_offset + piece.nbytes - self._at - gap)
            self._writer.feed(view[gap : gap + count])
            self._at += gap + count
            self._done += count
            view = view[gap + count :]
            if self._at == piece.file_offset + piece.nbytes:
                self._next()
        return self._done

    def _next(self) -> None:
        self._index += 1
        if self._index < len(self._pieces):
            self._writer = Writer(self._store, self._pieces[self._index])
