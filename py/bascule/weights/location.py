"""Where a model is stored: a local folder, or a URL that is checked before anything is fetched."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping
from urllib.parse import SplitResult, urlsplit

from bascule.base.folders import local_path
from bascule.errors import InputError
from bascule.weights.manifest import check_chunk_nbytes
from bascule.weights.names import is_gguf
from bascule.weights.source import CHUNK_NBYTES, FileSource, Source

_NOT_IN_URLS = re.compile(r"[\x00-\x1f\x7f\\]")
_URL_HINT = "Give the URL of a model's folder, like https://host/models/name."
_MAX_URL = 8192
_MAX_HOST, _MAX_LABEL = 253, 63  # RFC 1035, 2.3.4


def open_source(
    location: str,
    *,
    hashes: Mapping[str, str] | None = None,
    chunk_nbytes: int = CHUNK_NBYTES,
    revalidate: bool = True,
) -> Source:
    """Return a source for an http(s) URL (in a page always one) or a local folder.

    `hashes` gives the SHA-256 of files by name, if the caller knows them. Without `revalidate`
    cached files are used without asking the server.
    """
    check_chunk_nbytes(chunk_nbytes)
    scheme = _split(location).scheme if "://" in location else ""
    known = hashes or {}
    if scheme in ("http", "https"):
        url = check_url(location)
        if sys.platform == "emscripten":
            from bascule.weights.source_browser import PageSource

            return PageSource(url, known, chunk_nbytes, revalidate=revalidate)
        from bascule.weights.source_http import HttpSource

        return HttpSource(url, known, chunk_nbytes, revalidate=revalidate)
    if scheme:
        raise InputError("model location", "http://, https:// or a folder", f"{scheme}://")
    return FileSource(location, known, chunk_nbytes)


def split_location(location: str) -> tuple[str, str | None]:
    """Split a location into a model's folder, for `open_source`, and the name of its .gguf file, if
    any.

    InputError if that name has characters other than letters, digits, dots, - and _.
    """
    if "://" in location:
        if not _split(location).path.endswith(".gguf"):
            return location, None
        folder, _, file = location.rpartition("/")
    else:
        path = local_path(location)
        if path.suffix != ".gguf" or os.path.isdir(path):
            return location, None
        folder, file = str(path.parent), path.name
    if not is_gguf(file):
        expected = "a name of letters, digits, dots, - and _ that ends in .gguf"
        raise InputError("model file", expected, repr(file[:80]))
    return folder, file


def check_url(url: str) -> str:
    """Return a folder's URL without its last slash; InputError for a user, query or fragment."""
    parts = _split(url)
    host = parts.hostname
    if not host:
        raise InputError("model URL", "a host name", _shown(url))
    if parts.username or parts.password:
        raise InputError(
            "model URL",
            "no user name or password in it",
            f"one for {host[:80]}",
            hint="Put the model where it can be read without one.",
        )
    if "?" in url or "#" in url:
        raise InputError("model URL", "one with no ? or #", _shown(url))
    labels = host.rstrip(".").split(".")
    if len(host) > _MAX_HOST or not all(0 < len(label) <= _MAX_LABEL for label in labels):
        raise InputError("model URL", "a host name", _shown(host))
    return url.rstrip("/")


def _split(url: str) -> SplitResult:
    """Split a URL; InputError if it is malformed."""
    try:
        parts = urlsplit(url)
        _ = parts.port
        url.encode()  # no lone surrogates
        if _NOT_IN_URLS.search(url) or len(url) > _MAX_URL:
            raise ValueError
    except ValueError as error:
        why = f" ({error})" if str(error) and not isinstance(error, UnicodeError) else ""
        raise InputError("model URL", "a URL", _shown(url) + why, hint=_URL_HINT) from None
    return parts


def _shown(url: str) -> str:
    return repr(url if len(url) <= 200 else url[:200] + "...")
