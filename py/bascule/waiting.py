"""The one bridge from plain code to the asynchronous interface, and waiting for many at once."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Coroutine, Sequence
from functools import cache
from typing import Any, TypeVar

from bascule.errors import BasculeError, SetupError

T = TypeVar("T")


def sync(work: Awaitable[T]) -> T:
    """Wait for `work` in code that cannot await: a script, a plain test.

    Natively it runs on one event loop that Bascule keeps. In a page it needs the browser's
    JavaScript Promise Integration (JSPI). SetupError where a loop runs already (await instead)
    or the browser has no JSPI.
    """
    if sys.platform == "emscripten":
        return _sync_in_page(work)
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return _loop().run_until_complete(_waited(work))
    _close_unawaited(work)
    raise SetupError("An event loop runs here already.", hint="Write `await` instead of sync().")


def start(work: Coroutine[Any, Any, T]) -> asyncio.Task[T] | T:
    """Begin at once where an event loop runs, and give the task; elsewhere work to the end."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return sync(work)
    return asyncio.ensure_future(work)


def _sync_in_page(work: Awaitable[T]) -> T:
    from bascule.waiting_browser import can_run_sync, run_sync

    if not can_run_sync():
        _close_unawaited(work)
        raise SetupError(
            "This browser cannot wait inside plain code (it has no JSPI).",
            hint="Write `await` instead of sync().",
        )
    return run_sync(work)


async def _waited(work: Awaitable[T]) -> T:
    return await work


def _close_unawaited(work: object) -> None:
    """Spare the user a second complaint, of a coroutine that was never awaited."""
    if asyncio.iscoroutine(work):
        work.close()


@cache
def _loop() -> asyncio.AbstractEventLoop:
    return asyncio.new_event_loop()


async def all_or_first_error(jobs: Sequence[Any]) -> None:
    """Await all; on the first failure cancel the others and raise that error itself."""
    try:
        async with asyncio.TaskGroup() as group:
            for job in jobs:
                group.create_task(job)
    except ExceptionGroup as errors:
        first = errors.exceptions[0]
        if isinstance(first, BasculeError):
            raise first from None
        raise first from errors
