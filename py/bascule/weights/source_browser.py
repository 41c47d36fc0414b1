"""Model files in a page: web/bridge/ fetches, caches and copies them, Python plans."""

from __future__ import annotations

import asyncio
import json
import os
from array import array
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import js
from pyodide.ffi import JsException, create_proxy, to_js

from bascule.backend.base import WeightStore
from bascule.base.bridge_browser import absolute_url, bridge_module, bridge_modules, js_message
from bascule.base.page_settings import MODELS
from bascule.base.waiting import shared_task
from bascule.errors import (
    BasculeError,
    FileChangedError,
    FileMissingError,
    HashMismatchError,
    ModelFileError,
    SourceError,
)
from bascule.weights.manifest import MAX_MANIFEST_NBYTES
from bascule.weights.names import MANIFEST, check_file
from bascule.weights.pieces import RAW, Piece
from bascule.weights.source import (
    CHUNK_NBYTES,
    EVICTED_HINT,
    MAX_SMALL_NBYTES,
    UNLISTED_HINT,
    Report,
)

_RELOAD_HINT = "Load again; if that does not help, reload the page."
_LARGE_HINT = "Check that the address is that of a model's folder."
_CORS_HINT = (
    "Let that server send Access-Control-Allow-Origin (the page's origin, or *), or serve the "
    "model from the page's own origin."
)
_DTYPES = {"F32": 0, "F16": 1, "BF16": 2, RAW: 3}
_PARTS = ("store", "http", "journal", "manifest", "download", "shelf", "pieces")
_EARLY = "basculeEarlyFetcher"  # as web/early.js has it
_fetchers: dict[str, asyncio.Task[Any]] = {}


def page_folder(path: str) -> str:
    """Return the URL of a folder on the page's own server; InputError for an invalid path."""
    return absolute_url(path, str(js.location.origin) + "/")


def known_folder(name: str) -> str:
    """Return the URL of a known model (see `bascule.configure`)."""
    return f"{os.environ.get(MODELS) or page_folder('models/')}{name}"


async def page_fetcher(**options: Any) -> Any:
    """Return the page's Fetcher for these options (DEFAULTS in web/bridge/fetcher.js)."""
    key = json.dumps(options, sort_keys=True)
    return await asyncio.shield(shared_task(_fetchers, key, partial(_make_fetcher, key)))


async def _make_fetcher(options: str) -> Any:
    early = getattr(js.globalThis, _EARLY, None) if options == "{}" else None
    if early and not early.taken:  # web/early.js has made it while Python started
        early.taken = True
        try:
            return await early.fetcher
        except JsException:  # called here to get its error
            pass
    modules = await bridge_modules(f"bridge/{name}.js" for name in (*_PARTS, "fetcher"))
    fetcher = modules.pop()
    parts: dict[str, Any] = dict(zip(_PARTS, modules, strict=True))
    parts["idb"] = create_proxy(lambda: bridge_module("vendor/idb.js"))
    parts["hashes"] = create_proxy(_hashes)
    return await fetcher.createFetcher(to_js(parts, dict_converter=js.Object.fromEntries), options)


async def _hashes() -> Any:
    """Load hash-wasm, which sets a global instead of exporting."""
    await bridge_module("vendor/hash-wasm.js")
    return js.globalThis.hashwasm


