"""Waist 1: what a backend offers. Above it nothing knows shaders, graphs or numpy loops."""

from __future__ import annotations

from collections.abc import Awaitable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

from bascule.backend.memory import MemoryBudget, MemoryKind, MemoryUse, PassBytes
from bascule.backend.tiers import TIERS as TIERS
from bascule.backend.tiers import Tier as Tier
from bascule.backend.tuning import TuneReport
from bascule.base.arrays import NUMPY, Array, Buffer, np
from bascule.errors import InputError
from bascule.program.program import Parameter, Program, Sizes, Value
from bascule.program.rewrites.rewrite import Limits

if TYPE_CHECKING:
    from bascule.backend.adapter import AdapterInfo
    from bascule.backend.arrivals import Arrivals
    from bascule.backend.profile import Profile, ShaderLog
    from bascule.backend.streaming import Streaming
    from bascule.backend.tracing import Tracer
    from bascule.base.entries import Remembered
    from bascule.base.progress import ProgressCallback
    from bascule.base.turns import DeviceTurns

# `lost` reason after an intentional close; never recovered.
DESTROYED = "destroyed by the program"


# An input: a numpy array, or a memoryview that has its shape and dtype, which needs no numpy.
Shaped = Array | memoryview
Inputs = Mapping[str, Shaped]  # by name
# The formats of memoryviews, by a value's dtype.
FORMATS: dict[str, Literal["f", "I"]] = {"f32": "f", "u32": "I"}


def checked_input(value: Value, sizes: Sizes, inputs: Inputs) -> Shaped:
    """The input of that name; InputError if it is missing or not shaped for this run."""
    shape = value.sizes(sizes)
    array = inputs.get(value.name)
    if array is None or array.shape != shape:
        result = "nothing" if array is None else str(array.shape)
        raise InputError(f"input {value.name!r}", f"shape {shape}", result)
    return array


def check_names(program: Program) -> None:
    """InputError where an input, a state and a parameter of a program share a name.

    Backends find values by their names: one of the two would silently stand for the other.
    """
    kinds: dict[str, str] = {}
    for kind, values in (
        ("a state", program.states),
        ("a parameter", program.parameters),
        ("an input", program.inputs),
    ):
        for value in values:
            other = kinds.setdefault(value.name, kind)
            if other != kind:
                result = f"{value.name!r} as {other} and as {kind}"
                where = f"program {program.name!r}"
                raise InputError(where, "states, parameters and inputs of different names", result)


def input_bytes(value: Value, sizes: Sizes, inputs: Inputs) -> memoryview:
    """The input of that name as dense bytes of the value's dtype; errors as `checked_input`."""
    array = checked_input(value, sizes, inputs)
    if isinstance(array, memoryview) and array.c_contiguous:
        if array.format != FORMATS[value.dtype]:
            result = f"a memoryview of format {array.format!r}"
            raise InputError(f"input {value.name!r}", value.dtype, result)
        return array.cast("B")
    return memoryview(np.ascontiguousarray(array, NUMPY[value.dtype])).cast("B")


def shaped(memory: Buffer, dtype: str, shape: Sequence[int]) -> memoryview[Any]:
    """Memory as a memoryview of that dtype ("f32" or "u32") and shape, no axis of which is empty.

    `np.asarray` of it is a view.
    """
    return memoryview(memory).cast("B").cast(FORMATS[dtype], tuple(shape))


async def _at_once() -> None:
    """Wait for nothing."""


class WeightStore(Protocol):
    """Memory for a model's parameters, written once while the weights stream in.

    `targets` maps each parameter's name to the integer that `write` takes. On a WebGPU tier the
    integers are buffer handles; `page_bridge` is then the page's bridge object, so that JavaScript
    may write the network's bytes straight into those buffers, and None everywhere else. `arrivals`
    has the parameters that have arrived while a load runs; None where all have. `streaming` reads
    the weights again for each pass; None where they stay, as all but those of
    `Backend.streamed_store` do.
    """

    arrivals: Arrivals | None

    @property
    def streaming(self) -> Streaming | None:
        """See above."""
        ...

    @property
    def targets(self) -> Mapping[str, int]:
        """Parameter name to target."""
        ...

    @property
    def page_bridge(self) -> Any | None:
        """See above."""
        ...

    @property
    def nbytes(self) -> int:
        """Bytes of all parameters."""
        ...

    def write(self, target: int, offset: int, data: Buffer) -> None:
        """Copy `data` to byte `offset` of a target; both are multiples of 4."""
        ...

    def close(self) -> None:
        """Free the memory."""
        ...


