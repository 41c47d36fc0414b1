"""What backends on the CPU share: no device to lose, tune or free."""

# pyright: reportIncompatibleMethodOverride=false
# Plain attributes implement properties of `Backend`.

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from bascule.backend.base import Backend
from bascule.backend.memory import MemoryBudget, MemoryCount, MemoryUse
from bascule.backend.profile import OpTimes, Profile
from bascule.base.turns import DeviceTurns
from bascule.program.rewrites.rewrite import Limits

if TYPE_CHECKING:
    from bascule.backend.tracing import Tracer
    from bascule.base.arrays import Array
    from bascule.base.entries import Remembered


# The function of a generated module: the array that it writes, those that it reads, numbers. All
# arrays are dense; it gets the numbers and then the addresses as 32-bit words.
Loop = Callable[["Array", Sequence["Array"], Sequence[int]], None]


class Deviceless(Backend):
    """The half of a `Backend` that counts and times."""

    lost: str = ""
    limits: Limits = Limits()
    remembered: Remembered | None = None

    def __init__(self, device_name: str) -> None:
        self.device_name = device_name
        self.turns = DeviceTurns()
        self.count = MemoryCount()
        self.op_times = OpTimes()

    @property
    def memory(self) -> MemoryUse:
        """See `Backend.memory`: weights, states and buffers."""
        return self.count.use

    def mark_memory(self) -> None:
        self.count.mark()

    def limit_memory(self, budget: MemoryBudget | None) -> None:
        """See `Backend.limit_memory`: weights, states and buffers count."""
        self.count.budget = budget

    def trace_with(self, tracer: Tracer | None) -> str:
        """See `Backend.trace_with`: it has no dispatches."""
        del tracer
        return (
            "it has no dispatches or shaders to capture. PerformanceMonitor times its ops, and its "
            'numbers can be held against tier="cpu", the numpy reference itself'
        )

    async def start_profile(self) -> None:
        """See `Backend.start_profile`: each call of an op is timed."""
        self.op_times.start()
        self.count.start_samples()

    async def stop_profile(self) -> Profile:
        return self.op_times.stop(self.count.stop_samples())

    def loop_loader(self) -> Callable[[bytes], Loop] | None:
        """Return the loader of generated WebAssembly functions; None if numpy computes all."""
        return None

    @property
    def loop_elements(self) -> int | None:
        """Elements per call of such a function; None if no array has to be copied for it."""
        return None

    def product(self, x: Array, y: Array) -> Array | None:
        """Compute x (B, M, K) @ y (K, N) or (B, K, N) in float32; None if numpy is as fast."""
        del x, y
        return None
