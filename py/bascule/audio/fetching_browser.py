"""A sound file on a server, in a page."""

from __future__ import annotations

from typing import Any

from js import fetch
from pyodide.ffi import JsException

from bascule.errors import FileMissingError, InputError, SourceError

MAX_NBYTES = 1 << 30


async def fetch_audio(url: str) -> bytes:
    """Return the file at a URL; InputError for more than 1 GiB, FileMissingError, SourceError."""
    try:
        answer: Any = await fetch(url)
        if answer.status == 404:
            raise FileMissingError(url)
        if not answer.ok:
            raise SourceError(url, f"it could not be read: status {answer.status}")
        if int(answer.headers.get("content-length") or 0) > MAX_NBYTES:
            raise InputError("audio", f"at most {MAX_NBYTES:,} bytes", url)
        return (await answer.arrayBuffer()).to_bytes()
    except JsException as error:
        raise SourceError(url, f"it could not be read: {error}") from None