@dataclass(frozen=True, slots=True)
class Sums:
    """What quantizing did; `n_unfit` numbers are not finite, or no block can hold them."""

    squared_error: float = 0.0
    squares: float = 0.0
    n_unfit: int = 0
    max_error: float = 0.0

    @property
    def relative_error(self) -> float:
        """Root mean square of the error over that of the numbers; 0 where all are 0."""
        return (self.squared_error / self.squares) ** 0.5 if self.squares else 0.0

    def __add__(self, other: Sums) -> Sums:
        return Sums(
            self.squared_error + other.squared_error,
            self.squares + other.squares,
            self.n_unfit + other.n_unfit,
            max(self.max_error, other.max_error),
        )


class Quantizer(WeightStore, Protocol):
    """Makes blocks of a store's weights out of floats that pass through its staging buffer.

    It takes writes for the staging buffer, a target of its own, as well as those for the store's
    targets. `nbytes` counts the staging buffer and the like; `close` frees them, but not the store.
    """

    staging: int

    def quantize(self, name: str, first: int, offset: int, count: int) -> None:
        """Queue: the floats from byte `offset` of the staging buffer on, a multiple of 256, become
        blocks `first` to `first + count - 1` of a parameter. Later writes change nothing.
        """
        ...

    async def read(self, name: str, offset: int, into: Buffer) -> None:
        """Fill `into` with a parameter's blocks from byte `offset` on, a multiple of 4."""
        ...

    async def sums(self) -> Mapping[str, Sums]:
        """What quantizing has done to each parameter so far."""
        ...


class StateStore(Protocol):
    """Tensors that outlive a run, by name; all zero at first."""

    @property
    def nbytes(self) -> int:
        """Bytes of all of them as they are now."""
        ...

    def write(self, name: str, offset: int, data: Buffer) -> None:
        """Queue a copy of `data` to byte `offset`; both are multiples of 4."""
        ...

    def read(self, name: str, offset: int, into: Buffer) -> Awaitable[None]:
        """Fill `into` from byte `offset` on, as it is after all work queued so far."""
        ...

    async def resize(self, sizes: Sizes) -> None:
        """Take other sizes for their Dims; the first rows of each keep what they hold."""
        ...

    def close(self) -> None:
        """Free the memory."""
        ...


class Executable(Protocol):
    """A program made ready for one backend.

    `host_s` sums the seconds that Python itself has worked in `run`, waiting left out.
    """

    @property
    def host_s(self) -> float:
        """See above."""
        ...

    async def run(
        self, sizes: Sizes, inputs: Inputs, into: Sequence[Buffer] | None = None
    ) -> dict[str, Array]:
        """Run once; the outputs as numpy arrays.

        `sizes` gives each Dim its actual size, at most its limit. With `into`, writable memory for
        each output in order, they are written there and the result is empty: that needs no numpy.
        """
        ...

    def queued(self, sizes: Sizes, inputs: Inputs) -> Awaitable[dict[str, Array]] | None:
        """Queue a run and the reads of its outputs, which the result waits for; `run` in two steps.

        What is written after this call, the run does not see. It must be waited for. None where
        nothing was queued: by a backend without a queue, or for now.
        """
        ...

    async def submit(self, sizes: Sizes, inputs: Inputs, times: int = 1) -> None:
        """Run `times` times without reading anything: what it leaves is in the states.

        A backend with a device only queues the work. Waits for weights that are still to come.
        """
        ...

    def close(self) -> None:
        """Free what `prepare` took; the weights stay."""
        ...


class Computation(Protocol):
    """A program made ready to run on tensors that lie in its backend's memory, and stay there.

    Each operand and each result is a `StateStore` of one tensor.
    """

    async def run(
        self, operands: Mapping[str, StateStore], results: Mapping[str, StateStore]
    ) -> None:
        """Run once, on operands and results by the names of the program's inputs and outputs.

        A backend with a device only queues the work. No result may be an operand.
        """
        ...

    def close(self) -> None:
        """Free what `computation` took; operands and results stay."""
        ...


