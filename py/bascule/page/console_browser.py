"""A Python console in a page: source in, text and pictures out. web/repl-worker.js calls it."""

from __future__ import annotations

import asyncio
import builtins
import linecache
import os
import sys
import traceback
import warnings
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from pyodide.console import Console
from pyodide.ffi import to_js
from pyodide_js import loadPackagesFromImports

import bascule
from bascule.base.arrays import need_numpy, np
from bascule.errors import BasculeError
from bascule.kernels.canvas import Canvas
from bascule.page.pictures import figures, picture_of

# matplotlib's own backend for pages draws into the document, which a worker does not have.
_PLOTS = "agg"
_MAX_REPR = 100_000


def _start(main: Coroutine[Any, Any, Any], **_: object) -> asyncio.Task[Any]:
    """Replace `asyncio.run` on a running loop: the console waits for the task."""
    return asyncio.ensure_future(main)


class ConsoleSession:
    """Runs sources one after the other in one namespace, in which `bascule` is imported.

    `text(kind, text)` gets what is printed ("out", "err"), the value of a last expression ("value")
    and errors ("error"); `picture(type, bytes, id)` what is displayed: see `pictures.picture_of`. A
    value with a method `clicked(x, y)` has a nonzero id; `click` calls that method. `canvas(id,
    width, height, clickable)` asks for a canvas, which is passed to `attach`: a displayed `Canvas`,
    or a value's attribute `canvas`, draws on it.
    """

    def __init__(
        self,
        text: Callable[[str, str], None],
        picture: Callable[[str, Any, int], None],
        canvas: Callable[[int, int, int, bool], None],
    ) -> None:
        os.environ.setdefault("MPLBACKEND", _PLOTS)
        asyncio.run = _start  # type: ignore[assignment]
        warnings.filterwarnings("ignore", message="FigureCanvasAgg is non-interactive")
        self._text = text
        self._picture = picture
        self._canvas = canvas
        self._n_runs = 0
        self._running: asyncio.Task[Any] | None = None
        self._pictures: list[Any] = []  # what clicks and canvases belong to
        self._names: dict[str, Any] = {
            "__name__": "__main__",
            "__doc__": None,
            "bascule": bascule,
            "display": self.display,
        }
        self._console = Console(
            self._names,
            stdout_callback=lambda text: self._text("out", text),
            stderr_callback=lambda text: self._text("err", text),
        )

    def is_complete(self, source: str) -> bool:
        """Whether Enter should run this: it is complete, or invalid, and no block is open."""
        last = source.rpartition("\n")[2]
        if "\n" in source and last.strip() and last[0] in " \t":
            return False
        try:
            return self._console._compile(source, "<console>", "exec") is not None
        except (OverflowError, SyntaxError, ValueError):
            return True

    def complete(self, source: str) -> Any:
        """Return the names that complete the last word of a source, and where that word starts."""
        names, start = self._console.complete(source)
        return to_js([sorted(set(names)), start])

    async def run(self, source: str) -> bool:
        """Run a source to its end, including an `asyncio.run(...)` in its last line.

        What it prints and displays goes to the callbacks. False if it ended with an error.
        """
        self._n_runs += 1
        name = f"<console {self._n_runs}>"
        linecache.cache[name] = (len(source), None, source.splitlines(keepends=True), name)
        self._console.filename = name
        return await self._shown(self._run(source, name))

    async def click(self, id_: int, x: float, y: float) -> bool:
        """Call `clicked(x, y)` of a displayed value, with fractions of its size, and display it
        again.

        False if it ended with an error.
        """
        value = self._pictures[id_ - 1]

        async def clicked() -> Any:
            with self._console.redirect_streams():
                await value.clicked(x, y)
            return value

        return await self._shown(clicked())

    async def open(self, pixels: Any, width: int, height: int) -> bool:
        """Pass a picture to sources as `opened`: RGBA, (height, width, 4) uint8."""
        notify = self._show_package
        await loadPackagesFromImports("import numpy", messageCallback=notify, errorCallback=notify)
        await need_numpy("a picture", "This Pyodide has no numpy.")
        flat = np.frombuffer(pixels.to_py(), np.uint8)
        self._names["opened"] = flat.reshape(height, width, 4).copy()
        self._text("names", f"`opened` is that picture, {width} x {height} pixels.\n")
        return True

    async def _shown(self, work: Awaitable[Any]) -> bool:
        """Display the result of the work, or its error; False for an error."""
        self._running = asyncio.current_task()
        try:
            await self._show_value(await work)
        except (OverflowError, SyntaxError, ValueError) as error:
            self._text("error", self._words(error))
            return False
        except asyncio.CancelledError:
            self._text("error", "Stopped.\n")
            return False
        except (
            BaseException
        ) as error:  # SystemExit and KeyboardInterrupt end the source, not Python
            self._text("error", self._words(error))
            return False
        finally:
            self._running = None
            self._show_figures()
        return True

    def cancel(self) -> None:
        """Cancel what is running, where it awaits."""
        if self._running:
            self._running.cancel()

    def display(self, *values: Any) -> None:
        """Display values: as pictures if they have one, else as text."""
        for value in values:
            is_clickable = callable(getattr(value, "clicked", None))
            canvas = _canvas_of(value)
            if canvas:
                self._canvas(self._id_of(value), canvas.width, canvas.height, is_clickable)
            elif result := picture_of(value):
                id_ = self._id_of(value) if is_clickable else 0
                self._picture(result[0], to_js(result[1]), id_)
            else:
                self._text("value", f"{repr(value)[:_MAX_REPR]}\n")

    async def attach(self, id_: int, target: Any) -> None:
        """Pass the requested canvas to a displayed value."""
        try:
            await _canvas_of(self._pictures[id_ - 1]).attach(target)
        except BasculeError as error:
            self._text("error", f"{error}\n")

    def _id_of(self, value: Any) -> int:
        if not any(each is value for each in self._pictures):
            self._pictures.append(value)
        return 1 + [each is value for each in self._pictures].index(True)

    async def _run(self, source: str, name: str) -> Any:
        code = self._console._compile(source, name, "exec")
        if code is None:
            raise SyntaxError("the source ends too early")
        notify = self._show_package
        await loadPackagesFromImports(source, messageCallback=notify, errorCallback=notify)
        with self._console.redirect_streams():  # until a task has ended as well
            value = await self._console.runcode(source, code)
            return await value if isinstance(value, asyncio.Future) else value

    async def _show_value(self, value: Any) -> None:
        if value is None:
            return
        builtins._ = value  # type: ignore[attr-defined]
        read: Callable[[], Awaitable[Any]] | None = getattr(value, "numpy", None)
        if type(value).__module__.startswith("bascule.") and read and not picture_of(value):
            value = await read()  # what lies on a device
        self.display(value)

    def _show_package(self, message: str) -> None:
        if not message.startswith("No new") and "already loaded" not in message:
            self._text("names", f"{message}\n")

    def _show_figures(self) -> None:
        for data in figures(sys.modules):
            self._picture("image/png", to_js(data), 0)

    def _words(self, error: BaseException) -> str:
        """Return a traceback from the console's own first line on."""
        if isinstance(error, SyntaxError) and error.filename == self._console.filename:
            return "".join(traceback.format_exception_only(error))
        return self._console.formattraceback(error)


def _canvas_of(value: Any) -> Any:
    """Return the canvas that shows a value, if there is one."""
    result = value if isinstance(value, Canvas) else getattr(value, "canvas", None)
    return result if isinstance(result, Canvas) else None
