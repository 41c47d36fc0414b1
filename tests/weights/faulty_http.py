"""What a correct file server answers: ranges, validators, CORS. `faulty` spoils it."""

from __future__ import annotations

import hashlib
import mimetypes
from dataclasses import dataclass, field
from email.utils import formatdate
from http import HTTPStatus
from typing import BinaryIO, Literal
from urllib.parse import unquote

EXPOSED = (
    "ETag, Content-Range, Accept-Ranges, Retry-After, Content-Encoding, Last-Modified"  # to pages
)


@dataclass(frozen=True)
class Request:
    """A request without a body; the names of its headers are lower case."""

    method: str
    path: str
    headers: dict[str, str]

    @property
    def keeps_alive(self) -> bool:
        return self.headers.get("connection", "").lower() != "close"


@dataclass(frozen=True)
class Content:
    """A version of a file. An empty `etag` is not told; `claimed` is a size that is a lie."""

    data: bytes
    modified: float
    etag: str
    claimed: int = 0

    @property
    def nbytes(self) -> int:
        return self.claimed or len(self.data)

    @classmethod
    def of(cls, data: bytes, modified: float) -> Content:
        return cls(data, modified, f'"{hashlib.sha256(data).hexdigest()}"')

    @property
    def last_modified(self) -> str:
        return formatdate(self.modified, usegmt=True)


@dataclass(frozen=True)
class Answer:
    """What is told and what is really sent, which a fault sets apart.

    `length` is the Content-Length told, None for a chunked body. `start` is where in the file the
    body begins. After `pause_at` bytes of the body nothing comes for `pause_s`.
    """

    status: int
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    length: int | None = 0
    start: int = 0
    head_pause_s: float = 0
    pause_at: int = 0
    pause_s: float = 0
    bytes_per_second: float = 0
    end: Literal["keep", "close", "reset"] = "keep"

    def head(self) -> bytes:
        """The status line and all headers."""
        result = dict(self.headers, Date=formatdate(usegmt=True))
        if self.length is None:
            result["Transfer-Encoding"] = "chunked"
        elif self.status not in (204, 304):
            result["Content-Length"] = str(self.length)
        lines = [f"HTTP/1.1 {self.status} {_phrase(self.status)}"]
        lines += [f"{name}: {value}" for name, value in result.items()]
        return "\r\n".join([*lines, "", ""]).encode("latin-1")


def read_request(stream: BinaryIO) -> Request | None:
    """The next request of a connection; None at its end, or if it is none."""
    parts = stream.readline(65536).decode("latin-1").split()
    if len(parts) != 3:
        return None
    headers: dict[str, str] = {}
    while line := stream.readline(65536).decode("latin-1").strip():
        name, _, value = line.partition(":")
        headers[name.lower()] = value.strip()
    return Request(parts[0], unquote(parts[1].partition("?")[0]), headers)


def plain(status: int, headers: dict[str, str] | None = None) -> Answer:
    """An answer that is no file."""
    body = b"" if status in (204, 304) else f"{status} {_phrase(status)}\n".encode()
    return Answer(status, {"Content-Type": "text/plain", **(headers or {})}, body, len(body))


def answer_file(request: Request, content: Content) -> Answer:
    """RFC 9110's answer to a GET or HEAD of a file that exists."""
    name = "index.html" if request.path.endswith("/") else request.path
    headers = {
        "Content-Type": mimetypes.guess_type(name)[0] or "application/octet-stream",
        "Last-Modified": content.last_modified,
        "Accept-Ranges": "bytes",
    }
    if content.etag:
        headers["ETag"] = content.etag
    if _is_known(request, content):
        return Answer(304, headers)
    size = content.nbytes
    span = _asked_range(request, content)
    if span is None:
        return Answer(200, headers, content.data, size, end="close" if content.claimed else "keep")
    start, end = span
    if start >= end:
        return plain(416, {**headers, "Content-Range": f"bytes */{size}"})
    headers["Content-Range"] = content_range(start, end - start, size)
    body = content.data[start:end]
    ends = "keep" if len(body) == end - start else "close"
    return Answer(206, headers, body, end - start, start, end=ends)


def content_range(start: int, nbytes: int, size: int) -> str:
    return f"bytes {start}-{start + nbytes - 1}/{size}"


def cors_headers(request: Request, *, hide: bool, allow: bool = True) -> dict[str, str]:
    """What a page of another origin needs; `hide` lets it read the body and little else."""
    headers = {"Cross-Origin-Resource-Policy": "cross-origin"}
    if not allow:
        return headers
    headers["Access-Control-Allow-Origin"] = "*"
    if request.method == "OPTIONS":
        headers["Access-Control-Allow-Headers"] = "*"
        headers["Access-Control-Allow-Methods"] = "GET, HEAD, OPTIONS"
    elif not hide:
        headers["Access-Control-Expose-Headers"] = EXPOSED
    return headers


def _is_known(request: Request, content: Content) -> bool:
    known = [tag.strip() for tag in request.headers.get("if-none-match", "").split(",")]
    weak = [tag.removeprefix("W/") for tag in known]
    return bool(content.etag) and ("*" in known or content.etag.removeprefix("W/") in weak)


def _asked_range(request: Request, content: Content) -> tuple[int, int] | None:
    """Start and end of the one range asked for; None where the whole file is the answer."""
    unit, _, result = request.headers.get("range", "").partition("=")
    first, dash, last = result.partition("-")
    if unit != "bytes" or not dash or "," in result:
        return None
    condition = request.headers.get("if-range")
    strong = content.etag if content.etag.startswith('"') else ""
    if condition is not None and condition not in (strong, content.last_modified):
        return None
    size = content.nbytes
    if not first:
        return max(0, size - int(last)), size
    return int(first), min(int(last) + 1, size) if last else size


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Planned"
