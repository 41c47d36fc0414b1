"""A server whose connections break: real sockets, real bodies, faults by path.

`/faults/<kind>/<model>/<file>` serves the model's file and spoils large ones.
The service worker is served below `/offline/` alone: it fetches a whole site once more, which costs
each page a second of CPU.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.types import ASGIApp, Receive, Scope, Send

SMALL_NBYTES = 20_000
OFFLINE = "offline"


class Faults:
    """ASGI middleware. `healed` makes every fault go away, as a network that comes back does."""

    def __init__(self, app: ASGIApp, models: Path) -> None:
        self._app = app
        self._models = models
        self.healed = False
        self.wheel_down = False
        self.wheel_held = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        parts = scope.get("path", "").split("/")
        if parts[1:2] == [OFFLINE]:
            parts = ["", *parts[2:]]
            scope = {**scope, "path": "/".join(parts), "raw_path": "/".join(parts).encode()}
        elif parts[-1] == "offline.js":
            await Response(status_code=404)(scope, receive, send)
            return
        if self.wheel_down and parts[1:2] == ["wheel"]:
            await Response(status_code=503)(scope, receive, send)
            return
        while self.wheel_held and parts[1:2] == ["wheel"]:  # noqa: ASYNC110 (set by another thread)
            await asyncio.sleep(0.02)
        if scope["type"] != "http" or parts[1:2] != ["faults"]:
            await self._app(scope, receive, send)
            return
        kind, file = parts[2], self._models / "/".join(parts[3:])
        if not file.is_file():
            await Response(status_code=404)(scope, receive, send)
            return
        await self._answer(kind, file, Request(scope))(scope, receive, send)

    def _answer(self, kind: str, file: Path, request: Request) -> Response:
        data = file.read_bytes()
        asked = request.headers.get("range", "").removeprefix("bytes=")
        first, _, last = asked.partition("-")
        start = int(first) if first else 0
        end = min(int(last) + 1 if last else len(data), len(data))
        body = data[start:end]
        headers = {"Content-Length": str(len(body)), "Cross-Origin-Resource-Policy": "same-origin"}
        if asked:
            headers["Content-Range"] = f"bytes {start}-{end - 1}/{len(data)}"
        large = len(body) > SMALL_NBYTES and file.suffix == ".safetensors" and not self.healed
        if kind == "unnamed" and large and asked:  # the file's beginning, whatever was asked for
            del headers["Content-Range"]
            return Response(data[: end - start], 206, headers)
        if kind == "status" and large:
            return Response(status_code=503)
        if kind == "later" and large:  # much later than anyone waits for
            return Response(status_code=503, headers={"Retry-After": "3600"})
        if kind == "whole":  # a server that knows no ranges
            headers = {
                "Content-Length": str(len(data)),
                "Cross-Origin-Resource-Policy": "same-origin",
            }
            return Response(data, 200, headers)
        if kind == "hostile" and file.suffix == ".safetensors" and not self.healed and start == 0:
            return Response(b"\xff" * 8 + body[8:], 206 if asked else 200, headers)

        status = 206 if asked else 200
        if request.method == "HEAD":
            # A body held back that nobody gets would hold back the connection's next answer, too.
            return Response(status_code=status, headers=headers)

        async def parts():
            if kind == "slow" and large:
                for at in range(0, len(body), 4096):
                    yield body[at : at + 4096]
                    await asyncio.sleep(2)
                return
            if kind == "held" and large:
                yield body[:4096]
                while not self.healed:  # noqa: ASYNC110 (set by another thread)
                    await asyncio.sleep(0.05)
                yield body[4096:]
                return
            if kind == "drop" and large:
                yield b""
                raise ConnectionResetError("planned by the test")
            yield body

        return StreamingResponse(parts(), status, headers)
