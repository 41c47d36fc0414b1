"""A file server that fails as planned: real sockets, threads, and headers that may lie.

    with FaultyServer(folder) as server:
        server.plan("model.safetensors", Fault("drop", after=1000, min_nbytes=20_000), times=2)
        ... server.url, server.sent, server.requests

What no plan hits is served correctly (`faulty_http`).
"""

from __future__ import annotations

import contextlib
import fcntl
import socket
import struct
import termios
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from tests.weights.faulty_http import (
    Answer,
    Content,
    Request,
    answer_file,
    cors_headers,
    plain,
    read_request,
)
from tests.weights.faulty_kinds import Fault, spoil

__all__ = ["Asked", "Fault", "FaultyServer"]

HOST = "127.0.0.1"
BLOCK_NBYTES = 1 << 16


class Asked(NamedTuple):
    """A request and the status it got, 0 before a stalled one has any."""

    method: str
    path: str
    headers: dict[str, str]
    status: int


@dataclass
class _Plan:
    suffix: str
    fault: Fault
    left: float


class FaultyServer:
    """Serves a folder on loopback while its context lasts. It never writes there."""

    def __init__(
        self, folder: Path, *, hide_cors_headers: bool = False, cache_control: str = "no-cache"
    ) -> None:
        self.sent: Counter[str] = Counter()
        self.requests: list[Asked] = []
        self._folder = folder.resolve()
        self._hide = hide_cors_headers
        self.cors = True  # whether pages of other origins may read answers
        self._cache_control = cache_control
        self._read: dict[tuple[Path, int, int], Content] = {}
        self._replaced: dict[str, Content] = {}
        self._plans: list[_Plan] = []
        self._lock = threading.RLock()
        self._port = 0
        self._listener: socket.socket | None = None
        self._connections: set[socket.socket] = set()
        self._stopped = threading.Event()

    def __enter__(self) -> FaultyServer:
        self.up()
        return self

    def __exit__(self, *_: object) -> None:
        self.down()

    @property
    def url(self) -> str:
        return f"http://localhost:{self._port}"

    def plan(self, path_suffix: str, fault: Fault, times: int | None = None) -> None:
        """Spoil the next `times` answers, or all, to GETs of such paths; plans in their order."""
        with self._lock:
            self._plans.append(_Plan(path_suffix, fault, float("inf") if times is None else times))

    def heal(self) -> None:
        """Drop all plans."""
        with self._lock:
            self._plans.clear()

    def replace(self, file: str, data: bytes) -> None:
        """Serve these bytes, under a new ETag, instead of the folder's file."""
        with self._lock:
            self._replaced["/" + file.lstrip("/")] = Content.of(data, time.time())

    def claim(self, file: str, nbytes: int) -> None:
        """Serve the folder's file, and say of it that it has so many bytes."""
        content = self._content("/" + file)
        assert content is not None
        with self._lock:
            self._replaced["/" + file] = replace(content, claimed=nbytes)

    def count(self, path_suffix: str, status: int | None = None) -> int:
        """How many GETs of such paths came, and got that status."""
        return sum(
            asked.method == "GET"
            and asked.path.endswith(path_suffix)
            and status in (None, asked.status)
            for asked in self.requests
        )

    def reset_counts(self) -> None:
        with self._lock:
            self.sent.clear()
            self.requests.clear()

    def up(self) -> None:
        """Listen, on the port of the last time."""
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((HOST, self._port))
        listener.listen(64)
        self._port = listener.getsockname()[1]
        self._listener, self._stopped = listener, threading.Event()
        threading.Thread(target=self._accept, args=(listener, self._stopped), daemon=True).start()

    def down(self) -> None:
        """Break all connections and refuse new ones."""
        self._stopped.set()
        if self._listener:
            _shut(self._listener)  # wakes accept(), which close() does not
            self._listener.close()
            self._listener = None
        with self._lock:
            for connection in self._connections:
                _shut(connection)

    def _accept(self, listener: socket.socket, stopped: threading.Event) -> None:
        while True:
            try:
                connection = listener.accept()[0]
            except OSError:  # it is down
                return
            with self._lock:
                self._connections.add(connection)
            if stopped.is_set():
                _shut(connection)
            threading.Thread(target=self._talk, args=(connection, stopped), daemon=True).start()

    def _talk(self, connection: socket.socket, stopped: threading.Event) -> None:
        try:
            with connection, connection.makefile("rb") as stream:
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                while request := read_request(stream):
                    answer = self._answer(request)
                    self._send(connection, request, answer, stopped)
                    if answer.end == "reset":
                        _close_by_reset(connection)
                    if answer.end != "keep" or not request.keeps_alive:
                        return
        except OSError:  # the other side has gone, or the server is down
            pass
        finally:
            with self._lock:
                self._connections.discard(connection)

    def _answer(self, request: Request) -> Answer:
        with self._lock:
            content = self._content(request.path)
            if request.method == "OPTIONS":
                answer = plain(204)
            elif request.method not in ("GET", "HEAD"):
                answer = replace(plain(405), end="close")
            elif content is None:
                answer = plain(404)
            else:
                answer = answer_file(request, content)
            if fault := self._take(request, answer):
                if fault.kind == "etag_changes" and content is not None:
                    self.replace(request.path, content.data[1:] + content.data[:1])
                    content = self._content(request.path)
                answer = spoil(fault, request, content, answer)
            asked = (request.method, request.path, request.headers)
            self.requests.append(Asked(*asked, 0 if answer.head_pause_s else answer.status))
        headers = {
            "Cache-Control": self._cache_control,
            **cors_headers(request, hide=self._hide, allow=self.cors),
        }
        return replace(answer, headers={**answer.headers, **headers})

    def _content(self, path: str) -> Content | None:
        if path in self._replaced:
            return self._replaced[path]
        name = path.lstrip("/") + ("index.html" if path.endswith("/") else "")
        file = (self._folder / name).resolve()
        if not (file.is_relative_to(self._folder) and file.is_file()):
            return None
        stat = file.stat()
        key = (file, stat.st_mtime_ns, stat.st_size)
        if key not in self._read:
            self._read[key] = Content.of(file.read_bytes(), stat.st_mtime)
        return self._read[key]

    def _take(self, request: Request, answer: Answer) -> Fault | None:
        for plan in self._plans:
            fits = plan.left > 0 and request.path.endswith(plan.suffix)
            if request.method == "GET" and fits and plan.fault.hits(answer):
                plan.left -= 1
                return plan.fault
        return None

    def _send(
        self, to: socket.socket, request: Request, answer: Answer, stopped: threading.Event
    ) -> None:
        _wait(stopped, answer.head_pause_s)
        to.sendall(answer.head())
        if request.method == "HEAD":
            return
        chunked = answer.length is None
        for block in _blocks(answer, stopped):
            self._count(request.path, len(block))  # before: whoever has the bytes may ask at once
            try:
                to.sendall(b"%x\r\n%b\r\n" % (len(block), block) if chunked else block)
            except OSError:
                self._count(request.path, -len(block))
                raise
        if chunked:
            to.sendall(b"0\r\n\r\n")

    def _count(self, path: str, nbytes: int) -> None:
        with self._lock:
            self.sent[path] += nbytes


def _blocks(answer: Answer, stopped: threading.Event) -> Iterator[bytes]:
    """The body as it is sent, with its pauses."""
    rate = answer.bytes_per_second
    step = max(1, int(rate / 20)) if rate else BLOCK_NBYTES
    for at in range(0, answer.pause_at, step):
        yield answer.body[at : min(at + step, answer.pause_at)]
    _wait(stopped, answer.pause_s)
    for at in range(answer.pause_at, len(answer.body), step):
        yield answer.body[at : at + step]
        _wait(stopped, step / rate if rate else 0)


def _wait(stopped: threading.Event, seconds: float) -> None:
    if stopped.wait(seconds):
        raise ConnectionAbortedError


def _shut(sock: socket.socket) -> None:
    with contextlib.suppress(OSError):  # it may not be connected any more
        sock.shutdown(socket.SHUT_RDWR)


def _close_by_reset(sock: socket.socket) -> None:
    """Let what was written arrive, then make close() send RST."""
    end = time.monotonic() + 5
    while time.monotonic() < end:
        unsent = struct.unpack("i", fcntl.ioctl(sock, termios.TIOCOUTQ, b"\0" * 4))[0]
        if not unsent:
            break
        time.sleep(0.001)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
