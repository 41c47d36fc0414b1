"""Weights, states and buffers as numpy arrays, for backends that compute on them."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from math import prod
from typing import TYPE_CHECKING

from bascule.backend.arrivals import Arrivals
from bascule.backend.base import Computation, Executable, StateStore, WeightStore, check_names
from bascule.backend.deviceless import Deviceless
from bascule.backend.memory import MemoryCount, MemoryKind
from bascule.backend.quantize import ReferenceQuantizer
from bascule.base.arrays import NUMPY, Array, Buffer, np
from bascule.base.dtypes import BlockType, nbytes_of
from bascule.errors import HostMemoryError, InputError
from bascule.program.blocks import BlockMatrix
from bascule.program.program import Parameter, Program, Sizes, Value

if TYPE_CHECKING:
    from bascule.backend.streaming import Streaming


@contextmanager
def memory_errors(asked: str, nbytes: int | None = None) -> Generator[None]:
    """Raise HostMemoryError, naming what was asked for, if there is not enough memory."""
    try:
        yield
    except HostMemoryError:
        raise
    except MemoryError:
        raise HostMemoryError(asked, nbytes) from None


class ReferenceStore:
    """A `WeightStore` of float32 numpy arrays, or of a file's blocks for block dtypes."""

    page_bridge = None
    arrivals: Arrivals | None = None

    def __init__(self, parameters: Sequence[Parameter], count: MemoryCount | None = None) -> None:
        self._count = count or MemoryCount()
        self.targets = {p.name: index for index, p in enumerate(parameters)}
        self.nbytes = sum(p.nbytes for p in parameters)
        self.arrays = arrays_of(parameters, self._count)
        self._views = [_bytes_of(self.arrays[p.name]) for p in parameters]

    @property
    def streaming(self) -> Streaming | None:
        return None

    def write(self, target: int, offset: int, data: Buffer) -> None:
        view = memoryview(data).cast("B")
        self._views[target][offset : offset + view.nbytes] = view

    def close(self) -> None:
        if self._views:
            self._count.add("weights", -self.nbytes)
        self._views.clear()
        self.arrays.clear()


class ReferenceStates:
    """A `StateStore` of numpy arrays."""

    def __init__(
        self,
        values: Sequence[Value],
        sizes: Sizes,
        count: MemoryCount | None = None,
        kind: MemoryKind = "states",
    ) -> None:
        self._values = values
        self._count = count or MemoryCount()
        self._kind: MemoryKind = kind
        self.arrays = {v.name: self._zeros(v, sizes) for v in values}
        self._count.claim("a model's states", self.nbytes)
        self._count.add(kind, self.nbytes)

    @property
    def nbytes(self) -> int:
        return sum(array.nbytes for array in self.arrays.values())

    def write(self, name: str, offset: int, data: Buffer) -> None:
        view = memoryview(data).cast("B")
        _bytes_of(self.arrays[name])[offset : offset + view.nbytes] = view

    async def read(self, name: str, offset: int, into: Buffer) -> None:
        view = memoryview(into).cast("B")
        view[:] = _bytes_of(self.arrays[name])[offset : offset + view.nbytes]

    async def resize(self, sizes: Sizes) -> None:
        for value in self._values:
            old, new = self.arrays[value.name], self._zeros(value, sizes)
            self._count.claim(f"the state {value.name}", new.nbytes - old.nbytes)
            n_rows = min(len(old), len(new))
            new[:n_rows] = old[:n_rows]
            self.arrays[value.name] = new
            self._count.add(self._kind, new.nbytes - old.nbytes)

    def close(self) -> None:
        self._count.add(self._kind, -self.nbytes)
        self.arrays.clear()

    def _zeros(self, value: Value, sizes: Sizes) -> Array:
        shape = value.sizes(sizes)
        with memory_errors(f"the state {value.name}", nbytes_of(value.dtype, prod(shape))):
            array = np.empty(shape, NUMPY[value.dtype])
        array[...] = 0
        return array


