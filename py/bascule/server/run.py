"""Start and stop the dev server."""

from __future__ import annotations

import socket
import threading
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import uvicorn
from starlette.types import ASGIApp

from bascule.base.folders import models_folder
from bascule.errors import SetupError
from bascule.server.app import create_app
from bascule.server.pyodide import pyodide_folder as pyodide_folder

HOST = "127.0.0.1"


def listen(port: int) -> socket.socket:
    """Return a listening socket on loopback; port 0 takes a free one. SetupError if it is taken."""
    # asyncio disables Nagle's algorithm only if the socket says that it is TCP's. With it a body
    # waits for the client's delayed acknowledgement of the headers: 40 ms.
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind((HOST, port))
        sock.listen(128)
    except OSError as error:
        sock.close()
        raise SetupError(
            f"Port {port} on {HOST} cannot be used ({error.strerror}).",
            hint="Stop what uses it, or choose another: bascule serve --port 0.",
        ) from None
    return sock


async def serve(
    sock: socket.socket,
    *,
    models: Path | None = None,
    isolated: bool = True,
    cors: str | None = None,
) -> None:
    """Serve on `sock` until cancelled or interrupted (see `create_app`)."""
    app = create_app(
        models=models or models_folder(),
        pyodide=pyodide_folder(),
        isolated=isolated,
        cors=cors,
        snapshots=True,
    )
    await make_server(app).serve(sockets=[sock])


def make_server(app: ASGIApp) -> uvicorn.Server:
    """Return a quiet uvicorn server, which stops after a second even during downloads."""
    config = uvicorn.Config(app, log_level="warning", access_log=False, timeout_graceful_shutdown=1)
    return uvicorn.Server(config)


@contextmanager
def running(app: ASGIApp) -> Generator[str]:
    """Serve on a free port in a thread while the context lasts; yields the site's URL."""
    sock, server = listen(0), make_server(app)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [sock]}, daemon=True)
    thread.start()
    try:
        yield f"http://localhost:{sock.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(timeout=10)
