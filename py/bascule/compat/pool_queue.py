"""Which request of a ResourcePool is next: fair, and without deadlock."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

# How many requests that need no load may overtake a waiting one.
MAX_OVERTAKEN = 8

T = TypeVar("T")


@dataclass(slots=True, eq=False)
class Entry(Generic[T]):
    """A resident model: the least `used` is evicted first, one with `leases` never."""

    key: Hashable
    model: T
    leases: set[Lease[T]] = field(default_factory=set["Lease[T]"])
    used: int = 0


@dataclass(slots=True, eq=False)
class Lease(Generic[T]):
    """One request that uses a model."""

    entry: Entry[T]


# The leases of the running code, and of the tasks that it starts.
_HELD: ContextVar[tuple[Lease[Any], ...]] = ContextVar("_HELD", default=())


@dataclass(slots=True, eq=False)
class Request(Generic[T]):
    """A wait for a model. `ready` is a lease, or None if the model has to be loaded."""

    key: Hashable
    held: tuple[Lease[Any], ...]
    ready: asyncio.Future[Lease[T] | None]
    overtaken: int = 0


class RequestQueue(Generic[T]):
    """Grants leases of resident models, and one load at a time.

    Requests are served in order, but one whose model is resident overtakes those that wait for
    room, at most `MAX_OVERTAKEN` times each. A request within another's lease goes first, since it
    blocks the others. `fits(key, entries)` says whether a model may be loaded beside the entries in
    use; `refuse(key)` returns the error for a request that would wait for itself.
    """

    def __init__(
        self,
        fits: Callable[[Hashable, list[Entry[T]]], bool],
        refuse: Callable[[Hashable], Exception],
    ) -> None:
        self.entries: dict[Hashable, Entry[T]] = {}
        self._fits = fits
        self._refuse = refuse
        self._waiting: list[Request[T]] = []
        self._leases: set[Lease[T]] = set()
        self._loader: Request[T] | None = None
        self._clock = 0

    @property
    def is_busy(self) -> bool:
        """Whether any request waits, loads or uses a model."""
        return bool(self._waiting or self._leases or self._loader)

    @property
    def in_use(self) -> list[Entry[T]]:
        """The entries in use."""
        return list({lease.entry: None for lease in self._leases})

    @property
    def idle(self) -> list[Entry[T]]:
        """The resident entries that are not in use, least recently used first."""
        results = [entry for entry in self.entries.values() if not entry.leases]
        return sorted(results, key=lambda entry: entry.used)

    def is_wanted(self, key: Hashable) -> bool:
        """Whether a request waits for that model."""
        return any(request.key == key for request in self._waiting)

    async def get(self, key: Hashable) -> Request[T]:
        """Wait for a turn: `ready` is a lease, or None if the caller has to load the model."""
        held = tuple(lease for lease in _HELD.get() if lease in self._leases)
        request = Request[T](key, held, asyncio.get_running_loop().create_future())
        self._put(request)
        return await self._wait(request)

    async def again(self, request: Request[T]) -> Request[T]:
        """Return a load that found no room, and wait in the same place."""
        self._loader = None
        request.ready = asyncio.get_running_loop().create_future()
        self._put(request, first=True)
        return await self._wait(request)

    def loaded(self, request: Request[T], model: T) -> Lease[T]:
        """End a load: the model is resident, and the request gets a lease."""
        self._loader = None
        entry = self.entries[request.key] = Entry(request.key, model)
        lease = self._lease(entry)
        self.schedule()
        return lease

    def failed(self) -> None:
        """End a load that failed."""
        self._loader = None
        self.schedule()

    def hold(self, lease: Lease[T]) -> None:
        """Record that the running code uses a lease."""
        _HELD.set((*_HELD.get(), lease))

    def release(self, lease: Lease[T]) -> None:
        """End a lease."""
        _HELD.set(tuple(held for held in _HELD.get() if held is not lease))
        self._leases.discard(lease)
        lease.entry.leases.discard(lease)
        self._clock += 1
        lease.entry.used = self._clock
        self.schedule()

    def retire(self) -> None:
        """Forget all models, and the leases of those in use: their memory is gone."""
        self.entries.clear()
        self._leases.clear()
        self.schedule()

    def fail_all(self, error: Callable[[], Exception]) -> None:
        """End every wait."""
        waiting, self._waiting = self._waiting, []
        for request in waiting:
            if not request.ready.done():
                request.ready.set_exception(error())

    def may_load(self, request: Request[T]) -> bool:
        """Whether its model fits beside those in use."""
        in_use = self.in_use
        return not in_use or self._fits(request.key, in_use)

    def schedule(self) -> None:
        """Grant what can be granted."""
        blocked: list[Request[T]] = []
        for request in tuple(self._waiting):
            if request.ready.done():
                continue  # cancelled: its task has not yet run to leave the queue
            entry = self.entries.get(request.key)
            may_overtake = all(other.overtaken < MAX_OVERTAKEN for other in blocked)
            may_go = may_overtake or bool(request.held)
            if entry is not None and may_go:
                self._grant(request, self._lease(entry), blocked)
            elif self._loader is None and entry is None and may_go and self.may_load(request):
                self._loader = request
                self._grant(request, None, blocked)
            else:
                blocked.append(request)
        if self._is_stuck(blocked):
            last = [request for request in blocked if request.held][-1]
            self._waiting.remove(last)
            last.ready.set_exception(self._refuse(last.key))
            self.schedule()

    def _grant(
        self, request: Request[T], lease: Lease[T] | None, blocked: list[Request[T]]
    ) -> None:
        self._waiting.remove(request)
        request.ready.set_result(lease)
        for other in blocked:
            other.overtaken += 1

    def _lease(self, entry: Entry[T]) -> Lease[T]:
        lease = Lease(entry)
        entry.leases.add(lease)
        self._leases.add(lease)
        return lease

    def _is_stuck(self, blocked: list[Request[T]]) -> bool:
        """Whether all leases belong to code that is itself waiting here."""
        if self._loader is not None or not blocked or not self._leases:
            return False
        waiting = {lease for request in blocked for lease in request.held}
        return self._leases <= waiting

    def _put(self, request: Request[T], *, first: bool = False) -> None:
        if request.held or first:
            at = next((i for i, r in enumerate(self._waiting) if first or not r.held), None)
            self._waiting.insert(len(self._waiting) if at is None else at, request)
        else:
            self._waiting.append(request)
        self.schedule()

    async def _wait(self, request: Request[T]) -> Request[T]:
        try:
            await request.ready
        except asyncio.CancelledError:
            if request in self._waiting:
                self._waiting.remove(request)
            if self._loader is request:
                self._loader = None
            elif request.ready.done() and not request.ready.cancelled():
                self._undo(request.ready)
            self.schedule()
            raise
        return request

    def _undo(self, ready: asyncio.Future[Lease[T] | None]) -> None:
        lease = None if ready.exception() else ready.result()
        if lease is not None:
            self._leases.discard(lease)
            lease.entry.leases.discard(lease)