class ReferenceComputation:
    """See `Computation`: an executable on the arrays of states."""

    def __init__(self, program: Program, executable: Executable) -> None:
        self._program = program
        self._executable = executable

    async def run(
        self, operands: Mapping[str, StateStore], results: Mapping[str, StateStore]
    ) -> None:
        inputs = {
            v.name: _only_array(operands[v.name]).reshape(v.sizes({})) for v in self._program.inputs
        }
        into = [_only_array(store).data for store in results.values()]
        await self._executable.run({}, inputs, into)

    def close(self) -> None:
        self._executable.close()


def _only_array(store: StateStore) -> Array:
    if not isinstance(store, ReferenceStates) or len(store.arrays) != 1:
        raise InputError("run", "tensors of this backend", type(store).__name__)
    (array,) = store.arrays.values()
    return array


class HostArrayBackend(Deviceless):
    """A backend whose weights and states are numpy arrays; `_executable` is its own class."""

    def store(self, parameters: Sequence[Parameter]) -> ReferenceStore:
        return ReferenceStore(parameters, self.count)

    async def quantizer(
        self,
        store: WeightStore,
        parameters: Sequence[Parameter],
        *,
        staging_nbytes: int,
        max_blocks: int,
    ) -> ReferenceQuantizer:
        del max_blocks
        if not isinstance(store, ReferenceStore):
            raise InputError("quantizer", "weights of this backend", type(store).__name__)
        results = {p.name: store.arrays[p.name] for p in parameters}
        matrices = {name: m for name, m in results.items() if isinstance(m, BlockMatrix)}
        return ReferenceQuantizer(store, matrices, staging_nbytes)

    def states(
        self, values: Sequence[Value], sizes: Sizes, *, kind: MemoryKind = "states"
    ) -> ReferenceStates:
        return ReferenceStates(values, sizes, self.count, kind)

    async def computation(self, program: Program) -> Computation:
        return ReferenceComputation(program, await self.prepare(program, self.store(())))

    async def prepare(
        self, program: Program, weights: WeightStore, states: StateStore | None = None
    ) -> Executable:
        check_names(program)
        if not isinstance(weights, ReferenceStore):
            raise InputError("prepare", "weights of this backend", type(weights).__name__)
        if states is not None and not isinstance(states, ReferenceStates):
            raise InputError("prepare", "states of this backend", type(states).__name__)
        return self._executable(program, weights, states)

    def _executable(
        self, program: Program, weights: ReferenceStore, states: ReferenceStates | None
    ) -> Executable:
        raise NotImplementedError


def written(results: Mapping[str, Array], into: Sequence[Buffer]) -> dict[str, Array]:
    """Copy results into the given memory; see `Executable.run`."""
    for result, memory in zip(results.values(), into, strict=True):
        memoryview(memory).cast("B")[:] = memoryview(np.ascontiguousarray(result)).cast("B")
    return {}


def arrays_of(
    parameters: Sequence[Parameter], count: MemoryCount
) -> dict[str, Array | BlockMatrix]:
    """Allocate and count memory for parameters; HostMemoryError if there is not enough."""
    nbytes = sum(p.nbytes for p in parameters)
    count.claim("a model's weights", nbytes)
    with memory_errors("a model's weights", nbytes):
        arrays = {p.name: _room_for(p) for p in parameters}
    count.add("weights", nbytes)
    return arrays


def _room_for(parameter: Parameter) -> Array | BlockMatrix:
    if parameter.dtype == "f32":
        return np.empty(parameter.shape, np.float32)
    # Programs take blocks only as matrices (`Parameter.dtype`).
    rows, inner = parameter.shape
    room = np.empty((parameter.nbytes,), np.uint8)
    return BlockMatrix(BlockType[parameter.dtype.upper()], (rows, inner), room)


def _bytes_of(array: Array | BlockMatrix) -> memoryview:
    return memoryview(array.data if isinstance(array, BlockMatrix) else array).cast("B")
