"""The ways in which `faulty.FaultyServer` fails: each makes a bad answer of a good one."""

from __future__ import annotations

import gzip
from dataclasses import dataclass, replace
from typing import Literal

from tests.weights.faulty_http import (
    Answer,
    Content,
    Request,
    answer_file,
    content_range,
    plain,
)

Kind = Literal[
    "drop",  # connection reset after `after` bytes of the body
    "truncate",  # only `after` bytes, and Content-Length says so
    "lying_length_long",  # Content-Length promises `extra` bytes more than asked; `after` bytes,
    # by default all, and a clean close. (after=n, extra=0) is the body that ends early.
    "lying_length_short",  # Content-Length says `after`, the whole body follows, then a close
    "overlong",  # 206 with `extra` 0xff bytes too many, Content-Length true, Content-Range as asked
    "whole",  # 200 and the whole file where a range was asked for
    "wrong_range",  # 206 that starts at `at`, or else at the beginning, and says so
    "no_content_range",  # 206 without that header; from `at` whatever was asked for
    "etag_changes",  # from now on the file has its bytes rotated by one, and another ETag
    "status",  # `status`, with `retry_after` seconds or HTTP date
    "stall",  # `after` bytes, nothing for `seconds`, then the rest
    "slow",  # `bytes_per_second`
    "stall_headers",  # nothing at all for `seconds`, then the answer
    "redirect",  # 302 to `location`
    "encoded",  # the asked bytes gzipped, with Content-Encoding
    "corrupt",  # the byte at the file's offset `at` inverted; hits only answers that hold it
    "weak_etag",
    "no_etag",
    "no_length",  # chunked, without Content-Length
]
_NEED_NO_FILE = ("status", "redirect", "stall_headers")
_NEED_A_RANGE = ("overlong", "whole", "wrong_range", "no_content_range")


@dataclass(frozen=True)
class Fault:
    """One way to fail. `after` counts bytes of the body, None is half of it."""

    kind: Kind
    min_nbytes: int = 0
    after: int | None = None
    extra: int = 50
    at: int | None = None
    status: int = 503
    retry_after: int | str | None = None
    seconds: float = 60
    bytes_per_second: float = 100_000
    location: str = ""

    def hits(self, answer: Answer) -> bool:
        """Whether this fault can spoil what would be answered."""
        if self.kind in _NEED_NO_FILE:
            return max(1, len(answer.body)) > self.min_nbytes
        if answer.status not in (200, 206) or len(answer.body) <= self.min_nbytes:
            return False
        if self.kind == "corrupt":
            return 0 <= (self.at or 0) - answer.start < len(answer.body)
        return answer.status == 206 or self.kind not in _NEED_A_RANGE


def spoil(fault: Fault, request: Request, content: Content | None, answer: Answer) -> Answer:
    """What is answered in the place of `answer`."""
    match fault.kind:
        case "stall_headers":
            return replace(answer, head_pause_s=fault.seconds)
        case "status":
            result = {} if fault.retry_after is None else {"Retry-After": str(fault.retry_after)}
            return plain(fault.status, result)
        case "redirect":
            return plain(302, {"Location": fault.location})
        case _:
            pass
    assert content is not None  # see Fault.hits
    match fault.kind:
        case "weak_etag":
            return answer_file(request, replace(content, etag=f"W/{content.etag}"))
        case "no_etag":
            return answer_file(request, replace(content, etag=""))
        case "etag_changes":  # the server has changed the file
            return answer_file(request, content)
        case _:
            return _spoil_body(fault, content.data, answer)


def _spoil_body(fault: Fault, data: bytes, answer: Answer) -> Answer:
    body, headers, nbytes = answer.body, answer.headers, len(answer.body)
    after = nbytes // 2 if fault.after is None else min(fault.after, nbytes)
    unranged = {name: value for name, value in headers.items() if name != "Content-Range"}
    match fault.kind:
        case "drop":
            return replace(answer, body=body[:after], end="reset")
        case "truncate":
            return replace(answer, body=body[:after], length=after)
        case "lying_length_long":
            return replace(
                answer, body=body[: fault.after], length=nbytes + fault.extra, end="close"
            )
        case "lying_length_short":
            return replace(answer, length=after, end="close")
        case "overlong":
            return replace(answer, body=body + b"\xff" * fault.extra, length=nbytes + fault.extra)
        case "whole":
            return replace(
                answer, status=200, headers=unranged, body=data, length=len(data), start=0
            )
        case "wrong_range":
            at = fault.at if fault.at is not None else int(answer.start == 0)
            part = data[at : at + nbytes]
            result = {**headers, "Content-Range": content_range(at, len(part), len(data))}
            return replace(answer, headers=result, body=part, length=len(part), start=at)
        case "no_content_range":
            part = body if fault.at is None else data[fault.at : fault.at + nbytes]
            return replace(answer, headers=unranged, body=part)
        case "stall":
            return replace(answer, pause_at=after, pause_s=fault.seconds)
        case "slow":
            return replace(answer, bytes_per_second=fault.bytes_per_second)
        case "encoded":
            packed = gzip.compress(body)
            result = {**headers, "Content-Encoding": "gzip"}
            return replace(answer, headers=result, body=packed, length=len(packed))
        case "corrupt":
            at = (fault.at or 0) - answer.start
            return replace(answer, body=body[:at] + bytes([body[at] ^ 0xFF]) + body[at + 1 :])
        case "no_length":
            return replace(answer, length=None)
        case _:
            raise ValueError(f"no such fault: {fault.kind!r}")
