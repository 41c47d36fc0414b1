"""ResourcePool: models that share a device and a memory budget."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Hashable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from os import PathLike
from typing import Any, TypeVar, Unpack

from bascule.backend.memory import MemoryBudget
from bascule.base.arguments import whole_number
from bascule.base.closing import Closing
from bascule.choosing.auto import ModelNeed, open_tier
from bascule.choosing.openers import OpenedTier
from bascule.choosing.reopening import reopen_tier
from bascule.compat.pool_queue import Entry, Lease, Request, RequestQueue
from bascule.device.device import Device
from bascule.device.loading import load_model
from bascule.device.options import DeviceLoadOptions, LoadSettings
from bascule.errors import BudgetError, DeviceLostError, InputError
from bascule.machine.host import LITTLE_NBYTES, free_nbytes
from bascule.tasks.loaded import NO_MEMORY
from bascule.tasks.models import AnyModel

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class PoolStats:
    """A pool's statistics: `loads` of models, `hits` (requests whose model was resident),
    `evictions`, `devices_lost`; bytes on the device now and at the peak, by the driver's count.
    """

    loads: int = 0
    hits: int = 0
    evictions: int = 0
    devices_lost: int = 0
    now_nbytes: int = 0
    peak_nbytes: int = 0


class _NoRoomError(Exception):
    """A model whose size is only known now does not fit beside those in use."""


@dataclass(slots=True, eq=False)
class _Place:
    """An open device, and its models."""

    opened: OpenedTier
    device: Device
    entries: set[Entry[AnyModel]]


class ResourcePool(Closing):
    """Lends models that share one device and `budget_nbytes` of its memory (None: all of it).

    `async with pool.use(name) as model` loads a model that is not resident, from the cache or its
    local folder, and evicts the least recently used idle ones to make room. On a WebGPU tier every
    buffer counts against the budget, on the others weights and KV caches. Requests wait for room in
    order; those whose model is resident overtake at most eight times. A model that is loaded again
    comes from the cache, without asking the server for a newer version. With `low_memory_mode` a
    model is evicted as soon as no request uses or waits for it; None does so while the machine has
    less than 1 GiB free.

    A model in use is never evicted. Within an `async with` of one model, including tasks started
    there, another can be used if both fit with their largest passes; otherwise BudgetError, since
    waiting would never end. A model that is kept after its `async with` may be closed at any time.
    After a device is lost the next request opens another one. A pool serves one event loop. Close
    it, or use it in `async with`.
    """

    def __init__(
        self,
        budget_nbytes: int | None = None,
        *,
        tier: str = "auto",
        low_memory_mode: bool | None = None,
    ) -> None:
        if budget_nbytes is not None:
            budget_nbytes = whole_number("budget_nbytes", budget_nbytes, 1)
        self.budget_nbytes = budget_nbytes
        self.low_memory_mode = low_memory_mode
        self._tier = tier
        self._place: _Place | None = None
        self._retired: list[_Place] = []
        self._needs: dict[Hashable, int] = {}
        self._weights: dict[Hashable, int] = {}
        self._known: set[str] = set()  # names of models that were loaded
        self._held_nbytes = 0  # when the budget last refused something
        self._queue: RequestQueue[AnyModel] = RequestQueue(self._fits, self._refuse)
        self._counts = PoolStats()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closed = False

    def __repr__(self) -> str:
        state = "closed" if self._closed else f"{len(self._queue.entries)} models resident"
        return f"<ResourcePool {self._tier}, {state}>"

    @property
    def device(self) -> Device | None:
        """The open device; anything else on it also counts against the budget."""
        return None if self._place is None else self._place.device

    @property
    def resident(self) -> tuple[str, ...]:
        """The names of the models on the device, least recently used first."""
        entries = sorted(self._queue.entries.values(), key=lambda entry: entry.used)
        return tuple(entry.model.name for entry in entries)

    @property
    def stats(self) -> PoolStats:
        """The pool's statistics."""
        now, peak = 0, self._counts.peak_nbytes
        if self._place is not None:
            use = self._place.device.memory()
            now, peak = use.now_nbytes, max(peak, use.peak_nbytes)
        return replace(self._counts, now_nbytes=now, peak_nbytes=peak)

    @asynccontextmanager
    async def use(
        self, model: str | PathLike[str], **options: Unpack[DeviceLoadOptions]
    ) -> AsyncGenerator[AnyModel]:
        """Lend a model, loaded with the options of `Device.load` except `wait`.

        The same model with other options is a different one. Errors as `bascule.load`; BudgetError
        for a model that exceeds the budget alone, or beside those that the caller uses.
        DeviceLostError if the device is lost during the work: ask again.
        """
        lease = await self._take(str(model), options)
        self._queue.hold(lease)
        try:
            yield lease.entry.model
        finally:
            self._release(lease)

    async def run(
        self,
        model: str | PathLike[str],
        work: Callable[[Any], Awaitable[T]],
        **options: Unpack[DeviceLoadOptions],
    ) -> T:
        """Return the result of `work(model)`, which runs once more if the device is lost in it."""
        try:
            async with self.use(model, **options) as lent:
                return await work(lent)
        except DeviceLostError:
            if self._closed:
                raise
        async with self.use(model, **options) as lent:
            return await work(lent)

    def evict(self) -> int:
        """Evict every idle model; return how many."""
        n_evicted = 0
        while self._evict_one():
            n_evicted += 1
        return n_evicted

    def close(self) -> None:
        """Close the models and the device. Closing twice is fine.

        Waiting requests end with InputError, work in progress with DeviceLostError.
        """
        if self._closed:
            return
        self._closed = True
        self._queue.fail_all(self._when_closed)
        self._queue.entries.clear()
        places = [self._place] if self._place is not None else []
        self._note_peak()
        self._place = None
        for place in (*places, *self._retired):
            _close(place)
        self._retired.clear()

    async def _take(self, name: str, options: DeviceLoadOptions) -> Lease[AnyModel]:
        settings = LoadSettings(**options)
        if not settings.wait:
            raise InputError("wait", "True: a pool lends loaded models", "False")
        self._check_loop()
        key = (name, replace(settings, progress=None))
        if self._closed:
            raise self._when_closed()
        request = await self._queue.get(key)
        while True:
            lease = request.ready.result()
            if lease is None:
                try:
                    return await self._load(name, settings, request)
                except _NoRoomError:
                    await self._queue.again(request)
            elif not lease.entry.model.lost:
                self._counts = replace(self._counts, hits=self._counts.hits + 1)
                return lease
            else:
                self._retire()
                self._release(lease)
                request = await self._queue.get(key)

    async def _load(
        self, name: str, settings: LoadSettings, request: Request[AnyModel]
    ) -> Lease[AnyModel]:
        try:
            try:
                model = await self._load_once(name, settings, request)
            except DeviceLostError:
                if self._closed or self._place is None or not self._place.device.lost:
                    raise
                model = await self._load_once(name, settings, request)
        except _NoRoomError:
            raise  # the request waits again
        except BaseException:
            self._queue.failed()
            raise
        self._counts = replace(self._counts, loads=self._counts.loads + 1)
        lease = self._queue.loaded(request, model)
        if self._place is not None:
            self._place.entries.add(lease.entry)
        return lease

    async def _load_once(
        self, name: str, settings: LoadSettings, request: Request[AnyModel]
    ) -> AnyModel:
        while True:
            place = await self._open()

            async def opener(need: ModelNeed, place: _Place = place) -> OpenedTier:
                need.check(place.device.tier)
                self._needs[request.key] = need.total_nbytes
                self._weights[request.key] = need.weights_nbytes
                if not self._queue.may_load(request):
                    raise _NoRoomError
                return place.opened

            try:
                # What this pool has loaded before comes from the cache unchanged.
                known = replace(settings, revalidate=name not in self._known)
                model = await load_model(name, None, opener, known, owns=False)
            except NO_MEMORY as error:
                if self.evict():
                    continue
                if self._queue.in_use:  # one of them may have grown: wait until it is alone
                    self._needs[request.key] = self.budget_nbytes or 1 << 62
                    raise _NoRoomError from error
                if self.budget_nbytes is None:
                    raise
                raise self._too_large(name, request.key, error) from error
            if self._closed:
                model.close()
                raise self._when_closed()
            self._known.add(name)
            return model

    def _too_large(self, name: str, key: Hashable, error: BaseException) -> BudgetError:
        assert self.budget_nbytes is not None
        free = self.budget_nbytes - self.stats.now_nbytes
        needed = self._held_nbytes + (getattr(error, "nbytes", None) or 0)
        return BudgetError(name, max(self._weights[key], needed), free, self.budget_nbytes)

    async def _open(self) -> _Place:
        """Return the device; if it is lost, another one."""
        lost = self._retire()
        if self._place is None:
            opened = await self._open_tier(lost)
            if self._closed:
                opened.backend.close()
                raise self._when_closed()
            self._place = _Place(opened, Device(opened, self._tier), set())
            if self.budget_nbytes is not None:
                opened.backend.limit_memory(MemoryBudget(self.budget_nbytes, self._make_room))
        return self._place

    async def _open_tier(self, lost: Device | None) -> OpenedTier:
        """Open a tier; after a loss the one that reopening chooses."""
        if lost is None:
            return await open_tier(self._tier)
        return await reopen_tier(self._tier, lost.tier, lost.lost, ModelNeed())

    def _retire(self) -> Device | None:
        """Set a lost device aside until its last request has ended; return it."""
        place = self._place
        if place is None or not place.device.lost:
            return None
        self._note_peak()
        self._counts = replace(self._counts, devices_lost=self._counts.devices_lost + 1)
        self._place = None
        self._retired.append(place)
        self._queue.retire()
        self._close_retired()
        return place.device

    def _close_retired(self) -> None:
        for place in tuple(self._retired):
            if not any(entry.leases for entry in place.entries):
                self._retired.remove(place)
                _close(place)

    def _release(self, lease: Lease[AnyModel]) -> None:
        self._queue.release(lease)
        entry = lease.entry
        if self._retired:
            self._close_retired()
        resident = self._queue.entries.get(entry.key) is entry
        if resident and not entry.leases and self._is_low and not self._queue.is_wanted(entry.key):
            self._evict(entry)

    @property
    def _is_low(self) -> bool:
        if self.low_memory_mode is not None:
            return self.low_memory_mode
        free = free_nbytes()
        return free is not None and free < LITTLE_NBYTES

    def _make_room(self) -> bool:
        if self._evict_one():
            return True
        self._held_nbytes = self.stats.now_nbytes
        return False

    def _evict_one(self) -> bool:
        """Evict the least recently used idle model; False if there is none."""
        idle = self._queue.idle
        if idle:
            self._evict(idle[0])
        return bool(idle)

    def _evict(self, entry: Entry[AnyModel]) -> None:
        del self._queue.entries[entry.key]
        self._counts = replace(self._counts, evictions=self._counts.evictions + 1)
        if self._place is not None:
            self._place.entries.discard(entry)
        entry.model.close()

    def _fits(self, key: Hashable, in_use: list[Entry[AnyModel]]) -> bool:
        if key not in self._needs:
            return True  # its size is known once its config has been read
        if self.budget_nbytes is None:
            return self._needs[key] < 1 << 62
        reserved = sum(self._needs[entry.key] for entry in in_use)
        return reserved + self._needs[key] <= self.budget_nbytes

    def _refuse(self, key: Hashable) -> BudgetError:
        name = key[0] if isinstance(key, tuple) else key
        reserved = sum(self._needs[entry.key] for entry in self._queue.in_use)
        budget = self.budget_nbytes or reserved
        hint = "Leave the `async with` of one model before asking for the other."
        free = max(0, budget - reserved)
        return BudgetError(str(name), self._needs.get(key, 0), free, budget, hint=hint)

    def _note_peak(self) -> None:
        self._counts = replace(self._counts, peak_nbytes=self.stats.peak_nbytes)

    def _when_closed(self) -> InputError:
        return InputError("use", "an open pool", "one that was closed")

    def _check_loop(self) -> None:
        loop = asyncio.get_running_loop()
        if self._loop is not loop and self._queue.is_busy:
            raise InputError("use", "the event loop that the pool serves", "another one")
        self._loop = loop


def _close(place: _Place) -> None:
    for entry in place.entries:
        entry.model.close()
    place.device.close()
