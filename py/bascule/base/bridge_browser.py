"""The page's JavaScript modules of web/bridge/, loaded from the package or from a URL of the site.

Modules import nothing, so each loads from a blob: URL, and a page needs only `micropip.install` of
the wheel. A Content-Security-Policy must allow blob: in script-src, unless
`bascule.configure(bridge=URL)` names a copy of web/ on the site. No string is evaluated, except in
a module worker that does not import bridge/importer.js, where nothing else reaches `import()`.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from functools import partial
from typing import Any

import js
from pyodide.ffi import JsException, create_once_callable, to_js

from bascule.base import assets
from bascule.base.assets import BRIDGE
from bascule.base.waiting import shared_task
from bascule.errors import InputError, SetupError

IMPORTER = "bridge/importer.js"
_CSP_HINT = (
    "If the page has a Content-Security-Policy, its script-src must allow blob:, or the site must"
    " hold a copy of the package's web/ folder: bascule.configure(bridge=URL)."
)

# What every load of a model imports, as early as possible. The modules that read its files are not
# listed: web/early.js has imported them.
LOADING = ("bridge/text.js", "bridge/remembered.js", "vendor/tokenizers.js", "vendor/idb.js")
_imports: dict[str, asyncio.Task[Any]] = {}


async def bridge_module(name: str) -> Any:
    """Import web/<name>, once per page or worker. SetupError if that fails."""
    return await asyncio.shield(_importing(name))  # who is cancelled does not end it for others


async def bridge_modules(names: Iterable[str]) -> list[Any]:
    """Import several modules at a time; see `bridge_module`."""
    return list(await asyncio.gather(*[bridge_module(name) for name in names]))


def import_ahead(names: Iterable[str]) -> None:
    """Start importing modules that `bridge_module` will be asked for; errors are raised there."""
    for name in names:
        _importing(name)


def _importing(name: str) -> asyncio.Task[Any]:
    return shared_task(_imports, name, partial(_import, name))


async def _import(name: str) -> Any:
    import_module = await _importer()
    with _module_url(name) as url:
        try:
            return await import_module(url)
        except JsException as error:
            raise _refused(name, error) from None


def js_message(error: JsException) -> str:
    """Return a JavaScript error's message without its class name."""
    return str(getattr(error, "message", "") or error)


def absolute_url(url: str, base: str = "") -> str:
    """Resolve a URL against `base` or the page's address. InputError if it is not a URL."""
    document = getattr(js.globalThis, "document", None)
    # A worker started from a blob: has no address to resolve against, but an origin.
    base = base or str(document.baseURI if document else js.location.origin + "/")
    # Checked first: Pyodide 0.27.7 may raise a bare SystemError for what a constructor throws.
    if not js.URL.canParse(url, base):
        result = "one that is none" if "@" in url else repr(url[:200])  # it may hold a password
        hint = "Give an http or https URL, or a path on the page's own server."
        raise InputError("address", "a URL or a path", result, hint=hint)
    return str(js.URL.new(url, base).href)


@contextmanager
def _module_url(name: str) -> Generator[str]:
    """Yield the URL of web/<name>; a blob: URL is revoked afterwards."""
    if base := os.environ.get(BRIDGE):
        yield base + name
        return
    options = to_js({"type": "text/javascript"}, dict_converter=js.Object.fromEntries)
    url = js.URL.createObjectURL(js.Blob.new(to_js([assets.text(f"web/{name}")]), options))
    try:
        yield url
    finally:
        js.URL.revokeObjectURL(url)


async def _importer() -> Any:
    """Return JavaScript's `import()`, which Python cannot call as a function."""
    if not hasattr(js.globalThis, "basculeImport"):
        with _module_url(IMPORTER) as url:
            if hasattr(js.globalThis, "document"):
                await _run_script(url)
            else:
                _run_in_worker(url)
    return js.globalThis.basculeImport


async def _run_script(url: str) -> None:
    ended: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
    script = js.document.createElement("script")
    script.src = url
    script.onload = create_once_callable(lambda _: ended.set_result(True))
    script.onerror = create_once_callable(lambda _: ended.set_result(False))
    js.document.head.appendChild(script)
    ran = await ended
    script.remove()
    if not ran:
        raise SetupError(f"The script {url} could not be loaded.", hint=_CSP_HINT)


def _run_in_worker(url: str) -> None:
    try:
        js.importScripts(url)
    except JsException as error:
        if error.name != "TypeError":  # that of a module worker, or of no worker (node)
            raise _refused(IMPORTER, error) from None
        _evaluate_importer()


def _evaluate_importer() -> None:
    try:
        js.globalThis.basculeImport = js.eval("(url) => import(url)")
    except JsException as error:
        if error.name != "EvalError":
            raise
        raise SetupError(
            "The Content-Security-Policy of this module worker lets Python import no JavaScript.",
            hint='Start the worker\'s script with: import "URL/bridge/importer.js", which is in the'
            " package's web/ folder.",
        ) from None


def _refused(name: str, error: JsException) -> SetupError:
    place = os.environ.get(BRIDGE) or "the package"
    what = f"The module {name} of {place} could not be imported ({js_message(error)})."
    return SetupError(what, hint=_CSP_HINT)
