"""Running a coroutine to its end inside plain code, where nothing can wait."""

from __future__ import annotations

from collections.abc import Awaitable
from contextvars import ContextVar
from typing import TypeVar

T = TypeVar("T")

# Whether drivers have to do what they would else wait for within the call.
IN_PLAIN_CODE: ContextVar[bool] = ContextVar("IN_PLAIN_CODE", default=False)


class WouldWaitError(Exception):
    """Work cannot end without waiting; the message says why. Callers make an error of their own."""


def finish_now(work: Awaitable[T]) -> T:
    """Run `work` without waiting once. WouldWaitError, and `work` is cancelled, where it has to."""

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
