"""Read one file on a server by ranges, over a network that drops, stalls and sends wrong bytes.

web/bridge/http.js does the same in a page, and tests hold both to one behaviour. Ranges, validators
and Retry-After follow RFC 9110, sections 10.2.3, 13 and 14.
"""

from __future__ import annotations

import asyncio
import random
import re
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from email.utils import parsedate_to_datetime
from typing import TypeVar

import httpx

from bascule.errors import (
    FileChangedError,
    FileMissingError,
    InputError,
    ModelFileError,
    SourceError,
)

T = TypeVar("T")

_MIN_PROGRESS_NBYTES = 1 << 16
_MIN_SPAN_NBYTES = 1 << 18
_MAX_SPAN_NBYTES = 1 << 24
_RETRIED = frozenset({408, 425, 429, 500, 502, 503, 504})
_MAX_REDIRECTS = 5
_ADDRESS_HINT = "Give the URL of a model's folder, like https://host/models/name."
_LENGTH = re.compile(r"[0-9]{1,15}")
_CONTENT_RANGE = re.compile(r"bytes ([0-9]{1,15})-([0-9]{1,15})/([0-9]{1,15}|\*)")


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Retry policy: attempts without progress; delays and timeouts in seconds."""

    attempts: int = 6
    first_delay_s: float = 0.25
    max_delay_s: float = 8.0
    stall_s: float = 30.0
    max_wait_s: float = 60.0


@dataclass(frozen=True, slots=True)
class Version:
    """A file's version; "" or -1 where the server does not report it."""

    nbytes: int = -1
    etag: str = ""
    modified: str = ""

    def agrees(self, other: Version) -> bool:
        """Whether all fields that both have are equal; ETags compare weakly (RFC 9110, 8.8.3.2)."""
        pairs = (
            (self.nbytes, other.nbytes),
            (self.etag.removeprefix("W/"), other.etag.removeprefix("W/")),
            (self.modified, other.modified),
        )
        return all(a in ("", -1) or b in ("", -1) or a == b for a, b in pairs)


class _NetworkError(Exception):
    """A failure that is retried."""

    def __init__(self, what: str, retry_after_s: float = -1) -> None:
        self.what = what
        self.retry_after_s = retry_after_s
        super().__init__(what)


def check_address(url: str) -> None:
    """InputError for a URL that cannot be requested."""
    try:
        parsed = httpx.URL(url)
        _ = parsed.host, parsed.raw_path
    except (httpx.InvalidURL, ValueError) as error:
        result = f"{url[:200]!r} ({error})"
        raise InputError("model URL", "a URL", result, hint=_ADDRESS_HINT) from None


def open_client() -> httpx.AsyncClient:
    """Return a client that follows a few redirects, but none from https to http."""
    return httpx.AsyncClient(
        follow_redirects=True,
        max_redirects=_MAX_REDIRECTS,
        headers={"Accept-Encoding": "identity"},
        event_hooks={"response": [refuse_downgrade]},
    )


async def refuse_downgrade(response: httpx.Response) -> None:
    """SourceError for a redirect from https to http."""
    following = response.next_request
    if following and response.request.url.scheme == "https" and following.url.scheme == "http":
        raise SourceError(str(response.request.url), "the server redirects from https to http")


