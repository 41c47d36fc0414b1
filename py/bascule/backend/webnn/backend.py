"""The WebNN tier: a program becomes one MLGraph of the bucket's sizes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from time import perf_counter

from bascule.backend.base import Executable, Inputs, Tier, WeightStore, checked_input
from bascule.backend.host_arrays import HostArrayBackend, ReferenceStates, ReferenceStore, written
from bascule.backend.profile import OpTimes
from bascule.backend.streaming import NO_STREAMING
from bascule.backend.webnn.ml import Ml
from bascule.backend.webnn.ops import dim_input
from bascule.backend.webnn.translate import translate
from bascule.base.arrays import NUMPY, Array, Buffer, np
from bascule.base.turns import CrossLoopLock
from bascule.errors import TierUnavailableError
from bascule.program.blocks import BlockMatrix
from bascule.program.program import Parameter, Program, Sizes, Value


class Graphs:
    """The graph in use. A graph holds all its weights, so the previous one is freed first."""

    def __init__(self, ml: Ml) -> None:
        self.ml = ml
        self.lock = CrossLoopLock()
        self._owner: WebNnExecutable | None = None
        self._graph = 0

    async def of(self, owner: WebNnExecutable) -> int:
        """Return the graph of that executable, built again if another one has run since."""
        if self._owner is not owner:
            self.drop(self._owner)
            self._graph = await owner.build()
            self._owner = owner
        return self._graph

    def drop(self, owner: WebNnExecutable | None) -> None:
        """Free the graph if it belongs to that executable."""
        if owner is not None and self._owner is owner:
            self.ml.free(self._graph)
            self._owner = None


class WebNnExecutable:
    """An `Executable` whose graph is built at its first run, with the weights loaded by then."""

    def __init__(
        self, program: Program, weights: ReferenceStore, graphs: Graphs, op_times: OpTimes
    ) -> None:
        self.host_s = 0.0
        self._program = program
        self._weights = weights
        self._graphs = graphs
        self._op_times = op_times
        self._recipe = translate(program)

    async def build(self) -> int:
        """Build its graph."""
        arrays = self._weights.arrays
        if self._weights.arrivals is not None:
            await self._weights.arrivals.wait(arrays)
        # `translate` has rejected blocks, unless no op reads them.
        dense = {name: a for name, a in arrays.items() if not isinstance(a, BlockMatrix)}
        return await self._graphs.ml.build(self._recipe, dense)

    async def run(
        self, sizes: Sizes, inputs: Inputs, into: Sequence[Buffer] | None = None
    ) -> dict[str, Array]:
        async with self._graphs.lock.turn():
            graph = await self._graphs.of(self)
            started = perf_counter()
            fed = {v.name: _padded(v, sizes, inputs) for v in self._program.inputs}
            for dim in self._program.dims:
                fed[dim_input(dim)] = np.array([sizes[dim.name]], np.float32)
            wanted = {s.arguments[0] for s in self._recipe.steps if s.method == "input"}
            fed = {name: array for name, array in fed.items() if name in wanted}
            self.host_s += perf_counter() - started
            began = perf_counter()
            result = await self._graphs.ml.run(graph, fed)
            self._op_times.note(f"a graph of {len(self._program.calls)} ops", began)
        results = {v.name: _cut(v, sizes, result[v.name]) for v in self._program.outputs}
        return results if into is None else written(results, into)

    def queued(self, sizes: Sizes, inputs: Inputs) -> None:
        """See `Executable.queued`: this tier has no queue."""

    async def submit(self, sizes: Sizes, inputs: Inputs, times: int = 1) -> None:
        for _ in range(times):
            await self.run(sizes, inputs)

    def close(self) -> None:
        self._graphs.drop(self)


class WebNnBackend(HostArrayBackend):
    """Weights are in Python once, and once more in the one graph that is in use."""

    tier: Tier = "webnn"

    def __init__(self, ml: Ml) -> None:
        super().__init__(ml.name)
        self._graphs = Graphs(ml)

    @property
    def lost(self) -> str:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self._graphs.ml.lost

    @property
    def stats(self) -> Mapping[str, float]:
        return {"graphs": self._graphs.ml.n_graphs}

    def streamed_store(self, parameters: Sequence[Parameter], slot_nbytes: int) -> WeightStore:
        """See `Backend.streamed_store`: not supported."""
        raise TierUnavailableError(self.tier, NO_STREAMING)

    def _executable(
        self, program: Program, weights: ReferenceStore, states: ReferenceStates | None
    ) -> Executable:
        del states  # an op that reads one is refused
        return WebNnExecutable(program, weights, self._graphs, self.op_times)

    def close(self) -> None:
        self._graphs.ml.close()


def _padded(value: Value, sizes: Sizes, inputs: Inputs) -> Array:
    array = np.asarray(checked_input(value, sizes, inputs))
    padded = np.zeros(value.limits, NUMPY[value.dtype])
    padded[tuple(slice(n) for n in array.shape)] = array
    return padded


def _cut(value: Value, sizes: Sizes, array: Array) -> Array:
    cut = array.reshape(value.limits)[tuple(slice(n) for n in value.sizes(sizes))]
    return np.ascontiguousarray(cut, np.float32)
