"""What every loaded model is: weights on a tier, a load that may still run, and a life's end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from bascule.backend.base import Backend, Tier, WeightStore
from bascule.errors import InputError
from bascule.weights.quantised import QuantizationReport


class LoadedModel:
    """`tier` is the tier that runs, `tier_reason` why that one, `device_name` its device, `weights`
    the memory that holds its parameters, `quantization` what quantising did to them, once it is
    done. Close it to free the device's memory.
    """

    def __init__(
        self,
        name: str,
        backend: Backend,
        weights: WeightStore,
        *,
        tier_reason: str,
        owns_backend: bool = True,
        on_close: Callable[[], None] | None = None,
    ) -> None:
        self.name = name
        self.tier: Tier = backend.tier
        self.tier_reason = tier_reason
        self.device_name = backend.device_name
        self.weights = weights
        self.quantization: QuantizationReport | None = None
        self._backend = backend
        self._owns_backend = owns_backend
        self._on_close = on_close
        self._loading: asyncio.Task[None] | None = None
        self._noted: dict[str, float] = {}
        self._closed = False

    def follow(self, loading: Coroutine[Any, Any, None]) -> None:
        """Run what fills the weights; a pass waits for the layers that it needs."""

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

    async def loaded(self) -> None:
        """Until all weights are there; raises what ended the load. Cancelling it ends the load."""
        if self._loading is not None:
            await self._loading

    async def prepare(self) -> None:
        """Make ready, before it is asked for, what a first use needs."""

    def note(self, name: str, number: float) -> None:
        """Add a number that was measured elsewhere to `stats`."""
        self._noted[name] = number

    @property
    def device_stats(self) -> dict[str, float]:
        """Counters of the device and of the load: bytes, objects, milliseconds."""
        gpu: Any = getattr(self._backend, "gpu", None)
        found = {"weights_nbytes": self.weights.nbytes, **self._backend.stats, **self._noted}
        if gpu is not None:
            found |= {
                "gpu_nbytes": gpu.allocated_nbytes,
                "gpu_objects": gpu.n_objects,
                "crossings": gpu.crossings,
            }
        return found

    def close(self) -> None:
        """Free the weights and the device. Closing twice is fine."""
        if self._closed:
            return
        self._closed = True
        self._close_programs()
        if self._loading is not None:
            self._loading.cancel()
        self.weights.close()
        if self._on_close is not None:
            self._on_close()
        if self._owns_backend:
            self._backend.close()

    def _close_programs(self) -> None:
        """Free what the model itself has prepared."""

    def _check_open(self, verb: str) -> None:
        if self._closed:
            raise InputError(verb, "an open model", "one that was closed")
