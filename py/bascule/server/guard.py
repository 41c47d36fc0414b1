"""Access checks of the dev server, and the headers of every response."""

from __future__ import annotations

import re

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from bascule.errors import InputError

_ORIGIN = re.compile(r"https?://[A-Za-z0-9.\-\[\]:]+")
_HOSTS = ("localhost", "127.0.0.1", "[::1]")
_ISOLATION = {
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": "require-corp",
}


class Guard:
    """Rejects foreign Host headers (DNS rebinding) and sets the headers of every response."""

    def __init__(self, app: ASGIApp, isolated: bool, cors: str | None) -> None:
        self._app = app
        self._cors = cors
        self._headers = {
            "X-Content-Type-Options": "nosniff",
            "Cross-Origin-Resource-Policy": "cross-origin" if cors else "same-origin",
            **(_ISOLATION if isolated else {}),
            **(_cors_headers(cors) if cors else {}),
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(self._headers)
            await send(message)

        host = Headers(scope=scope).get("host", "")
        name = host.rpartition(":")[0] if host.rpartition(":")[2].isdigit() else host
        if name not in _HOSTS:
            refusal = PlainTextResponse("This server answers to localhost only.\n", 421)
            await refusal(scope, receive, send_with_headers)
            return
        if self._cors and scope["method"] == "OPTIONS":  # a preflight
            await Response(status_code=204)(scope, receive, send_with_headers)
            return
        await self._app(scope, receive, send_with_headers)


def check_origin(origin: str) -> str:
    """Return an origin as browsers send it, or "*". InputError for anything else."""
    if origin != "*" and not _ORIGIN.fullmatch(origin):
        hint = "Give scheme, host and port alone, for example http://localhost:3000."
        raise InputError("serve --cors", "an origin or *", repr(origin), hint=hint)
    return origin


def _cors_headers(origin: str) -> dict[str, str]:
    return {
        "Access-Control-Allow-Origin": origin,
        "Access-Control-Allow-Methods": "GET, HEAD",
        "Access-Control-Allow-Headers": "Range, If-Range, If-None-Match",
        "Access-Control-Expose-Headers": "Content-Length, Content-Range, ETag, Last-Modified",
        **({} if origin == "*" else {"Vary": "Origin"}),
    }
