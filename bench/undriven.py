"""Pages measured in a browser that no test driver watches, as a visitor's is.

A driver hears of every request of a page. In Firefox each costs the main process a few milliseconds
of JavaScript, which counts against the page that has more of them. So a page measures itself here:
a script that the server adds posts the figures and closes the tab. A start page opens the tabs.
"""

from __future__ import annotations

import asyncio
import json
import queue
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from bascule.server.run import running
from e2e.engines import CHROMIUM_WEBGPU, CHROMIUM_WITHOUT, FIREFOX_WEBGPU

RESULTS = "/bench-result"
START_S = 4.0  # of a browser, with what it does when its profile is new
# A tab may be opened and closed by a script; and nothing is shown or fetched but pages.
FIREFOX_UNDRIVEN = {
    "app.update.enabled": False,
    "browser.aboutwelcome.enabled": False,
    "browser.preonboarding.enabled": False,
    "browser.shell.checkDefaultBrowser": False,
    "browser.startup.homepage_override.mstone": "ignore",
    "datareporting.healthreport.uploadEnabled": False,
    "datareporting.policy.dataSubmissionEnabled": False,
    "dom.allow_scripts_to_close_windows": True,
    "dom.disable_open_during_load": False,
    "termsofuse.bypassNotification": True,
}
CHROMIUM_UNDRIVEN = (
    "--headless=new",
    "--no-sandbox",
    "--no-first-run",
    "--disable-popup-blocking",
    "--disable-background-networking",
    "--disable-component-update",
)
# After the page's own module scripts: they run in their order.
SCRIPT = """<script type="module">
const post = (found) => fetch("%s", { method: "POST", body: JSON.stringify(found) });
try {
  await post({ found: await (%s)(%s) });
} catch (error) {
  await post({ error: String(error) });
}
setTimeout(() => window.close(), %d);
</script>"""
OPENER = """<!doctype html><title>Start</title><script type="module">
for (;;) window.open(await (await fetch("/next")).json(), "_blank", "noopener");
</script>"""


class Measured:
    """ASGI middleware that adds a script to one page of a site, and takes what it finds.

    The script is a JavaScript function of one JSON argument whose result is JSON, too. The tab
    closes `settle_s` later: what the page does after its result belongs to no other visit.
    """

    def __init__(
        self, app: ASGIApp, page: str, script: str, argument: Any, settle_s: float
    ) -> None:
        self._app = app
        self._page = page
        added = SCRIPT % (RESULTS, script, json.dumps(argument), 1000 * settle_s)
        self._added = added.encode()
        self._found: queue.Queue[dict[str, Any]] = queue.Queue()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope["path"] if scope["type"] == "http" else ""
        if path == RESULTS:
            self._found.put(await Request(scope, receive).json())
            await Response(status_code=204)(scope, receive, send)
        elif path == self._page:
            await self._app(scope, receive, self._adding(send))
        else:
            await self._app(scope, receive, send)

    def _adding(self, send: Send) -> Send:
        """Send a page with the script at its end; a 304 stays as it is."""
        whole = False

        async def adding(message: Message) -> None:
            nonlocal whole
            if message["type"] == "http.response.start":
                whole = message["status"] == 200
                if whole:
                    message = {**message, "headers": self._longer(message["headers"])}
            elif whole and not message.get("more_body"):
                message = {**message, "body": message.get("body", b"") + self._added}
            await send(message)

        return adding

    def _longer(self, headers: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
        return [
            (name, b"%d" % (int(value) + len(self._added)) if name == b"content-length" else value)
            for name, value in headers
        ]

    def take(self, limit_s: float) -> Any:
        """What the page found. RuntimeError if it failed, or posts nothing in time."""
        try:
            result = self._found.get(timeout=limit_s)
        except queue.Empty:
            raise RuntimeError(f"no result in {limit_s:.0f} s") from None
        if "error" in result:
            raise RuntimeError(result["error"])
        return result["found"]


class Undriven:
    """A browser with a new profile on disk, and its tabs."""

    def __init__(self, asked: queue.Queue[str]) -> None:
        self._asked = asked

    def open(self, url: str) -> None:
        """Open a page in a new tab, which closes itself (`Measured`)."""
        self._asked.put(url)


@contextmanager
def undriven(name: str) -> Iterator[Undriven]:
    """Start Chromium or Firefox with WebGPU."""
    asked: queue.Queue[str] = queue.Queue()

    async def wanted(request: Request) -> Response:
        while not await request.is_disconnected():
            try:
                return JSONResponse(asked.get_nowait())
            except queue.Empty:
                await asyncio.sleep(0.05)
        return Response(status_code=204)

    async def opener(_: Request) -> Response:
        return HTMLResponse(OPENER)

    start_page = Starlette(routes=[Route("/", opener), Route("/next", wanted)])
    with (
        running(start_page) as url,
        tempfile.TemporaryDirectory(prefix="bascule-profile-", ignore_cleanup_errors=True) as home,
    ):
        process = subprocess.Popen(
            command(name, Path(home), url), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            time.sleep(START_S)
            yield Undriven(asked)
        finally:
            process.terminate()
            process.wait(timeout=20)


def command(name: str, home: Path, url: str) -> list[str]:
    """The command that opens a browser at a page. RuntimeError where it is not installed."""
    programs = ("chromium",) if name == "chromium" else ("firefox-esr", "firefox")
    program = next(filter(None, map(shutil.which, programs)), None)
    if program is None:
        raise RuntimeError(f"{name} is not installed")
    if name == "chromium":
        switches = (*CHROMIUM_UNDRIVEN, *CHROMIUM_WEBGPU, CHROMIUM_WITHOUT)
        return [program, f"--user-data-dir={home}", *switches, url]
    write_prefs(home, {**FIREFOX_WEBGPU, **FIREFOX_UNDRIVEN})
    return [program, "--headless", "--no-remote", "--profile", str(home), url]


def write_prefs(home: Path, prefs: Mapping[str, int | bool | str]) -> None:
    """Firefox reads them when it starts."""
    rows = (
        f"user_pref({json.dumps(name)}, {json.dumps(value)});\n" for name, value in prefs.items()
    )
    (home / "user.js").write_text("".join(rows))
