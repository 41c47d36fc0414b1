"""Locks that work across event loops and threads; asyncio's serve one loop only."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections import deque
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from contextvars import ContextVar

from bascule.errors import SetupError

# Threads whose event loops are blocked in `bascule.sync` until this work is done.
STOPPED_THREADS: ContextVar[frozenset[int]] = ContextVar("STOPPED_THREADS", default=frozenset())

# How often a waiter checks whether the holder's loop was closed without releasing. A page has one
# loop, which does not close.
_LOOK_S = None if sys.platform == "emscripten" else 1.0


class _Turn:
    """A holder or a waiter."""

    __slots__ = ("event", "held", "loop", "thread")

    def __init__(self, loop: asyncio.AbstractEventLoop | None) -> None:
        self.loop = loop
        self.thread = threading.get_ident()
        self.event: asyncio.Event | None = None
        self.held = False

    def wake(self) -> bool:
        """Wake the waiter; False if its loop is closed."""
        if self.event is None or self.loop is None:
            return True
        if self.thread == threading.get_ident():
            self.event.set()
            return True
        try:
            self.loop.call_soon_threadsafe(self.event.set)
        except RuntimeError:
            return False
        return True

    @property
    def is_dead(self) -> bool:
        """Whether its loop is closed, so that it can never release."""
        return self.loop is not None and self.loop.is_closed()


class CrossLoopLock:
    """A fair asyncio.Lock for tasks of any event loop in any thread.

    A holder whose loop is closed has lost it.
    """

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._holders: list[_Turn] = []
        self._waiting: deque[_Turn] = deque()
        self._later: list[Callable[[], None]] = []

    def locked(self) -> bool:
        """Whether the lock is held."""
        return bool(self._holders)

    @asynccontextmanager
    async def turn(self) -> AsyncGenerator[None]:
        """Hold the lock in `async with`.

        SetupError if its holder's loop is blocked in a `bascule.sync` that waits for this.
        """
        mine = await self._acquire()
        try:
            yield
        finally:
            self._release(mine)

    def when_free(self, work: Callable[[], None]) -> None:
        """Run `work` now, or if another thread holds the lock, in that thread on release."""
        mine = _Turn(None)
        with self._guard:
            self._drop_dead()
            if any(turn.thread != mine.thread for turn in self._holders):
                self._later.append(work)
                return
            self._holders.append(mine)
        try:
            work()
        finally:
            self._release(mine)

    async def _acquire(self) -> _Turn:
        mine = _Turn(asyncio.get_running_loop())
        with self._guard:
            self._drop_dead()
            self._waiting.append(mine)
            self._grant()
            if mine.held:
                return mine
            mine.event = event = asyncio.Event()
        try:
            while not mine.held:
                self._refuse_deadlock()
                try:
                    await asyncio.wait_for(event.wait(), _LOOK_S)
                except TimeoutError:
                    with self._guard:
                        self._drop_dead()
                        self._grant()
        except BaseException:
            self._release(mine)
            raise
        return mine

    def _release(self, mine: _Turn) -> None:
        """Release a turn, or stop waiting for one; does nothing if it was lost."""
        with self._guard:
            if mine in self._waiting:
                self._waiting.remove(mine)
            if mine in self._holders:
                self._holders.remove(mine)
            mine.held = False
            later = [] if self._holders else self._later
            if later:
                self._later = []
                mine = _Turn(None)
                self._holders.append(mine)
            else:
                self._grant()
        for work in later:
            work()
        if later:
            self._release(mine)

    def _grant(self) -> None:
        """Grant the lock to the next waiters."""
        while self._waiting and self._admits(self._waiting[0]):
            first = self._waiting.popleft()
            first.held = True
            self._holders.append(first)
            if not first.wake():
                self._holders.remove(first)

    def _admits(self, turn: _Turn) -> bool:
        """Whether that turn may be granted beside the current holders."""
        del turn
        return not self._holders

    def _drop_dead(self) -> None:
        self._holders = [turn for turn in self._holders if not turn.is_dead]

    def _refuse_deadlock(self) -> None:
        stopped = STOPPED_THREADS.get()
        if any(turn.thread in stopped for turn in list(self._holders)):
            raise SetupError(
                "bascule.sync() waits for a device whose work is under way in the event loop "
                "that sync() has stopped.",
                hint="Await the call in that loop, or finish its work first.",
            )


class DeviceTurns(CrossLoopLock):
    """Lets one event loop at a time use a device.

    Tasks of that loop hold it together, until another loop waits; so a holder must not ask for it
    again.
    """

    def _admits(self, turn: _Turn) -> bool:
        return all(holder.loop is turn.loop for holder in self._holders)
