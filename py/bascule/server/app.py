"""The dev server: the page, the wheel of the tree, Pyodide and the models, on loopback only."""

from __future__ import annotations

import mimetypes
import stat
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from dataclasses import asdict
from pathlib import Path

from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from bascule.base import assets
from bascule.server.guard import Guard
from bascule.server.models import list_models
from bascule.server.snapshot import BackgroundMaker, snapshots_folder
from bascule.server.wheel import WheelHouse, site_index

# What the operating system's own table may lack or have wrong; browsers require some of these.
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
# A model's folder is untrusted: nothing in it may run on the page's origin.
_INERT = {"Content-Security-Policy": "sandbox; default-src 'none'"}


def create_app(
    *,
    models: Path,
    pyodide: Path,
    isolated: bool = True,
    extra: Mapping[str, Path] | None = None,
    checkout: Path | None = None,
    cors: str | None = None,
    snapshots: bool = False,
) -> Starlette:
    """Create the server's application.

    `models` has a folder per model; `pyodide` is the Pyodide distribution. `isolated` sends the
    headers that make pages cross-origin isolated. `extra` serves more folders under their prefixes;
    `checkout` takes page and wheel from another tree. `cors` is an origin whose pages may read
    everything here, or "*". With `snapshots`, pages are offered a memory snapshot of Python once it
    has been made, in the background after the first visit.
    """
    house = WheelHouse(checkout)
    maker = BackgroundMaker(pyodide) if snapshots else None
    web = checkout / "web" if checkout else assets.path("web")
    # An installed package has no demo pages.
    start = "index.html" if (web / "index.html").is_file() else "start.html"

    async def wheel_index(_: Request) -> Response:
        wheel = house.current()
        snapshot = maker.snapshot(wheel) if maker else None
        return JSONResponse(site_index(wheel, snapshot and asdict(snapshot)))

    async def wheel_file(request: Request) -> Response:
        if request.path_params["name"].endswith(".snapshot"):
            return _snapshot_file(request.path_params["name"])
        wheel = house.current()
        if request.path_params["name"] != wheel.name:
            raise HTTPException(404, "The tree has changed since; reload the page.")
        return FileResponse(wheel, media_type=_TYPES[".whl"])

    async def model_index(_: Request) -> Response:
        return JSONResponse({"models": list_models(models)})

    routes = [Route("/wheel/index.json", wheel_index), Route("/wheel/{name}", wheel_file)]
    routes.append(Route("/models/index.json", model_index))
    routes.append(_models_route(models))
    folders = {**(extra or {}), "pyodide": pyodide}
    if (web.parent / "examples").is_dir():
        folders["examples"] = web.parent / "examples"
    routes += [_folder_route(f"/{prefix.strip('/')}", root) for prefix, root in folders.items()]
    routes.append(_folder_route("", web, start))

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncGenerator[None]:
        try:
            yield
        finally:
            house.close()

    app = Starlette(
        routes=routes, exception_handlers={HTTPException: _plain_error}, lifespan=lifespan
    )
    app.add_middleware(Guard, isolated=isolated, cors=cors)
    return app


def _snapshot_file(name: str) -> Response:
    path = _inside(snapshots_folder(), name)
    # Its name changes with its content.
    headers = {"Cache-Control": "public, max-age=31536000, immutable"}
    response = FileResponse(path, media_type="application/octet-stream", headers=headers)
    response.chunk_size = 1 << 20
    return response


def _folder_route(prefix: str, root: Path, start: str = "index.html") -> Route:
    async def serve_file(request: Request) -> Response:
        path = _inside(root, request.path_params["path"] or start)
        kind = _TYPES.get(path.suffix) or mimetypes.guess_type(path.name)[0]
        return _file(request, path, kind or "application/octet-stream")

    return Route(f"{prefix}/{{path:path}}", serve_file)


def _models_route(root: Path) -> Route:
    """Serve model files as bytes, whatever their names: no browser displays or runs them."""

    async def serve_file(request: Request) -> Response:
        asked = request.path_params["path"]
        try:
            path = _inside(root, asked)
        except HTTPException:
            # Some small files of a model are optional, and browsers log an error for a 404.
            name, _, file = asked.partition("/")
            if file.endswith(".json") and name.strip(".") and (root / name).is_dir():
                return Response(status_code=204, headers=_INERT)
            raise
        return _file(request, path, "application/octet-stream", _INERT)

    return Route("/models/{path:path}", serve_file)


def _file(
    request: Request, path: Path, kind: str, headers: Mapping[str, str] | None = None
) -> Response:
    # no-cache: the browser asks each time, and gets a 304 if its ETag is current.
    response = FileResponse(
        path,
        media_type=kind,
        headers={"Cache-Control": "no-cache", **(headers or {})},
        stat_result=path.stat(),
    )
    return _not_modified(request.headers, response) or response


def _inside(root: Path, asked: str) -> Path:
    """Return the requested regular file, if it is within root after following links."""
    home = root.resolve()
    try:
        path = (home / asked).resolve()
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
