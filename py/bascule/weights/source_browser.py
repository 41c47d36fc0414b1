"""Model files in a page: web/bridge/fetcher.js fetches, Python plans."""

from __future__ import annotations

import asyncio
import itertools
import json
from array import array
from collections.abc import Sequence
from typing import Any

import js
from pyodide.ffi import JsException, create_proxy

from bascule.backend.base import WeightStore
from bascule.bridge_browser import bridge_module, js_message
from bascule.errors import BasculeError, FileMissingError, ModelFileError, SourceError
from bascule.weights.source import CHUNK_NBYTES, MOST_SMALL_NBYTES, Piece, Report, check_file

# Chunks that may be queued for the GPU and not copied yet: the promise of a bounded peak.
MOST_CHUNKS = 3
_DTYPES = {"F32": 0, "F16": 1, "BF16": 2}
_jobs = itertools.count(1)


def page_folder(path: str) -> str:
    """The URL of a folder on the page's own server."""
    return str(js.URL.new(path, js.location.origin + "/").href)


class PageSource:
    """See `Source`."""

    def __init__(self, url: str) -> None:
        self.location = url
        self._fetcher: Any = None

    async def size(self, file: str) -> int:
        """See `Source.size`."""
        fetcher = await self._open()
        try:
            return int(await fetcher.size(self._url(file)))
        except JsException as error:
            raise self._told(file, error) from None

    async def read(self, file: str, offset: int = 0, nbytes: int | None = None) -> bytes:
        """See `Source.read`."""
        fetcher = await self._open()
        wanted = -1 if nbytes is None else nbytes
        try:
            found = await fetcher.read(self._url(file), offset, wanted, MOST_SMALL_NBYTES)
        except JsException as error:
            raise self._told(file, error) from None
        return bytes(found.to_bytes())

    async def stream(
        self, file: str, pieces: Sequence[Piece], store: WeightStore, report: Report
    ) -> None:
        """See `Source.stream`. With a GPU the bytes never enter Python."""
        fetcher = await self._open()
        table = array("d")
        for p in pieces:
            table.extend((p.file_offset, p.nbytes, p.target, p.target_offset, _DTYPES[p.dtype]))
        sink = None if store.page_bridge is not None else create_proxy(_heap_sink(store))
        tell = create_proxy(report)
        job = next(_jobs)
        try:
            await fetcher.stream(
                job,
                self._url(file),
                table,
                store.page_bridge,
                sink,
                tell,
                CHUNK_NBYTES,
                MOST_CHUNKS,
            )
        except asyncio.CancelledError:
            fetcher.abort(job)
            raise
        except JsException as error:
            raise self._told(file, error) from None
        finally:
            tell.destroy()
            if sink is not None:
                sink.destroy()

    @property
    def peak_chunk_nbytes(self) -> int:
        """See `Source.peak_chunk_nbytes`: bytes queued for the GPU and not copied yet."""
        return 0 if self._fetcher is None else int(self._fetcher.peakChunkNbytes)

    async def _open(self) -> Any:
        if self._fetcher is None:
            module = await bridge_module("bridge/fetcher.js")
            self._fetcher = module.Fetcher.new(await bridge_module("bridge/pieces.js"))
        return self._fetcher

    def _url(self, file: str) -> str:
        return f"{self.location}/{check_file(file)}"

    def _told(self, file: str, error: JsException) -> BasculeError:
        """Our error for a fault of fetcher.js; anything else is told as it is."""
        url, text = self._url(file), js_message(error)
        try:
            fault = json.loads(text)
        except ValueError:
            return SourceError(url, text)
        if fault["kind"] == "missing":
            return FileMissingError(url)
        if fault["kind"] == "large":
            return ModelFileError(url, fault["what"])
        return SourceError(url, fault["what"], offset=fault["offset"])


def _heap_sink(store: WeightStore) -> Any:
    def sink(target: int, offset: int, chunk: Any) -> None:
        store.write(target, offset, chunk.to_memoryview())

    return sink
