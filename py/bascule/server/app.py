"""The dev server: the page, the wheel of the tree, Pyodide and the models, on loopback only."""

from __future__ import annotations

import mimetypes
import stat
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

from starlette.applications import Starlette
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from bascule import assets
from bascule.server.wheel import WheelHouse

# What the operating system's own table may lack or have wrong; browsers insist on some of these.
_TYPES = {
    ".mjs": "text/javascript",
    ".js": "text/javascript",
    ".wasm": "application/wasm",
    ".wgsl": "text/plain; charset=utf-8",
    ".whl": "application/zip",
    ".safetensors": "application/octet-stream",
    ".gguf": "application/octet-stream",
    ".json": "application/json",
}
_HOSTS = ("localhost", "127.0.0.1", "[::1]")
_ISOLATION = {
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": "require-corp",
}


def create_app(
    *,
    models: Path,
    pyodide: Path,
    isolated: bool = True,
    extra: Mapping[str, Path] | None = None,
    checkout: Path | None = None,
) -> Starlette:
    """The server's application.

    `models` holds a folder a model; `pyodide` the Pyodide distribution. `isolated` sends the
    headers that make pages cross-origin isolated. `extra` serves more folders under their prefixes;
    `checkout` takes page and wheel from another tree.
    """
    house = WheelHouse(checkout)
    web = checkout / "web" if checkout else assets.path("web")

    async def wheel_index(_: Request) -> Response:
        return JSONResponse({"wheel": house.current().name})

    async def wheel_file(request: Request) -> Response:
        wheel = house.current()
        if request.path_params["name"] != wheel.name:
            raise HTTPException(404, "The tree has changed since; reload the page.")
        return FileResponse(wheel, media_type=_TYPES[".whl"])

    routes = [Route("/wheel/index.json", wheel_index), Route("/wheel/{name}", wheel_file)]
    folders = {**(extra or {}), "models": models, "pyodide": pyodide}
    routes += [_folder_route(f"/{prefix.strip('/')}", root) for prefix, root in folders.items()]
    routes.append(_folder_route("", web))

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncGenerator[None]:
        try:
            yield
        finally:
            house.close()

    app = Starlette(
        routes=routes, exception_handlers={HTTPException: _plain_error}, lifespan=lifespan
    )
    app.add_middleware(_Guard, isolated=isolated)
    return app


def _folder_route(prefix: str, root: Path) -> Route:
    async def serve_file(request: Request) -> Response:
        path = _inside(root, request.path_params["path"])
        kind = _TYPES.get(path.suffix) or mimetypes.guess_type(path.name)[0]
        # no-cache: the browser asks each time, and is told 304 where its ETag still holds.
        response = FileResponse(
            path,
            media_type=kind or "application/octet-stream",
            headers={"Cache-Control": "no-cache"},
            stat_result=path.stat(),
        )
        return _not_modified(request.headers, response) or response

    return Route(f"{prefix}/{{path:path}}", serve_file)


def _inside(root: Path, asked: str) -> Path:
    """The regular file that was asked for, if it lies within root once links are followed."""
    home = root.resolve()
    try:
        path = (home / (asked or "index.html")).resolve()
        if path.is_relative_to(home) and stat.S_ISREG(path.stat().st_mode):
            return path
    except (OSError, ValueError, RuntimeError):  # a NUL in the path; a link to itself
        pass
    raise HTTPException(404, "There is no such file.")


def _not_modified(asked: Headers, response: FileResponse) -> Response | None:
    etag = response.headers["etag"]
    known = [tag.strip().removeprefix("W/") for tag in asked.get("if-none-match", "").split(",")]
    if etag not in known:
        return None
    return Response(status_code=304, headers={"ETag": etag, "Cache-Control": "no-cache"})


async def _plain_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return PlainTextResponse(f"{error.detail}\n", error.status_code)


class _Guard:
    """Refuses foreign Host headers (DNS rebinding) and sets the headers of every answer."""

    def __init__(self, app: ASGIApp, isolated: bool) -> None:
        self._app = app
        self._headers = {
            "X-Content-Type-Options": "nosniff",
            "Cross-Origin-Resource-Policy": "same-origin",
            **(_ISOLATION if isolated else {}),
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
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
        await self._app(scope, receive, send_with_headers)
