"""What a page fetches, counted at its server; a slower link, where one is asked for."""

from __future__ import annotations

import asyncio
import time
from collections import Counter

from starlette.types import ASGIApp, Message, Receive, Scope, Send


class Traffic:
    """ASGI middleware that counts the bytes of response bodies by what they are for.

    Where `mbit` is given, all answers share a link of that many megabits a second.
    """

    def __init__(self, app: ASGIApp, mbit: float) -> None:
        self._app = app
        self._bytes_a_second = mbit * 125_000
        self._free_at = 0.0
        self._nbytes: Counter[str] = Counter()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def counting(message: Message) -> None:
            if message["type"] == "http.response.body":
                nbytes = len(message.get("body", b""))
                self._nbytes[kind_of(scope["path"])] += nbytes
                await self._carry(nbytes)
            await send(message)

        await self._app(scope, receive, counting)

    async def _carry(self, nbytes: int) -> None:
        if self._bytes_a_second:
            now = time.monotonic()
            self._free_at = max(self._free_at, now) + nbytes / self._bytes_a_second
            await asyncio.sleep(self._free_at - now)

    def take(self) -> dict[str, int]:
        """What was counted since the last call."""
        counted, self._nbytes = dict(self._nbytes), Counter()
        return counted


def kind_of(path: str) -> str:
    """weights, models (the small files beside them), pyodide, wheel, runtime, or page: the rest."""
    if path.endswith((".safetensors", ".onnx")):
        return "weights"
    folder = path.split("/")[1]
    if folder in ("models", "pyodide", "wheel"):
        return folder
    if folder == "transformers":
        return "models"
    return "runtime" if path.endswith(".wasm") else "page"
