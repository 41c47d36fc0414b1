"""The faulty server does what each fault's name says, and else what RFC 9110 does."""

from __future__ import annotations

import gzip
import hashlib
import re
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import get_args
from urllib.parse import urlsplit

import httpx
import pytest

from tests.weights.faulty import Fault, FaultyServer
from tests.weights.faulty_kinds import Kind

DATA = bytes(i % 251 for i in range(100_000))
ETAG = f'"{hashlib.sha256(DATA).hexdigest()}"'
PATH = "/models/tiny/model.safetensors"
START, END = 1000, 51_000


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    file = tmp_path / PATH.lstrip("/")
    file.parent.mkdir(parents=True)
    file.write_bytes(DATA)
    (file.parent / "config.json").write_text("{}")
    return tmp_path


@pytest.fixture
def server(folder: Path) -> Iterator[FaultyServer]:
    with FaultyServer(folder) as running:
        yield running


def plan(server: FaultyServer, fault: Fault, times: int | None = 1) -> None:
    server.plan("model.safetensors", fault, times)


def get(server: FaultyServer, **headers: str) -> httpx.Response:
    """DATA[START:END], or what else the headers ask for."""
    headers = headers or {"Range": f"bytes={START}-{END - 1}"}
    return httpx.get(
        server.url + PATH, headers={k.replace("_", "-"): v for k, v in headers.items()}
    )


def connect(server: FaultyServer) -> socket.socket:
    return socket.create_connection(("127.0.0.1", urlsplit(server.url).port or 0), timeout=5)


def raw(server: FaultyServer) -> tuple[dict[str, str], bytes, bool]:
    """Headers, every byte until the connection ends, and whether a reset ended it."""
    with connect(server) as sock:
        sock.sendall(
            f"GET {PATH} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
            f"Range: bytes={START}-{END - 1}\r\n\r\n".encode()
        )
        received, reset = b"", False
        try:
            while part := sock.recv(65536):
                received += part
        except ConnectionResetError:
            reset = True
    head, _, body = received.partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")[1:]
    return dict(line.lower().split(": ", 1) for line in lines), body, reset


def test_ranges_are_served(server: FaultyServer) -> None:
    for asked, start, end in [
        ("0-0", 0, 1),
        ("1000-50999", 1000, 51_000),
        ("99990-", 99_990, 100_000),
        ("-5", 99_995, 100_000),
        ("99990-200000", 99_990, 100_000),
    ]:
        answer = get(server, Range=f"bytes={asked}")
        assert answer.status_code == 206
        assert answer.content == DATA[start:end]
        assert answer.headers["content-range"] == f"bytes {start}-{end - 1}/100000"
        assert answer.headers["etag"] == ETAG
    assert get(server, Range="bytes=100000-").status_code == 416
    assert get(server, Accept="*/*").content == DATA
    assert httpx.get(f"{server.url}/../secret").status_code == 404


def test_validators_are_honoured(server: FaultyServer) -> None:
    first = get(server)
    modified = first.headers["last-modified"]
    assert get(server, If_None_Match=ETAG).status_code == 304
    assert get(server, If_None_Match='"other"').status_code == 200
    for condition in (ETAG, modified):
        assert get(server, Range="bytes=0-9", If_Range=condition).status_code == 206
    for condition in ('"other"', f"W/{ETAG}", "Thu, 01 Jan 1970 00:00:00 GMT"):
        assert get(server, Range="bytes=0-9", If_Range=condition).content == DATA
    server.replace(PATH, DATA[::-1])
    assert get(server, Range="bytes=0-9", If_Range=ETAG).content == DATA[::-1]


def test_requests_and_bytes_are_counted(server: FaultyServer) -> None:
    with httpx.Client() as client:  # one connection
        client.head(server.url + PATH)
        client.get(server.url + PATH, headers={"Range": "bytes=0-9"})
        client.get(f"{server.url}/nothing")
    assert [(r.method, r.status) for r in server.requests] == [
        ("HEAD", 200),
        ("GET", 206),
        ("GET", 404),
    ]
    assert server.requests[1].headers["range"] == "bytes=0-9"
    assert server.sent[PATH] == 10
    assert server.count("model.safetensors") == server.count("model.safetensors", 206) == 1
    server.reset_counts()
    assert not server.requests
    assert not server.sent