class Remote:
    """A file at a URL."""

    def __init__(self, url: str, retry: RetryPolicy, client: httpx.AsyncClient) -> None:
        self.url = url
        self.version: Version | None = None
        self.received = 0
        self.retries = 0
        self._patience = retry
        self._client = client

    async def check(self, max_s: float | None = None) -> Version:
        """Ask for the file's version without its bytes.

        With `max_s` only once, and no longer than that; SourceError if the server does not answer.
        """
        retry = self._patience
        if max_s is not None:
            retry = replace(retry, attempts=1, stall_s=max_s)

        async def ask() -> Version:
            async with self._ask("HEAD", {}, retry) as response:
                refused = response.status_code not in _RETRIED and response.status_code >= 400
            if refused and response.status_code not in (404, 410):
                # Some servers reject HEAD; a request for one byte returns the same headers.
                async with self._ask("GET", {"Range": "bytes=0-0"}, retry) as response:
                    pass
            self._refuse(response, 0)
            return _version_of(response)

        self.version = await self._retried(ask, retry)
        return self.version

    async def read_all(self, max_nbytes: int) -> bytes:
        """Read a whole file of any or unknown size; ModelFileError past `max_nbytes` bytes."""

        async def fetch() -> bytes:
            result = bytearray()
            async with self._ask("GET", {}, self._patience) as response:
                self._refuse(response, 0)
                async for part in self._parts(response):
                    result += part
                    if len(result) > max_nbytes:
                        raise ModelFileError(self.url, "it is too large for its kind")
            self.version = replace(_version_of(response), nbytes=len(result))
            self.received += len(result)
            return bytes(result)

        return await self._retried(fetch, self._patience)

    async def read(self, start: int, end: int) -> AsyncGenerator[bytes, None]:
        """Yield bytes start to end as they arrive.

        A failure is retried from where it stopped, with shorter ranges if nothing arrived.
        """
        at, failures, since, span = start, 0, 0, end
        while at < end:
            stop = min(end, at + span)
            try:
                async for part in self._attempt(at, stop):
                    at += len(part)
                    since += len(part)
                    self.received += len(part)
                    yield part
                if at < stop:
                    raise _NetworkError(f"the server sent {stop - at:,} bytes too little")
                span *= 4
            except _NetworkError as error:
                if not since:
                    span = max(_MIN_SPAN_NBYTES, min(span, _MAX_SPAN_NBYTES) // 4)
                failures = 1 if since >= _MIN_PROGRESS_NBYTES else failures + 1
                since = 0
                await self._wait(error, failures, self._patience, at, end)

    async def _attempt(self, at: int, end: int) -> AsyncGenerator[bytes, None]:
        headers = {"Range": f"bytes={at}-{end - 1}"}
        known = self.version
        sure = known and (known.etag if known.etag[:2] not in ("", "W/") else known.modified)
        if sure:
            headers["If-Range"] = sure
        async with self._ask("GET", headers, self._patience) as response:
            self._refuse(response, at)
            self._same_version(response, at)
            skip = at if response.status_code == 200 else 0
            remaining = end - at
            async for part in self._parts(response):
                data = part[skip:][:remaining]
                skip = max(0, skip - len(part))
                remaining -= len(data)
                if data:
                    yield data
                if not remaining:
                    return

    def _refuse(self, response: httpx.Response, at: int) -> None:
        status = response.status_code
        if status in (204, 404, 410):  # 204: see server/app.py
            raise FileMissingError(self.url)
        if status == 416:
            raise FileChangedError(self.url, "it is shorter now", offset=at)
        if status in _RETRIED:
            wait = _retry_after(response.headers.get("retry-after", ""))
            raise _NetworkError(f"the server answered {status}", wait)
        if status not in (200, 206):
            raise SourceError(self.url, f"the server answered {status}", offset=at)
        if response.headers.get("content-encoding", "identity") != "identity":
            raise SourceError(
                self.url, "the server compressed a file that was requested uncompressed"
            )

    def _same_version(self, response: httpx.Response, at: int) -> None:
        if response.status_code == 206:
            content_range = response.headers.get("content-range", "")
            result = _CONTENT_RANGE.fullmatch(content_range)
            if not result:  # RFC 9110, 15.3.7.1: without it the bytes could be any of the file's
                sent = f"an invalid one: {content_range[:80]!r}" if content_range else "none"
                raise _NetworkError(f"the server sent a part without its Content-Range ({sent})")
            if int(result[1]) != at or int(result[2]) < at:
                raise _NetworkError(f"the server sent another range ({content_range})")
        now = _version_of(response)
        if self.version is None:
            self.version = now
        elif not now.agrees(self.version):
            raise FileChangedError(self.url, "it has changed on the server", offset=at)
        elif self.version.nbytes < 0:
            self.version = replace(self.version, nbytes=now.nbytes)

    @asynccontextmanager
    async def _ask(
        self, method: str, headers: dict[str, str], retry: RetryPolicy
    ) -> AsyncGenerator[httpx.Response, None]:
        timeout = httpx.Timeout(retry.stall_s)
        try:
            request = self._client.build_request(method, self.url, headers=headers, timeout=timeout)
            response = await self._client.send(request, stream=True)
        except httpx.TooManyRedirects:
            problem = f"more than {_MAX_REDIRECTS} redirects"
            raise SourceError(self.url, problem) from None
        except httpx.HTTPError as error:
            raise _network_error(error, retry) from None
        except (httpx.InvalidURL, ValueError, OSError) as error:  # where a redirect leads, say
            problem = f"its address cannot be used ({error})"
            raise SourceError(self.url, problem, hint=_ADDRESS_HINT) from None
        try:
            yield response
        finally:
            await response.aclose()

    async def _parts(self, response: httpx.Response) -> AsyncGenerator[bytes, None]:
        try:
            async for part in response.aiter_raw():
                yield part
        except httpx.HTTPError as error:
            raise _network_error(error, self._patience) from None

    async def _retried(self, work: Callable[[], Awaitable[T]], retry: RetryPolicy) -> T:
        failures = 0
        while True:
            try:
                return await work()
            except _NetworkError as error:
                failures += 1
                await self._wait(error, failures, retry, 0, -1)

    async def _wait(
        self, error: _NetworkError, failures: int, retry: RetryPolicy, at: int, end: int
    ) -> None:
        """Wait before a retry (exponential backoff with full jitter), or raise."""
        span = f" (bytes {at:,} to {end - 1:,})" if end >= 0 else ""
        if failures >= retry.attempts:
            tries = f", tried {failures} times" if failures > 1 else ""
            raise SourceError(self.url, f"{error.what}{span}{tries}", offset=at)
        if error.retry_after_s > retry.max_wait_s:
            problem = f"{error.what} and asks to wait {error.retry_after_s:.0f} s{span}"
            raise SourceError(self.url, problem, offset=at)
        self.retries += 1
        longest = min(retry.max_delay_s, retry.first_delay_s * 2 ** (failures - 1))
        await asyncio.sleep(max(random.random() * longest, error.retry_after_s))


def _network_error(error: httpx.HTTPError, retry: RetryPolicy) -> _NetworkError:
    if isinstance(error, httpx.TimeoutException):
        return _NetworkError(f"nothing came for {retry.stall_s:g} s")
    detail = f": {error}" if str(error) else ""
    return _NetworkError(f"the connection failed ({type(error).__name__}{detail})")


def _version_of(response: httpx.Response) -> Version:
    headers = response.headers
    length = headers.get("content-length", "")
    if response.status_code == 206:
        length = headers.get("content-range", "").rpartition("/")[2]
    return Version(
        nbytes=int(length) if _LENGTH.fullmatch(length) else -1,
        etag=headers.get("etag", ""),
        modified=headers.get("last-modified", ""),
    )


def _retry_after(text: str) -> float:
    """Return the seconds to wait; -1 for none."""
    if _LENGTH.fullmatch(text):
        return float(text)
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - time.time())
    except (ValueError, TypeError, OverflowError):
        return -1