class PageSource:
    """See `Source`."""

    def __init__(
        self,
        url: str,
        hashes: Mapping[str, str] | None = None,
        chunk_nbytes: int = CHUNK_NBYTES,
        *,
        revalidate: bool = True,
        **options: Any,
    ) -> None:
        absolute_url(url, url)  # InputError for what the browser takes for none
        self.location = url
        self._revalidate = revalidate
        self._hashes = hashes or {}
        self._options = options
        if chunk_nbytes != CHUNK_NBYTES:
            self._options["chunkNbytes"] = chunk_nbytes
        self._fetcher: Any = None

    @property
    def stats(self) -> Mapping[str, float]:
        if self._fetcher is None:
            return {}
        return json.loads(self._fetcher.stats(self.location))

    async def size(self, file: str) -> int:
        fetcher = await self._open()
        try:
            return int(await fetcher.size(self.location, check_file(file)))
        except JsException as error:
            raise self._load_error(file, error) from None

    async def chunk_nbytes(self, file: str) -> int:
        fetcher = await self._open()
        try:
            return int(await fetcher.chunkNbytes(self.location, check_file(file)))
        except JsException as error:
            raise self._load_error(file, error) from None

    async def read(self, file: str, offset: int = 0, nbytes: int | None = None) -> bytes:
        fetcher = await self._open()
        max_nbytes = MAX_MANIFEST_NBYTES if file == MANIFEST else MAX_SMALL_NBYTES
        try:
            if nbytes is None and offset == 0:
                digest = self._hashes.get(file, "")
                result = await fetcher.readAll(self.location, check_file(file), max_nbytes, digest)
            else:
                if nbytes is None:
                    nbytes = await self.size(file) - offset
                if nbytes > max_nbytes:
                    raise ModelFileError(self._url(file), f"{nbytes:,} bytes are too large a part")
                result = await fetcher.read(self.location, check_file(file), offset, nbytes)
        except JsException as error:
            raise self._load_error(file, error) from None
        return bytes(result.to_bytes())

    async def stream(
        self, file: str, pieces: Sequence[Piece], store: WeightStore, report: Report
    ) -> None:
        """See `Source.stream`; with a GPU the bytes never enter Python."""
        fetcher = await self._open()
        table = _table(pieces)
        sink = None if store.page_bridge is not None else create_proxy(_heap_sink(store))
        notify = create_proxy(report)
        try:
            await fetcher.stream(
                self.location,
                check_file(file),
                table,
                store.page_bridge,
                sink,
                self._hashes.get(file, ""),
                notify,
            )
        except asyncio.CancelledError:
            fetcher.close(self.location)
            raise
        except JsException as error:
            raise self._load_error(file, error) from None
        finally:
            notify.destroy()
            if sink is not None:
                sink.destroy()

    async def reread(self, file: str, pieces: Sequence[Piece], store: WeightStore) -> None:
        fetcher, bridge = await self._open(), store.page_bridge
        sink = None if bridge is not None else create_proxy(_heap_sink(store))
        try:
            await fetcher.reread(self.location, check_file(file), _table(pieces), bridge, sink)
        except JsException as error:
            raise self._load_error(file, error) from None
        finally:
            if sink is not None:
                sink.destroy()

    async def forget(self, file: str) -> None:
        await (await self._open()).forget(self.location, check_file(file))

    async def settle(self) -> None:
        """Do nothing: each stream closes its connections."""

    def release(self) -> None:
        if self._fetcher is not None:
            self._fetcher.close(self.location)

    async def _open(self) -> Any:
        if self._fetcher is None:
            self._fetcher = await page_fetcher(**self._options)
            if not self._revalidate:
                self._fetcher.skipChecks(self.location)
        return self._fetcher

    def _url(self, file: str) -> str:
        return f"{self.location}/{file}"

    def _load_error(self, file: str, error: JsException) -> BasculeError:
        """Convert an error of web/bridge/http.js."""
        url, text = self._url(file), js_message(error)
        try:
            fault = json.loads(text)
        except ValueError:
            fault = None
        if not isinstance(fault, dict):  # no fault of the network's: storage, say
            return SourceError(url, text, hint=_RELOAD_HINT)
        what, offset = fault["what"], fault["offset"]
        match fault["kind"]:
            case "missing":
                return FileMissingError(url)
            case "unlisted":
                return FileMissingError(url, hint=UNLISTED_HINT)
            case "large":
                return ModelFileError(url, what, hint=_LARGE_HINT)
            case "cors":
                return SourceError(url, what, hint=_CORS_HINT)
            case "corrupt":
                return HashMismatchError(url, what)
            case "changed":
                return FileChangedError(url, what, offset=offset)
            case "evicted":
                return SourceError(url, what, offset=offset, hint=EVICTED_HINT)
            case _:
                return SourceError(url, what, offset=offset)


def _table(pieces: Sequence[Piece]) -> array[float]:
    """Encode pieces for `decodePieces` in web/bridge/pieces.js."""
    table = array("d")
    for p in pieces:
        table.extend((p.file_offset, p.nbytes, p.target, p.target_offset, _DTYPES[p.dtype]))
    return table


def _heap_sink(store: WeightStore) -> Any:
    def sink(target: int, offset: int, chunk: Any) -> None:
        store.write(target, offset, chunk.to_memoryview())

    return sink
