"""What backends that compute on the CPU have in common: no device to lose, to tune or to free."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from bascule.backend.memory import MemoryBudget, MemoryCount, MemoryUse, PassBytes
from bascule.backend.profile import OpTimes, Profile
from bascule.backend.tuning import TuneReport
from bascule.base.turns import DeviceTurns
from bascule.program.rewrites.rewrite import Limits

if TYPE_CHECKING:
    from bascule.backend.tracing import Tracer
    from bascule.base.arrays import Array
    from bascule.base.progress import ProgressCallback
    from bascule.program.program import Program


class Deviceless:
    """Half of a `Backend`."""

    lost = ""
    limits = Limits()
    adapter = None
    remembered = None
    wrong_kernels = ()
    shader_logs = ()

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
        """See `Backend.mark_memory`."""
        self.count.mark()

    def pass_nbytes(self, program: Program) -> PassBytes:
        """See `Backend.pass_nbytes`."""
        del program
        return PassBytes()

    def limit_memory(self, budget: MemoryBudget | None) -> None:
        """See `Backend.limit_memory`: weights, states and buffers count."""
        self.count.budget = budget

    @property
    def stats(self) -> Mapping[str, float]:
        """See `Backend.stats`: it counts nothing."""
        return {}

    def log_shaders(self) -> None:
        """See `Backend.log_shaders`: there are none."""

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
        """See `Backend.stop_profile`."""
        return self.op_times.stop(self.count.stop_samples())

    async def tune(
        self,
        programs: Iterable[Program],
        *,
        budget_s: float,
        progress: ProgressCallback | None = None,
    ) -> TuneReport:
        """See `Backend.tune`: there is one way only."""
        del programs, budget_s, progress
        return TuneReport()

    async def warm(self, programs: Iterable[Program], name: str = "") -> int:
        """See `Backend.warm`: there is nothing to compile."""
        return 0

    def prove_kernels(self) -> None:
        """See `Backend.prove_kernels`: numpy and C are what others are proven by."""

    def rejected(self, programs: Iterable[Program]) -> list[str]:
        """See `Backend.rejected`: there is no other kernel."""
        return []

    async def recheck(self, programs: Iterable[Program]) -> bool:
        """See `Backend.recheck`."""
        return False

    def fingerprint(self, programs: Iterable[Program]) -> str:
        """See `Backend.fingerprint`."""
        return ""

    async def simplified(self, program: Program) -> list[str]:
        """See `Backend.simplified`."""
        return []

    def product(self, x: Array, y: Array) -> Array | None:
        """x (B, M, K) @ y (K, N) or (B, K, N) in float32; None where numpy is as fast."""
        del x, y
        return None

    def trim(self) -> int:
        """See `Backend.trim`: it keeps nothing."""
        return 0

    def close(self) -> None:
        """See `Backend.close`."""
