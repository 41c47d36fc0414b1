"""Waist 1: the interface of a backend. Above it there are no shaders, graphs or numpy loops."""

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


# An input: a numpy array, or a memoryview with its shape and dtype, which needs no numpy.
Shaped = Array | memoryview
Inputs = Mapping[str, Shaped]  # by name
# memoryview formats by a value's dtype.
FORMATS: dict[str, Literal["f", "I"]] = {"f32": "f", "u32": "I"}


def checked_input(value: Value, sizes: Sizes, inputs: Inputs) -> Shaped:
    """Return the input of that name; InputError if it is missing, or misshapen."""
    shape = value.sizes(sizes)
    array = inputs.get(value.name)
    if array is None or array.shape != shape:
        result = "nothing" if array is None else str(array.shape)
        raise InputError(f"input {value.name!r}", f"shape {shape}", result)
    return array


def check_names(program: Program) -> None:
    """InputError if an input, a state and a parameter of a program share a name.

    Backends find values by name, so one of them would silently replace the other.
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
    """Return the input of that name as dense bytes of its dtype; errors as `checked_input`."""
    array = checked_input(value, sizes, inputs)
    if isinstance(array, memoryview) and array.c_contiguous:
        if array.format != FORMATS[value.dtype]:
            result = f"a memoryview of format {array.format!r}"
            raise InputError(f"input {value.name!r}", value.dtype, result)
        return array.cast("B")
    return memoryview(np.ascontiguousarray(array, NUMPY[value.dtype])).cast("B")


def shaped(memory: Buffer, dtype: str, shape: Sequence[int]) -> memoryview[Any]:
    """View memory as a memoryview of that dtype ("f32" or "u32") and shape, with no empty axis.

    `np.asarray` of it is a view.
    """
    return memoryview(memory).cast("B").cast(FORMATS[dtype], tuple(shape))


async def _at_once() -> None:
    """Wait for nothing."""


class WeightStore(Protocol):
    """Memory for a model's parameters, written once while the weights stream in.

    `targets` maps each parameter's name to the integer that `write` takes. On a WebGPU tier these
    are buffer handles, and `page_bridge` is the page's bridge object, so that JavaScript can write
    the network's bytes straight into the buffers; elsewhere it is None. `arrivals` has the
    parameters that have arrived during a load; None once all have. `streaming` reads the weights
    again for each pass; None unless the store comes from `Backend.streamed_store`.
    """

    arrivals: Arrivals | None

    @property
    def streaming(self) -> Streaming | None:
        """See `WeightStore`."""
        ...

    @property
    def targets(self) -> Mapping[str, int]:
        """Parameter name to target."""
        ...

    @property
    def page_bridge(self) -> Any | None:
        """See `WeightStore`."""
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
class ErrorSums:
    """The errors of quantizing; `n_unfit` numbers are not finite, or fit no block."""

    squared_error: float = 0.0
    squares: float = 0.0
    n_unfit: int = 0
    max_error: float = 0.0

    @property
    def relative_error(self) -> float:
        """RMS error over the RMS of the numbers; 0 if all are 0."""
        return (self.squared_error / self.squares) ** 0.5 if self.squares else 0.0

    def __add__(self, other: ErrorSums) -> ErrorSums:
        return ErrorSums(
            self.squared_error + other.squared_error,
            self.squares + other.squares,
            self.n_unfit + other.n_unfit,
            max(self.max_error, other.max_error),
        )


class Quantizer(WeightStore, Protocol):
    """Quantizes weights of a store as they stream in, through a staging buffer.

    The staging buffer is a target of its own, which `write` takes like those of the store. `nbytes`
    counts the staging buffer and other scratch memory; `close` frees them, but not the store.
    """

    staging: int

    def quantize(self, name: str, first: int, offset: int, count: int) -> None:
        """Queue: quantize the floats from byte `offset` of the staging buffer, a multiple of 256,
        to blocks `first` to `first + count - 1` of a parameter. Later writes do not affect it.
        """
        ...

    async def read(self, name: str, offset: int, into: Buffer) -> None:
        """Fill `into` with a parameter's blocks from byte `offset`, a multiple of 4."""
        ...

    async def sums(self) -> Mapping[str, ErrorSums]:
        """Return the errors of each parameter so far."""
        ...


