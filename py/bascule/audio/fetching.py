"""A sound file on a server, natively."""

from __future__ import annotations

import httpx

from bascule.errors import FileMissingError, InputError, SourceError

MAX_NBYTES = 1 << 30
_STALL_S = 30.0


async def fetch_audio(url: str) -> bytes:
    """Return the file at an http or https URL.

    InputError for another URL or more than 1 GiB, FileMissingError, SourceError.
    """
    if not url.startswith(("http://", "https://")):
        raise InputError("audio", "an http or https URL", url[:80])
    parts = bytearray()
    try:
        async with (
            httpx.AsyncClient(timeout=_STALL_S, follow_redirects=True) as client,
            client.stream("GET", url) as answer,
        ):
            if answer.status_code == 404:
                raise FileMissingError(url)
            answer.raise_for_status()
            async for part in answer.aiter_bytes():
                parts += part
                if len(parts) > MAX_NBYTES:
                    raise InputError("audio", f"at most {MAX_NBYTES:,} bytes", url)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise SourceError(url, f"it could not be read: {error}") from None
    return bytes(parts)
