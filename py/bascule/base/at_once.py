"""Run a coroutine to completion in code that cannot wait."""

from __future__ import annotations

from collections.abc import Awaitable
from contextvars import ContextVar
from typing import TypeVar

T = TypeVar("T")

# Whether drivers must finish within the call what they would otherwise wait for.
IN_PLAIN_CODE: ContextVar[bool] = ContextVar("IN_PLAIN_CODE", default=False)


class WouldWaitError(Exception):
    """The coroutine cannot finish without waiting; the message says why. Callers convert it."""


def finish_now(work: Awaitable[T]) -> T:
    """Run `work` without waiting; if it has to wait it is cancelled, and WouldWaitError raised."""

    async def awaited() -> T:
        return await work

    running = awaited()
    token = IN_PLAIN_CODE.set(True)
    try:
        running.send(None)
    except StopIteration as end:
        return end.value
    finally:
        IN_PLAIN_CODE.reset(token)
        running.close()
    raise WouldWaitError("something else on its device has to be waited for first")
