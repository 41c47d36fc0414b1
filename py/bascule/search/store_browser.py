"""The store of an index in a page: the browser's cache of models."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, AsyncIterable
from dataclasses import dataclass
from typing import Any, Self

from pyodide.ffi import JsException, to_js

from bascule.base.bridge_browser import js_message
from bascule.errors import SourceError
from bascule.search.stores import CHUNK_NBYTES, damaged, in_chunks, no_room
from bascule.weights.source_browser import page_fetcher

_STORAGE_HINT = "Storage is off in this window, or the page is not served over https."


@dataclass(frozen=True, slots=True)
class PageStore:
    """See `IndexStore`."""

    url: str
    _files: Any

    @classmethod
    async def make(cls, url: str) -> Self:
        """Return the store of that name. SourceError in a page that cannot store anything."""
        fetcher = await page_fetcher()
        if not fetcher.ownFiles:
            raise SourceError(url, "this page can store nothing", hint=_STORAGE_HINT)
        return cls(url, fetcher.ownFiles)

    async def write(self, nbytes: int, pieces: AsyncIterable[bytes]) -> None:
        try:
            if await self._files.begin(self.url, nbytes, CHUNK_NBYTES):
                raise no_room(self.url, nbytes)
            async for chunk in in_chunks(pieces):
                await self._files.next(self.url, to_js(chunk))
            await self._files.end(self.url)
        except JsException as error:
            raise SourceError(self.url, js_message(error)) from None
        finally:
            await self._files.drop(self.url)

    async def open(self) -> tuple[int, AsyncGenerator[bytes]] | None:
        result = json.loads(await self._files.find(self.url))
        if result is None:
            return None
        return result["nbytes"], self._chunks(result["count"])

    async def _chunks(self, count: int) -> AsyncGenerator[bytes]:
        for index in range(count):
            data = await self._files.chunk(self.url, index)
            if not data:
                raise damaged(self.url, index)
            yield data.to_bytes()