def test_pages_of_other_origins_may_read(folder: Path, server: FaultyServer) -> None:
    allowed = httpx.options(server.url + PATH)
    assert allowed.status_code == 204
    assert allowed.headers["access-control-allow-headers"] == "*"
    assert "GET" in allowed.headers["access-control-allow-methods"]
    result = get(server).headers
    assert result["access-control-allow-origin"] == "*"
    assert result["cross-origin-resource-policy"] == "cross-origin"
    for name in ("ETag", "Content-Range", "Retry-After", "Content-Encoding", "Last-Modified"):
        assert name in result["access-control-expose-headers"]
    with FaultyServer(folder, hide_cors_headers=True) as hiding:
        result = get(hiding).headers
        assert result["access-control-allow-origin"] == "*"
        assert "access-control-expose-headers" not in result


def test_plans_hit_what_they_name_as_often_as_they_say(server: FaultyServer) -> None:
    server.plan("model.safetensors", Fault("status", min_nbytes=1000), times=2)
    config = f"{server.url}/models/tiny/config.json"
    statuses = [get(server, Range="bytes=0-999").status_code, httpx.get(config).status_code]
    statuses += [get(server).status_code for _ in range(3)]
    assert statuses == [206, 200, 503, 503, 206]
    server.plan("config.json", Fault("status", status=429))
    assert [httpx.get(config).status_code for _ in range(3)] == [429] * 3
    server.heal()
    assert httpx.get(config).status_code == 200


