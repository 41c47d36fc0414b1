"""A load that several callers wait for, and that closing ends."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Generic, TypeVar
from weakref import WeakSet

from bascule.base.closing import Closing
from bascule.base.waiting import cancel_from_anywhere
from bascule.errors import InputError

M = TypeVar("M", bound=Closing)


class SharedLoad(Generic[M]):
    """`model` is what was loaded, until `close`."""

    def __init__(self) -> None:
        self.model: M | None = None
        self._task: asyncio.Task[M] | None = None
        self._stopped: WeakSet[asyncio.Task[M]] = WeakSet()

    async def get(self, load: Callable[[], Coroutine[Any, Any, M]]) -> M:
        """Load once for all callers; a cancelled caller does not cancel it for the others.

        InputError if it is closed before the model is loaded.
        """
        if self.model is not None:
            return self.model
        if self._task is None:
            self._task = asyncio.ensure_future(load())
            self._task.add_done_callback(self._ended)
        task = self._task
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError:
            if task not in self._stopped:
                raise
        if self.model is None or task in self._stopped:
            raise InputError("load", "an open object", "one that was closed while it loaded")
        return self.model

    def close(self) -> None:
        """Close the model, or end the load in progress."""
        task, self._task = self._task, None
        if task is not None:
            self._stopped.add(task)
            cancel_from_anywhere(task)
        model, self.model = self.model, None
        if model is not None:
            model.close()

    def _ended(self, task: asyncio.Task[M]) -> None:
        stopped, failed = task in self._stopped, task.cancelled() or task.exception() is not None
        if not stopped:
            self._task = None
        if failed:
            return
        if stopped:
            task.result().close()
        else:
            self.model = task.result()
