"""Base class of loaded models: owns backend and weights, recovers from lost devices, closes."""

from __future__ import annotations

import asyncio
from collections.abc import (
    AsyncGenerator,
    Awaitable,
    Callable,
    Coroutine,
    Generator,
    Sequence,
)
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from typing import Any, Protocol

from bascule.backend.base import DESTROYED, Backend, Tier, WeightStore
from bascule.backend.tuning import TuneReport
from bascule.base.closing import Closing
from bascule.base.progress import ProgressCallback
from bascule.base.turns import CrossLoopLock
from bascule.base.waiting import cancel_from_anywhere
from bascule.errors import (
    DeviceLostError,
    GpuOutOfMemoryError,
    InputError,
    TierUnavailableError,
    WrongResultError,
)
from bascule.models.decoder.graph import CacheDType
from bascule.program.program import Program
from bascule.program.rewrites.registry import LimitFitter
from bascule.program.rewrites.rewrite import AppliedRewrite
from bascule.tasks.proof import Proof, Prover, Sample
from bascule.weights.quantized import QuantizationReport
from bascule.weights.recorded import FilesRead

# Errors after which a model continues on another device; see `LoadedModel.revive`.
DEVICE_ERRORS = (DeviceLostError, WrongResultError)
# The device or the process is out of memory.
NO_MEMORY = (GpuOutOfMemoryError, MemoryError)