class Backend(Protocol):
    """Runs programs on one tier; the methods with a body do for tiers without a device.

    `device_name` is for people; `turns` lets one event loop at a time work on it.
    """

    tier: Tier
    device_name: str
    turns: DeviceTurns

    @property
    def lost(self) -> str:
        """Why the device can no longer be used; empty while it can."""
        return ""

    @property
    def limits(self) -> Limits:
        """What programs have to keep within here."""
        return Limits()

    @property
    def adapter(self) -> AdapterInfo | None:
        """What the driver says of its adapter; None on a tier without one."""
        return None

    @property
    def memory(self) -> MemoryUse:
        """Bytes that it holds; on a tier without a device no intermediate values are counted."""
        ...

    def mark_memory(self) -> None:
        """Count `memory.marked_peak_nbytes` from now on."""
        ...

    def pass_nbytes(self, program: Program) -> PassBytes:
        """Return what a program will hold; all 0 on a tier without a device."""
        return PassBytes()

    def limit_memory(self, budget: MemoryBudget | None) -> None:
        """Hold what fits `budget` from now on, in place of the budget before; None: no limit.

        What `memory` counts counts. Past it work raises one of `tasks.loaded.NO_MEMORY`, once what
        is only kept for the next time and what the budget's `make_room` frees are gone.
        """
        ...

    @property
    def remembered(self) -> Remembered | None:
        """Where what is learned of its device is stored; None on a tier that learns nothing."""
        return None

    @property
    def wrong_kernels(self) -> Sequence[str]:
        """The kernels that have given wrong numbers on this device, by name."""
        return ()

    def prove_kernels(self) -> None:
        """From now on use no kernel whose results were not correct on this machine."""

    def rejected(self, programs: Iterable[Program]) -> list[str]:
        """Which default kernels of these programs do not serve, and why; what has had no proof."""
        return []

    async def recheck(self, programs: Iterable[Program]) -> bool:
        """Prove the kernels of these programs at their full sizes; whether one was rejected."""
        return False

    def fingerprint(self, programs: Iterable[Program]) -> str:
        """Changes with the kernels that serve these programs; empty where there is no choice."""
        return ""

    async def simplified(self, program: Program) -> list[str]:
        """Why calls of a prepared program run on simpler kernels, a reason for each call."""
        return []

    async def tune(
        self,
        programs: Iterable[Program],
        *,
        budget_s: float,
        progress: ProgressCallback | None = None,
    ) -> TuneReport:
        """Measure which way of running these programs is fastest here, and take it from now on.

        What is prepared already stays as it is. A backend without a choice reports nothing.
        """
        return TuneReport()

    @property
    def stats(self) -> Mapping[str, float]:
        """Counters of the backend's own."""
        return {}

    def log_shaders(self) -> None:
        """From now on keep a `shader_logs` entry for each compilation."""

    @property
    def shader_logs(self) -> Sequence[ShaderLog]:
        """The compilations since `log_shaders`; none on a tier without shaders."""
        return ()

    def trace_with(self, tracer: Tracer | None) -> str:
        """Trace the next passes with it, None: no more; why this tier cannot, empty if it can.

        InputError where another tracer is at work.
        """
        ...

    async def start_profile(self) -> None:
        """Measure, from now on, each dispatch or call of an op; one that runs is begun anew."""
        ...

    async def stop_profile(self) -> Profile:
        """End the measuring; waits for all work queued so far. InputError where none runs."""
        ...

    def store(self, parameters: Sequence[Parameter]) -> WeightStore:
        """Take memory for `parameters`."""
        ...

    def streamed_store(self, parameters: Sequence[Parameter], slot_nbytes: int) -> WeightStore:
        """Take memory for stages of `parameters`, `slot_nbytes` each, and for computed ones.

        TierUnavailableError on a tier that needs all weights at once.
        """
        ...

    async def quantizer(
        self,
        store: WeightStore,
        parameters: Sequence[Parameter],
        *,
        staging_nbytes: int,
        most_blocks: int,
    ) -> Quantizer:
        """Take memory to quantize these of a store's parameters, at most so many blocks at once."""
        ...

    def states(
        self, values: Sequence[Value], sizes: Sizes, *, kind: MemoryKind = "states"
    ) -> StateStore:
        """Take memory for states; `sizes` gives each of their Dims its size for now.

        `memory` counts it under its `kind`.
        """
        ...

    async def computation(self, program: Program) -> Computation:
        """Make a program without parameters, states and Dims ready for tensors that stay here."""
        ...

    async def prepare(
        self, program: Program, weights: WeightStore, states: StateStore | None = None
    ) -> Executable:
        """Make a program ready to run. The only slow step (pipelines compile here).

        InputError where its inputs, states and parameters share a name (`check_names`).
        """
        ...

    def done(self) -> Awaitable[None]:
        """Wait for all work queued before this call; a tier without a queue has done it.

        DeviceLostError where the device was lost meanwhile, GpuError for what it has refused.
        """
        return _at_once()

    async def warm(self, programs: Iterable[Program], name: str = "") -> int:
        """Compile what these programs will need; returns how many pipelines stand ready.

        With a model's `name` a backend may remember them for the next visit.
        """
        return 0

    def trim(self) -> int:
        """Free memory that is only reserved for the next time; returns the device's bytes."""
        return 0

    def close(self) -> None:
        """Free everything, the device included."""