class StateStore(Protocol):
    """Tensors that outlive a run, by name; initially zero."""

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors at their current sizes."""
        ...

    def write(self, name: str, offset: int, data: Buffer) -> None:
        """Queue a copy of `data` to byte `offset`; both are multiples of 4."""
        ...

    def read(self, name: str, offset: int, into: Buffer) -> Awaitable[None]:
        """Fill `into` from byte `offset`, after all work queued so far."""
        ...

    async def resize(self, sizes: Sizes) -> None:
        """Change the sizes of its Dims; the first rows of each tensor keep their contents."""
        ...

    def close(self) -> None:
        """Free the memory."""
        ...


class Executable(Protocol):
    """A program that is ready to run on one backend.

    `host_s` is the CPU time that Python has spent in `run`, in seconds, without waiting.
    """

    @property
    def host_s(self) -> float:
        """See `Executable`."""
        ...

    async def run(
        self, sizes: Sizes, inputs: Inputs, into: Sequence[Buffer] | None = None
    ) -> dict[str, Array]:
        """Run once; return the outputs as numpy arrays.

        `sizes` gives each Dim its actual size, at most its limit. With `into`, writable memory for
        each output in order, the outputs are written there and the result is empty: that needs no
        numpy.
        """
        ...

    def queued(self, sizes: Sizes, inputs: Inputs) -> Awaitable[dict[str, Array]] | None:
        """Queue a run and the reads of its outputs, and return an awaitable of them: `run` in two
        steps.

        The run does not see writes after this call. The awaitable must be awaited. None if nothing
        was queued: the backend has no queue, or cannot use it now.
        """
        ...

    async def submit(self, sizes: Sizes, inputs: Inputs, times: int = 1) -> None:
        """Run `times` times without reading anything: the results are in the states.

        A backend with a device only queues the work. Waits for weights that are still missing.
        """
        ...

    def close(self) -> None:
        """Free everything but the weights."""
        ...


class Computation(Protocol):
    """A program that is ready to run on tensors in its backend's memory, without copying them.

    Each operand and result is a `StateStore` of one tensor.
    """

    async def run(
        self, operands: Mapping[str, StateStore], results: Mapping[str, StateStore]
    ) -> None:
        """Run once, with operands and results by the names of the program's inputs and outputs.

        A backend with a device only queues the work. A result must not be an operand.
        """
        ...

    def close(self) -> None:
        """Free everything but operands and results."""
        ...


class Backend(Protocol):
    """Runs programs on one tier; methods with a body are the defaults of tiers without a device.

    `device_name` is for people; `turns` lets one event loop at a time use the device.
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
        """The limits that programs must keep."""
        return Limits()

    @property
    def adapter(self) -> AdapterInfo | None:
        """The adapter; None on a tier without one."""
        return None

    @property
    def memory(self) -> MemoryUse:
        """Bytes that it holds; a tier without a device does not count intermediate values."""
        ...

    def mark_memory(self) -> None:
        """Start counting `memory.marked_peak_nbytes`."""
        ...

    def pass_nbytes(self, program: Program) -> PassBytes:
        """Return the bytes that a program will hold; all 0 on a tier without a device."""
        return PassBytes()

    def limit_memory(self, budget: MemoryBudget | None) -> None:
        """Limit the memory that it holds, replacing an earlier budget; None: no limit.

        Everything in `memory` counts. An allocation past the budget raises one of
        `tasks.loaded.NO_MEMORY`, after caches and what the budget's `make_room` offers have been
        freed.
        """
        ...

    @property
    def remembered(self) -> Remembered | None:
        """The store of what is learned about its device; None on a tier that learns nothing."""
        return None

    @property
    def wrong_kernels(self) -> Sequence[str]:
        """The names of the kernels that gave wrong numbers on this device."""
        return ()

    def prove_kernels(self) -> None:
        """From now on use only kernels whose results are correct on this machine."""

    def rejected(self, programs: Iterable[Program]) -> list[str]:
        """Return which default kernels of these programs are rejected or unproven, and why."""
        return []

    async def recheck(self, programs: Iterable[Program]) -> bool:
        """Prove the kernels of these programs at full size; return whether one was rejected."""
        return False

    def fingerprint(self, programs: Iterable[Program]) -> str:
        """Return a text that changes with the kernels of these programs; empty without a choice."""
        return ""

    async def simplified(self, program: Program) -> list[str]:
        """Return the reason for each call of a prepared program that uses a simpler kernel."""
        return []

    async def tune(
        self,
        programs: Iterable[Program],
        *,
        budget_s: float,
        progress: ProgressCallback | None = None,
    ) -> TuneReport:
        """Measure the variants of these programs' kernels, and use the fastest from now on.

        What is already prepared does not change. A backend without variants returns an empty
        report.
        """
        return TuneReport()

    @property
    def stats(self) -> Mapping[str, float]:
        """The backend's counters."""
        return {}

    def log_shaders(self) -> None:
        """Start recording each compilation in `shader_logs`."""

    @property
    def shader_logs(self) -> Sequence[ShaderLog]:
        """The compilations since `log_shaders`; empty on a tier without shaders."""
        return ()

    def trace_with(self, tracer: Tracer | None) -> str:
        """Trace the next passes, or stop with None; return why this tier cannot, empty if it can.

        InputError if another tracer is active.
        """
        ...

    async def start_profile(self) -> None:
        """Start measuring each dispatch or op call; restarts a running profile."""
        ...

    async def stop_profile(self) -> Profile:
        """Stop measuring, after all work queued so far. InputError if no profile is running."""
        ...

    def store(self, parameters: Sequence[Parameter]) -> WeightStore:
        """Allocate memory for `parameters`."""
        ...

    def streamed_store(self, parameters: Sequence[Parameter], slot_nbytes: int) -> WeightStore:
        """Allocate slots of `slot_nbytes` for stages of `parameters`, and memory for computed ones.

        TierUnavailableError on a tier that needs all weights at once.
        """
        ...

    async def quantizer(
        self,
        store: WeightStore,
        parameters: Sequence[Parameter],
        *,
        staging_nbytes: int,
        max_blocks: int,
    ) -> Quantizer:
        """Allocate memory to quantize these parameters, at most `max_blocks` at once."""
        ...

    def states(
        self, values: Sequence[Value], sizes: Sizes, *, kind: MemoryKind = "states"
    ) -> StateStore:
        """Allocate states; `sizes` gives each of their Dims its current size.

        `memory` counts them under `kind`.
        """
        ...

    async def computation(self, program: Program) -> Computation:
        """Prepare a program without parameters, states and Dims for tensors in this memory."""
        ...

    async def prepare(
        self, program: Program, weights: WeightStore, states: StateStore | None = None
    ) -> Executable:
        """Prepare a program. The only slow step: pipelines compile here.

        InputError if its inputs, states and parameters share a name (`check_names`).
        """
        ...

    def done(self) -> Awaitable[None]:
        """Wait for all work queued before this call; immediate on a tier without a queue.

        DeviceLostError if the device was lost meanwhile, GpuError for a rejected command.
        """
        return _at_once()

    async def warm(self, programs: Iterable[Program], name: str = "") -> int:
        """Compile the pipelines of these programs; return how many are ready.

        With a model's `name` a backend may remember them for the next visit.
        """
        return 0

    def trim(self) -> int:
        """Free memory that is only cached; return the device's bytes."""
        return 0

    def close(self) -> None:
        """Free everything, including the device."""
