"""The tier that other tiers are checked against: each op's numpy definition, in float64.

Weights stay as stored, and each call widens those that it reads. Intermediate values and states
(the KV cache) are float64; they are rounded to their own dtype when they leave the device.
"""

from __future__ import annotations

from collections.abc import Sequence

from bascule.backend.base import Executable
from bascule.backend.cpu import ReferenceBackend, ReferenceExecutable, StreamedExecutable, Values
from bascule.backend.host_arrays import ReferenceStates, ReferenceStore
from bascule.backend.memory import MemoryKind
from bascule.backend.streamed_arrays import StreamedReferenceStore
from bascule.backend.tiers import Tier
from bascule.base.arrays import NUMPY, Array, Buffer, np, numpy_ready
from bascule.errors import TierUnavailableError
from bascule.program.program import Call, Program, Sizes, Value


class WideStates(ReferenceStates):
    """A model's states, floats as float64; written and read in their own dtype."""

    def write(self, name: str, offset: int, data: Buffer) -> None:
        numbers = np.frombuffer(data, self._dtype(name))
        start = offset // numbers.itemsize
        self.arrays[name].reshape(-1)[start : start + len(numbers)] = numbers

    async def read(self, name: str, offset: int, into: Buffer) -> None:
        numbers = np.frombuffer(into, self._dtype(name))
        start = offset // numbers.itemsize
        numbers[:] = self.arrays[name].reshape(-1)[start : start + len(numbers)]

    def _dtype(self, name: str) -> str:
        return next(NUMPY[value.dtype] for value in self._values if value.name == name)

    def _zeros(self, value: Value, sizes: Sizes) -> Array:
        return _wide(super()._zeros(value, sizes))


class WideExecutable(ReferenceExecutable):
    """See `ReferenceExecutable`; calls read float64."""

    def _evaluate(self, call: Call, values: Values, sizes: Sizes) -> Array:
        operands = {o.name: values[o.name] for o in call.operands if o is not None}
        wide = {name: _wide(o) if isinstance(o, np.ndarray) else o for name, o in operands.items()}
        return super()._evaluate(call, wide, sizes)


class StreamedWideExecutable(WideExecutable, StreamedExecutable):
    """The same for weights that are read for each run."""


class Float64Backend(ReferenceBackend):
    """The tier "reference"."""

    tier: Tier = "reference"

    def __init__(self) -> None:
        super().__init__()
        self.device_name += ", float64"

    def states(
        self, values: Sequence[Value], sizes: Sizes, *, kind: MemoryKind = "states"
    ) -> ReferenceStates:
        """See `Backend.states`; buffers that programs pass to one another keep their dtype."""
        states = WideStates if kind == "states" else ReferenceStates
        return states(values, sizes, self.count, kind)

    def _executable(
        self, program: Program, weights: ReferenceStore, states: ReferenceStates | None
    ) -> Executable:
        if isinstance(weights, StreamedReferenceStore):
            return StreamedWideExecutable(program, weights, states, self.op_times)
        return WideExecutable(program, weights, states, self.op_times)


async def open_backend(tier: Tier, *, remember: bool, early: bool) -> Float64Backend:
    """See `TierInfo.open`."""
    del remember, early
    if not await numpy_ready():
        raise TierUnavailableError(tier, "numpy is not installed")
    return Float64Backend()


def _wide(array: Array) -> Array:
    """Return the array with floats as float64."""
    return array.astype(np.float64, copy=False) if array.dtype.kind == "f" else array