def test_down_and_up_on_the_same_port(server: FaultyServer) -> None:
    plan(server, Fault("stall", after=10, seconds=60))
    with connect(server) as sock:
        sock.sendall(f"GET {PATH} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        assert sock.recv(1)
        server.down()
        while sock.recv(65536):  # what is open breaks
            pass
    with pytest.raises(httpx.ConnectError):
        get(server)
    server.up()
    assert get(server).status_code == 206


def test_several_connections_at_once(server: FaultyServer) -> None:
    plan(server, Fault("stall_headers", seconds=60))
    with connect(server) as stalled:
        stalled.sendall(f"GET {PATH} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        while not server.requests:
            time.sleep(0.001)
        assert get(server).status_code == 206
    assert [asked.status for asked in server.requests] == [0, 206]


def test_drop(server: FaultyServer) -> None:
    plan(server, Fault("drop", after=3000))
    headers, body, reset = raw(server)
    assert headers["content-length"] == "50000"
    assert body == DATA[START : START + 3000]
    assert reset
    assert server.sent[PATH] == 3000
    plan(server, Fault("drop", after=0))
    with pytest.raises(httpx.ReadError):
        get(server)


def test_truncate(server: FaultyServer) -> None:
    plan(server, Fault("truncate", after=3000))
    answer = get(server)
    assert answer.headers["content-range"] == f"bytes {START}-{END - 1}/100000"
    assert answer.content == DATA[START : START + 3000]


def test_lying_lengths(server: FaultyServer) -> None:
    plan(server, Fault("lying_length_long", extra=7))
    headers, body, reset = raw(server)
    assert (headers["content-length"], body, reset) == ("50007", DATA[START:END], False)
    plan(server, Fault("lying_length_long", after=10, extra=0))
    headers, body, reset = raw(server)
    assert (headers["content-length"], len(body), reset) == ("50000", 10, False)
    plan(server, Fault("lying_length_short", after=10))
    headers, body, _ = raw(server)
    assert (headers["content-length"], body) == ("10", DATA[START:END])


def test_overlong(server: FaultyServer) -> None:
    plan(server, Fault("overlong", extra=9))
    answer = get(server)
    assert answer.status_code == 206
    assert answer.headers["content-length"] == "50009"
    assert answer.headers["content-range"] == f"bytes {START}-{END - 1}/100000"
    assert answer.content == DATA[START:END] + b"\xff" * 9


def test_ranges_that_are_not_what_was_asked(server: FaultyServer) -> None:
    plan(server, Fault("whole"))
    answer = get(server)
    assert (answer.status_code, answer.content) == (200, DATA)
    assert "content-range" not in answer.headers
    plan(server, Fault("wrong_range", at=7))
    answer = get(server)
    assert answer.headers["content-range"] == "bytes 7-50006/100000"
    assert (answer.status_code, answer.content) == (206, DATA[7:50_007])
    plan(server, Fault("no_content_range"))
    answer = get(server)
    assert (answer.status_code, answer.content) == (206, DATA[START:END])
    assert "content-range" not in answer.headers


def test_another_version_appears(server: FaultyServer, folder: Path) -> None:
    rotated = DATA[1:] + DATA[:1]
    plan(server, Fault("etag_changes"))
    answer = get(server)
    assert answer.content == rotated[START:END]
    assert answer.headers["etag"] == f'"{hashlib.sha256(rotated).hexdigest()}"'
    assert get(server, Range="bytes=0-9", If_Range=ETAG).status_code == 200
    assert (folder / PATH.lstrip("/")).read_bytes() == DATA


def test_status(server: FaultyServer) -> None:
    date = "Wed, 21 Oct 2037 07:28:00 GMT"
    for status, retry_after in [(429, 2), (503, date), (500, None), (404, None)]:
        plan(server, Fault("status", status=status, retry_after=retry_after))
        answer = get(server)
        assert answer.status_code == status
        assert answer.headers.get("retry-after") == (retry_after and str(retry_after))
    assert get(server).status_code == 206


def test_stalls(server: FaultyServer) -> None:
    plan(server, Fault("stall", after=3000, seconds=0.4))
    with httpx.stream("GET", server.url + PATH) as answer:
        parts = answer.iter_raw(3000)
        assert next(parts) == DATA[:3000]
        began = time.monotonic()
        assert b"".join(parts) == DATA[3000:]
        assert time.monotonic() - began > 0.3
    plan(server, Fault("stall_headers", seconds=0.4))
    began = time.monotonic()
    assert get(server).content == DATA[START:END]
    assert time.monotonic() - began > 0.3
    plan(server, Fault("stall", seconds=60))
    with pytest.raises(httpx.ReadTimeout):
        httpx.get(server.url + PATH, timeout=0.2)


def test_slow(server: FaultyServer) -> None:
    plan(server, Fault("slow", bytes_per_second=100_000))
    began = time.monotonic()
    assert get(server).content == DATA[START:END]
    assert time.monotonic() - began > 0.4


def test_redirect(server: FaultyServer) -> None:
    plan(server, Fault("redirect", location="/models/tiny/config.json"))
    answer = httpx.get(server.url + PATH, follow_redirects=True)
    assert answer.content == b"{}"
    plan(server, Fault("redirect", location=PATH), times=None)
    with pytest.raises(httpx.TooManyRedirects):
        httpx.get(server.url + PATH, follow_redirects=True)
    assert server.count(PATH, 302) > 10
    server.heal()
    server.plan("/moved", Fault("redirect", location=PATH))  # there is no such file
    assert httpx.get(f"{server.url}/moved", follow_redirects=True).content == DATA


def test_encoded(server: FaultyServer) -> None:
    plan(server, Fault("encoded"))
    headers, body, _ = raw(server)
    assert headers["content-encoding"] == "gzip"
    assert headers["content-range"] == f"bytes {START}-{END - 1}/100000"
    assert len(body) == int(headers["content-length"])
    assert gzip.decompress(body) == DATA[START:END]


def test_corrupt(server: FaultyServer) -> None:
    plan(server, Fault("corrupt", at=60_000))
    assert get(server).content == DATA[START:END]  # it holds no such byte, and uses up no plan
    body = get(server, Range="bytes=50000-69999").content
    assert [i + 50_000 for i, byte in enumerate(body) if byte != DATA[50_000 + i]] == [60_000]
    assert get(server, Range="bytes=50000-69999").content == DATA[50_000:70_000]


def test_validators_that_are_weak_or_missing(server: FaultyServer) -> None:
    plan(server, Fault("weak_etag"), times=2)
    assert get(server).headers["etag"] == f"W/{ETAG}"
    assert get(server, Range="bytes=0-9", If_Range=f"W/{ETAG}").status_code == 200
    plan(server, Fault("no_etag"), times=2)
    answer = get(server)
    assert (answer.status_code, "etag" in answer.headers) == (206, False)
    assert get(server, Range="bytes=0-9", If_Range=ETAG).status_code == 200


def test_no_length(server: FaultyServer) -> None:
    plan(server, Fault("no_length"))
    headers, body, _ = raw(server)
    assert headers["transfer-encoding"] == "chunked"
    assert "content-length" not in headers
    assert re.match(rb"[0-9a-f]+\r\n", body)
    plan(server, Fault("no_length"))
    assert get(server).content == DATA[START:END]
    assert server.sent[PATH] == 2 * (END - START)


def test_every_kind_of_fault_is_exercised_here() -> None:
    planned = re.findall(r'Fault\("(\w+)"', Path(__file__).read_text())
    assert set(planned) == set(get_args(Kind))