# Gets the tier that ran, its passes, each with the share of its largest sizes, and seconds.
SpeedWatch = Callable[[Tier, Sequence[tuple[Program, float]], float], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class ModelRun:
    """A finished call of a model: "embed", "classify" or "generate".

    `n_tokens` were read; a generation returned `n_new_tokens`, the first after `first_token_s`, the
    others within `decode_s`.
    """

    kind: str
    seconds: float
    n_tokens: int
    n_new_tokens: int = 0
    first_token_s: float = 0.0
    decode_s: float = 0.0


_CLOSED = "the model was closed while it worked"
# Pause of a run under critical pressure.
_PAUSE_S = 0.05


class Pressure(Protocol):
    """See `bascule.machine.pressure`."""

    @property
    def state(self) -> str:
        """Return the pressure on the machine."""
        ...

    def close(self) -> None:
        """Stop listening."""
        ...


@dataclass(frozen=True, slots=True)
class ReopenedDevice:
    """A device in place of a lost or rejected one, with the model's weights on it."""

    backend: Backend
    weights: WeightStore
    reason: str
    fitting: LimitFitter


@dataclass(frozen=True, slots=True)
class Placement:
    """Where a model runs: an open tier and the memory for its weights.

    `name` is the model's, `reason` says why that tier. With `owns_backend` the model closes the
    backend; `on_close` is called when the model has closed. `reopen(model)` returns another device
    if this one is lost or gives wrong results (then it is among the model's `wrong_tiers`).
    `prover` proves the answers on any of them, `watch` compares runs with the predictions for the
    tier.
    """

    name: str
    backend: Backend
    weights: WeightStore
    reason: str
    fitting: LimitFitter
    owns_backend: bool
    on_close: Callable[[], None]
    reopen: Callable[[Any], Awaitable[ReopenedDevice]]
    prover: Prover | None = None
    watch: SpeedWatch | None = None


class LoadedModel(Closing):
    """Base class of loaded models.

    `tier` is the tier that runs, `tier_reason` why that one, `device_name` its device, `weights`
    the memory of its parameters, `quantization` the report of quantizing them, once it is done;
    `proof` says how its answers were proven, and what was rejected; `fallbacks` are the rewrites
    that keep its programs within the device's limits. Close it to free the device's memory.
    """

    def __init__(self, placement: Placement) -> None:
        backend = placement.backend
        self.name = placement.name
        self.tier: Tier = backend.tier
        self._fit_to(placement.fitting, placement.reason)
        self.device_name = backend.device_name
        self.weights = placement.weights
        self.quantization: QuantizationReport | None = None
        self.proof = Proof()
        self.files: FilesRead | None = None  # which the load asked for, once it has ended
        self.wrong_tiers: dict[Tier, str] = {}  # those rejected for wrong numbers, and why
        self._backend = backend
        self._owns_backend = placement.owns_backend
        self._on_close = placement.on_close
        self._loading: asyncio.Task[None] | None = None
        self._reopen = placement.reopen
        self._reviving = CrossLoopLock()
        # Stays the same on another device, so that models that shared one still take turns.
        self._device = backend.turns
        self._cache_dtype: CacheDType = "f32"  # of its KV caches
        self._revivals = 0
        self._prover = placement.prover
        self._watch = placement.watch
        self._noted: dict[str, float] = {}
        self._closed = False
        self._pressure: Pressure | None = None
        self._yields = 0
        self._listeners: list[Callable[[ModelRun], None]] = []

    def __repr__(self) -> str:
        state = ", closed" if self._closed else ""
        return (
            f"<{type(self).__name__} {self.name!r} on {self.tier} ({self.device_name}), "
            f"{self.weights.nbytes:,} bytes of weights{state}>"
        )

    def _start_loading(self, loading: Coroutine[Any, Any, None]) -> None:
        """Start the task that fills the weights; a pass waits for the layers that it needs."""

        def ended(task: asyncio.Task[None]) -> None:
            arrivals = self.weights.arrivals
            if task.cancelled():
                error: BaseException | None = asyncio.CancelledError()
            else:
                error = task.exception()
            if arrivals is not None and error is not None:
                arrivals.fail(error)

        self._loading = asyncio.ensure_future(loading)
        self._loading.add_done_callback(ended)

    @property
    def backend(self) -> Backend:
        """The backend that runs it now."""
        return self._backend

    @property
    def lost(self) -> str:
        """Why the device was lost; empty while it is usable. The next work opens another one."""
        return self._backend.lost

    async def prove(self) -> None:
        """Prove the answers on this device; WrongResultError if they are wrong."""
        async with self._alone():
            await self._prove()

    @asynccontextmanager
    async def _alone(self) -> AsyncGenerator[None]:
        """Hold the device for work beside which no other work of this model may run."""
        async with self._device.turn():
            yield

    async def _prove(self) -> None:
        if self._prover is not None:
            await self._prover.check(self)

    def _note_steps(self, steps: Sequence[str]) -> None:
        """Add what was rejected for wrong numbers to the report."""
        fresh = [step for step in steps if step not in self.proof.steps]
        self.proof = replace(self.proof, steps=(*self.proof.steps, *fresh))
        self.tier_reason = "; ".join([self.tier_reason, *fresh])

    async def revive(self, lost: DeviceLostError | WrongResultError, on: Backend) -> None:
        """Recover work that has failed `on` a backend: replace a lost device and load the weights
        again; for wrong results fall back from a float16 cache to float32, then to another tier.

        Raises `lost` if the device was closed on purpose, or the model is closed.
        """
        async with self._reviving.turn():
            if self._closed or self._backend.lost == DESTROYED:
                raise lost
            if on is not self._backend:
                return  # another task has replaced this device already
            if isinstance(lost, DeviceLostError):
                await self._replace_device(lost)
            elif self.has_f16_cache or not lost.f16_cache:
                await self._demote(lost)

    async def _demote(self, wrong: WrongResultError) -> None:
        """Fall back from a float16 cache, then from the tier, until the answers are right."""
        while True:
            if not (wrong.f16_cache and self._without_f16_cache(wrong.found)):
                await self._demote_tier(wrong)
            try:
                await self._prepare()
                await self._prove()
                return
            except WrongResultError as other:
                wrong = other

    async def _demote_tier(self, wrong: WrongResultError) -> None:
        tier, why = self.tier, f"{wrong.where} is wrong ({wrong.found})"
        self.wrong_tiers[tier] = why
        try:
            await self._replace_device(wrong)
        except TierUnavailableError as none:
            raise wrong if self._prover is None else self._prover.verdict(wrong, none) from none
        # The reason of the other tier contains it already.
        self.proof = replace(self.proof, steps=(*self.proof.steps, f"{tier} was rejected: {why}"))

    async def _replace_device(self, why: DeviceLostError | WrongResultError) -> None:
        reopened = await self._reopen(self)
        if self._closed:
            reopened.weights.close()
            reopened.backend.close()
            raise why
        self._release()
        self._move(reopened)

    @property
    def has_f16_cache(self) -> bool:
        """Whether its KV caches are float16, and may be float32."""
        return self._cache_dtype == "f16"

    def _without_f16_cache(self, why: str) -> bool:
        """Allocate float16 KV caches as float32 from now on; return whether it had any."""
        if not self.has_f16_cache:
            return False
        self._close_programs()
        self._cache_dtype = "f32"
        self._allocate_early()
        self._note_steps([f"a float16 KV cache was replaced by a float32 one: {why}"])
        return True

    def _allocate_early(self) -> None:
        """Allocate a cache and programs on the backend, unless first use does."""

    def _prepare_anew(self) -> None:
        """Choose kernels again for what is already prepared."""
        self._close_programs()

    async def tune(
        self, budget_s: float = 30.0, *, progress: ProgressCallback | None = None
    ) -> TuneReport:
        """Measure on this device which kernels are fastest for this model, and use them from now
        on.

        The measurements are remembered for the next load. Cancelling keeps what is finished.
        """
        self._check_open("tune")
        async with self._alone():
            with self._while_open():
                programs = self._tunable()
                try:
                    report = await self._backend.tune(
                        programs, budget_s=budget_s, progress=progress
                    )
                finally:
                    self._prepare_anew()
                await self._backend.warm(programs, self.name)
        return report

    def _tunable(self) -> list[Program]:
        """Return the passes that `tune` measures, the most important first."""
        raise NotImplementedError

    def _holds(self, n_tokens: int) -> bool:
        """Whether a stored sample of that many tokens, and one more, fits."""
        del n_tokens
        return False

    def _sample_programs(self, sample: Sample) -> list[Program]:
        """Return the passes that `answer` runs; none without samples."""
        del sample
        return []

    async def _answer(self, sample: Sample) -> Sequence[float]:
        """Return the model's numbers for a sample's ids, as many as the sample has."""
        raise NotImplementedError

    def _move(self, reopened: ReopenedDevice) -> None:
        backend = reopened.backend
        self._backend, self.weights, self._loading = backend, reopened.weights, None
        self._owns_backend = True
        self.tier, self.device_name = backend.tier, backend.device_name
        self._fit_to(reopened.fitting, reopened.reason)
        self._revivals += 1

    @property
    def fallbacks(self) -> tuple[AppliedRewrite, ...]:
        """See `LoadedModel`; empty if the device holds everything unchanged."""
        return self._fitting.applied

    def _fit_to(self, fitting: LimitFitter, reason: str) -> None:
        self._fitting = fitting
        self.tier_reason = f"{reason}; {fitting.text}" if fitting.text else reason

    async def loaded(self) -> None:
        """Wait until all weights are loaded and the answers proven; raises the error that ended the
        load.

        Cancelling it cancels the load.
        """
        if self._loading is None:
            return
        backend = self._backend
        try:
            if self._loading.get_loop() is asyncio.get_running_loop():
                await self._loading
            else:  # a load holds the device until the weights are there
                async with self._alone():
                    self._loading.result()
        except WrongResultError as wrong:
            async with self._alone():
                await self.revive(wrong, backend)

    async def prepare(self) -> None:
        """Prepare what a first use needs."""
        async with self._device.turn():
            await self._prepare()

    async def _prepare(self) -> None:
        """See `prepare`; the caller holds the device."""

    def yield_to(self, pressure: Pressure | None) -> None:
        """Slow down while `pressure` is "critical": a pause before each run, one run at a time.

        The model closes it. `stats` counts the pauses as `pressure_yields`. In a page a model does
        so by default; elsewhere `bascule.open_pressure` gives what to yield to.
        """
        if self._pressure is not None:
            self._pressure.close()
        self._pressure = pressure

    async def _pause_under_pressure(self) -> bool:
        """Pause if the machine is under critical pressure; return whether it is."""
        if self._pressure is None or self._pressure.state != "critical":
            return False
        self._yields += 1
        await asyncio.sleep(_PAUSE_S)
        return True

    def trim(self) -> int:
        """Free what can be made again: idle programs, memory that the device caches, the text in a
        cache.

        Returns the bytes freed: 0 if another thread uses the device, since they are freed once it
        is done.
        """
        self._check_open("trim")
        freed = 0

        def free() -> None:
            nonlocal freed
            before = self._held_nbytes
            if not (self.lost or self._closed):
                self._trim_programs()
                self._backend.trim()
                freed = before - self._held_nbytes

        self._device.when_free(free)
        return freed

    @property
    def _held_nbytes(self) -> int:
        if self._backend.adapter is None:  # its `memory` counts no intermediate values
            return self._planned_nbytes
        return self._backend.memory.now_nbytes

    @property
    def _planned_nbytes(self) -> int:
        """Bytes of intermediate values of prepared programs."""
        return 0

    def _trim_programs(self) -> None:
        """Free programs that are not running."""

    def _listen(self, listener: Callable[[ModelRun], None]) -> Callable[[], None]:
        """Call `listener` after each run; calling the result stops that."""
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    def _notify(self, run: ModelRun) -> None:
        for listener in tuple(self._listeners):
            listener(run)

    def note(self, name: str, number: float) -> None:
        """Add a number that was measured elsewhere to `stats`."""
        self._noted[name] = number

    @property
    def device_stats(self) -> dict[str, float]:
        """Counters of the device and of the load: bytes, objects, milliseconds."""
        results = {"weights_nbytes": self.weights.nbytes, "revivals": self._revivals}
        results["fallbacks"] = len(self.fallbacks)
        results["pressure_yields"] = self._yields
        return results | {**self._backend.stats, **self._noted}

    def close(self) -> None:
        """Free the weights and the device, once no other thread uses it. Closing twice is fine.

        Work in progress ends with a DeviceLostError.
        """
        if self._closed:
            return
        self._closed = True
        self.yield_to(None)
        if self._loading is not None:
            cancel_from_anywhere(self._loading)
        self._device.when_free(self._end)

    def _end(self) -> None:
        self._release()
        self._on_close()

    def _release(self) -> None:
        """Free everything on the device, and the device if the model owns it."""
        self._close_programs()
        if self._loading is not None:
            cancel_from_anywhere(self._loading)
        self.weights.close()
        if self._owns_backend:
            self._backend.close()

    def _close_programs(self) -> None:
        """Free what the model itself has prepared."""

    def _check_open(self, verb: str) -> None:
        if self._closed:
            raise InputError(verb, "an open model", "one that was closed")

    @contextmanager
    def _while_open(self) -> Generator[None]:
        """Replace any error by DeviceLostError if the model was closed meanwhile."""
        try:
            if self._closed:
                raise DeviceLostError(_CLOSED)
            yield
        except Exception as error:
            if self._closed:
                raise DeviceLostError(_CLOSED) from error
            raise
