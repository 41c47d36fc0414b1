"""The bridge from synchronous code to the asynchronous API, and waiting for several tasks."""

from __future__ import annotations

import asyncio
import inspect
import os
import sys
import threading
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from concurrent.futures import Future
from contextlib import suppress
from typing import Any, TypeVar

from bascule.base.turns import STOPPED_THREADS
from bascule.errors import BasculeError, InputError, SetupError

T = TypeVar("T")


def sync(work: Awaitable[T]) -> T:
    """Wait for `work` in code that cannot await: a script, a plain test, a server's thread.

    Natively it runs on an event loop in a thread of Bascule's, so any number of threads may call
    it, also one whose own event loop is running (that loop is blocked meanwhile). Ctrl+C cancels
    `work`. In a page it needs JavaScript Promise Integration (JSPI). SetupError if the browser has
    none, if `work` belongs to another event loop, and inside work that sync() itself runs: await
    there. InputError for what cannot be awaited.
    """
    if not inspect.isawaitable(work):
        expected = "something to await, as in sync(model.embed(texts))"
        raise InputError("sync", expected, type(work).__name__)
    if sys.platform == "emscripten":
        return _sync_in_page(work)
    loop = _loop_thread()
    problem = ""
    if threading.get_ident() == loop.thread.ident:
        problem = "sync() was called inside work that another sync() waits for."
    elif isinstance(work, asyncio.Future) and work.get_loop() is not loop.loop:
        problem = "sync() was given a task of another event loop."
    if problem:
        _close_unawaited(work)
        raise SetupError(problem, hint="Write `await` instead of sync().")
    return _result_of(loop, work)


def start(work: Coroutine[Any, Any, T]) -> asyncio.Task[T] | T:
    """Start a task if an event loop is running; otherwise run it and return the result."""
    return sync(work) if _running_loop() is None else asyncio.ensure_future(work)


def cancel_from_anywhere(task: asyncio.Task[Any]) -> None:
    """Cancel a task, possibly of another thread's event loop."""
    loop = task.get_loop()
    if task.done() or loop.is_closed():
        return
    if loop.is_running() and loop is not _running_loop():
        loop.call_soon_threadsafe(task.cancel)
    else:
        task.cancel()


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def _sync_in_page(work: Awaitable[T]) -> T:
    from bascule.base.waiting_browser import can_run_sync, run_sync

    if not can_run_sync():
        _close_unawaited(work)
        raise SetupError(
            "This browser cannot wait in synchronous code (it has no JSPI).",
            hint="Write `await` instead of sync().",
        )
    return run_sync(work)


def _close_unawaited(work: object) -> None:
    """Close a coroutine, to avoid a second warning that it was never awaited."""
    if asyncio.iscoroutine(work):
        work.close()


class _LoopThread:
    """An event loop in a thread of its own, until the process ends."""

    def __init__(self) -> None:
        self.pid = os.getpid()
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self._run, name="bascule.sync", daemon=True)
        self.thread.start()

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        while True:
            # asyncio passes these two on to whoever runs the loop, and they end the task.
            with suppress(KeyboardInterrupt, SystemExit):
                self.loop.run_forever()


_starting = threading.Lock()
_started: list[_LoopThread] = []


def _loop_thread() -> _LoopThread:
    """Return this process's loop thread; a forked process does not inherit its parent's."""
    with _starting:
        if not _started or _started[0].pid != os.getpid():
            _started[:] = [_LoopThread()]
        return _started[0]


def _result_of(loop: _LoopThread, work: Awaitable[T]) -> T:
    """Return the result of `work` on that loop; an exception while waiting cancels it."""
    ended: Future[asyncio.Task[T]] = Future()
    begun: list[asyncio.Task[T]] = []

    def begin() -> None:
        begun.append(loop.loop.create_task(_waited(work)))
        begun[0].add_done_callback(ended.set_result)

    token = STOPPED_THREADS.set(STOPPED_THREADS.get() | {threading.get_ident()})
    try:
        loop.loop.call_soon_threadsafe(begin)  # in this thread's context
    finally:
        STOPPED_THREADS.reset(token)
    try:
        task = ended.result()
    except BaseException:  # Ctrl+C
        loop.loop.call_soon_threadsafe(lambda: begun[0].cancel())
        ended.result()
        raise
    return task.result()


async def _waited(work: Awaitable[T]) -> T:
    return await work


def shared_task(
    tasks: dict[str, asyncio.Task[T]], key: str, work: Callable[[], Coroutine[Any, Any, T]]
) -> asyncio.Task[T]:
    """Return the task of that key, which several callers may await; a failed one is started again.

    Await it in `asyncio.shield`, so that a cancelled caller does not cancel it for the others.
    """
    task = tasks.get(key)
    if task is None or (task.done() and (task.cancelled() or task.exception())):
        task = tasks[key] = asyncio.ensure_future(work())
        # Retrieves the error if nobody awaits the task.
        task.add_done_callback(lambda ended: ended.cancelled() or ended.exception())
    return task


async def all_or_first_error(jobs: Sequence[Any]) -> None:
    """Await all; on the first failure cancel the others and raise that error."""
    try:
        async with asyncio.TaskGroup() as group:
            for job in jobs:
                group.create_task(job)
    except ExceptionGroup as errors:
        first = errors.exceptions[0]
        if isinstance(first, BasculeError):
            raise first from None
        raise first from errors
