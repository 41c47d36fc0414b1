"""Workers that find another browser: an adapter like Safari's, none, a compiler that errs, or no
WebAssembly SIMD.

`/with/<wrapper>/<query>/<path>` is what the server has at `<path>`, but for a worker's own file:
there e2e/wrappers/<wrapper>.js?<query> comes first. All that a page names relative to itself stays
under the prefix, so one address puts a whole page into that browser. (Playwright's own ways of
changing a script do not reach workers in Firefox, and Selenium has none.)
"""

from __future__ import annotations

from typing import Literal
from urllib.parse import urlencode

from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

PREFIX = "with"
_WORKERS = ("worker.js", "lab-worker.js")
_HEADERS = {
    "Cross-Origin-Embedder-Policy": "require-corp",
    "Cross-Origin-Resource-Policy": "same-origin",
}

NO_SIMD = f"{PREFIX}/no-simd/-"


def miscompiling(*kernels: str) -> str:
    """The path under which pages find a compiler that gets these kernels wrong."""
    return f"{PREFIX}/miscompiling/kernels={','.join(kernels)}"


def limited(
    *,
    binding_nbytes: int = 128 << 20,
    buffer_nbytes: int = 256 << 20,
    workgroup_nbytes: int = 16 << 10,
    without: tuple[str, ...] = ("shader-f16", "subgroups"),
    answer: Literal["adapter", "null", "reject", "compatibility"] = "adapter",
) -> str:
    """The path under which pages find such an adapter, by default one like Safari's.

    It is enforced (see wrappers/limited-adapter.js). `answer` is what asking for an adapter gives:
    null, an error, or for "compatibility" null unless one of WebGPU's compatibility mode is asked
    for.
    """
    result = {
        "maxStorageBufferBindingSize": binding_nbytes,
        "maxBufferSize": buffer_nbytes,
        "maxComputeWorkgroupStorageSize": workgroup_nbytes,
        "without": ",".join(without),
        "answer": answer,
    }
    return f"{PREFIX}/limited-adapter/{urlencode(result, safe=',')}"


class WrappedWorkers:
    """ASGI middleware that serves those addresses."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path: str = scope.get("path", "")
        _, *parts = path.split("/", 4)
        if scope["type"] != "http" or len(parts) < 4 or parts[0] != PREFIX:
            await self._app(scope, receive, send)
            return
        _, wrapper, query, rest = parts
        name = rest.rpartition("/")[2]
        if name in _WORKERS and scope["query_string"] != b"own":
            # Imports run in order; the worker's query stays that of the address it was started by.
            source = f'import "/wrappers/{wrapper}.js?{query}";\nimport "./{name}?own";\n'
            wrapped = Response(source, media_type="text/javascript", headers=_HEADERS)
            await wrapped(scope, receive, send)
            return
        inner = {**scope, "path": f"/{rest}", "raw_path": f"/{rest}".encode()}
        await self._app(inner, receive, send)
