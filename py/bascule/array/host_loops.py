"""Chains computed by loops of WebAssembly, if that is worth a module."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import TYPE_CHECKING, Any

from bascule.array.blocks import Chain
from bascule.array.graph import Node, Product, Shape
from bascule.array.groups import MIN_ELEMENTS
from bascule.array.loop_layout import Layout, layout_of
from bascule.array.loop_rows import text_of
from bascule.array.loop_stages import LoopNest, Operand, Operation, stages_of
from bascule.array.loopable import has_part
from bascule.array.loops import LoopText
from bascule.base.arrays import np

if TYPE_CHECKING:
    from bascule.array.dtypes import DType
    from bascule.backend.deviceless import Loop

# A process compiles at most this many loops: WebAssembly's linker in a page never frees one.
MAX_LOOPS = 256
# Elements from which a loop is faster than numpy at a single operation.
LARGE = 1 << 22
# Elements of a call of a new loop: engines run the first calls unoptimized, and use the code that
# they optimize meanwhile from the next call on.
FIRST_CALLS_ELEMENTS = 1 << 18
# Rows from which columns are reduced row by row: following a column through memory is slow.
MIN_ROWS = 16
# Arrays after which a loop is no longer new.
_WARM = 3


@dataclass(slots=True)
class _Loaded:
    run: Loop
    text: LoopText
    n_arrays: int = 0


@dataclass(frozen=True, slots=True)
class CachedLoop:
    """Computes a chain on other arrays with the layout that it was planned for.

    `sources`: the index of each of the layout's operands among the values.
    """

    loops: HostLoops
    loop: _Loaded
    layout: Layout  # without arrays
    result: tuple[Shape, DType]
    end: Shape
    scratch_nbytes: int
    sources: tuple[int, ...]

    def run(self, values: Sequence[Any]) -> Any | None:
        """Return the chain's numbers; None for arrays of another layout, or if memory runs out."""
        operands = [values[at] for at in self.sources]
        if not all(each.flags.c_contiguous for each in operands):
            return None
        try:
            return self.on(replace(self.layout, operands=operands, result=np.empty(*self.result)))
        except MemoryError:
            return None

    def on(self, layout: Layout) -> Any:
        """Return the numbers of the chain's end for a layout with its arrays."""
        loop = self.loop
        scratch = [np.empty(self.scratch_nbytes, np.uint8) for _ in loop.text.scratch]
        loop.n_arrays += 1
        max_elements = FIRST_CALLS_ELEMENTS if loop.n_arrays <= _WARM else None
        for result, operands, numbers in layout.parts(self.loops.max_elements or max_elements):
            loop.run(result, [*operands, *scratch], numbers)
        return layout.finished(self.end)


@dataclass(frozen=True, slots=True)
class Computed:
    """The numbers, and the loop for the next arrays: None if an operand was copied for it."""

    numbers: Any
    cached: CachedLoop | None


class HostLoops:
    """Compiles and caches the loops of a backend. `load` makes a function from a module.

    `max_elements`: elements of one call, if what it reads and writes is copied.
    """

    def __init__(self, load: Callable[[bytes], Loop], max_elements: int | None) -> None:
        self._load = load
        self.max_elements = max_elements
        self._loops: dict[LoopNest, _Loaded] = {}

    def evaluate(self, chain: Chain, values: Sequence[Any]) -> Computed | None:
        """Return the numbers of a chain's end; None if numpy is to compute them."""
        if not values or (
            _is_faster_in_numpy(chain) if self.max_elements else not _is_worth_it(chain)
        ):
            return None
        try:
            return self.computed(ChainRun(chain, values))
        except MemoryError:
            return None  # the loops' memory is smaller than Python's

    def product(self, node: Node, values: Sequence[Any]) -> Computed | None:
        """Compute a matrix by a vector as sums of products; None for others, or if copied."""
        shapes: Product = node.attribute
        is_vector = shapes.x[:2] == (1, 1) and shapes.transposed
        if not is_vector or self.max_elements is not None or prod(shapes.y) < MIN_ELEMENTS:
            return None
        matrix = Node(node.device, "data", (), shapes.y, node.dtype)
        vector = Node(node.device, "data", (), shapes.x[2:], node.dtype)
        products = Node(node.device, "multiply", (matrix, vector), shapes.y, node.dtype)
        result = Node(node.device, "reduce", (products,), shapes.y[:1], node.dtype, ("sum", (1,)))
        chain = Chain((products, result), (matrix, vector), shapes.y, (1,), True)
        result = self.evaluate(
            chain, [values[1].reshape(shapes.y), values[0].reshape(shapes.x[2:])]
        )
        if result is None or result.cached is None:
            return result
        sources = tuple(1 - at for at in result.cached.sources)
        return replace(result, cached=replace(result.cached, sources=sources))

    def computed(self, walk: ChainRun) -> Computed | None:
        """Return the numbers of a chain's end; None if no axis is as long as a vector."""
        end = walk.chain.end
        inner = walk.is_inner(end)
        layout = layout_of(walk.operands, walk.chain.space, walk.chain.axes, (end.dtype, inner))
        loop = self._loop(walk, layout) if layout else None
        if layout is None or loop is None:
            return None
        rounds = prod(axis.size for axis in layout.axes if axis.reduced)
        nbytes = loop.text.scratch_nbytes(layout.vector.size, rounds)
        bare = replace(layout, operands=[], result=None)
        result = layout.result.shape, layout.result.dtype
        cached = CachedLoop(self, loop, bare, result, end.shape, nbytes, tuple(walk.sources))
        return Computed(cached.on(layout), cached if _reads_in_place(walk, layout) else None)

    def _loop(self, walk: ChainRun, layout: Layout) -> _Loaded | None:
        nest = _nest(walk, layout)
        result = self._loops.get(nest)
        if result is None and len(self._loops) < MAX_LOOPS:
            text = text_of(nest)
            result = self._loops[nest] = _Loaded(self._load(text.module()), text)
        return result


def _reads_in_place(walk: ChainRun, layout: Layout) -> bool:
    """Whether a loop reads the operands in place, all of them in row-major order."""
    return all(
        given.flags.c_contiguous and _address(given) == _address(read)
        for given, read in zip(walk.operands, layout.operands, strict=True)
    )


def _address(array: Any) -> int:
    return array.__array_interface__["data"][0]


def _is_faster_in_numpy(chain: Chain) -> bool:
    """Whether numpy is faster than a loop to which arrays are copied.

    Outside a page, on x86 with AVX-512, 4,000,000 floats: exp 1.5 ms against 5.9, tanh 0.8 against
    9.2, a sum of rows 0.7 against 1.4, softmax 7.2 against 8.3.
    """
    return len(chain.nodes) == 1 or any(has_part(node) for node in chain.nodes)


def _is_worth_it(chain: Chain) -> bool:
    """Whether a loop is faster than numpy in a page: planning one takes up to half a millisecond.

    A function or a reduction takes numpy several times as long as another operation.
    """
    large = prod(chain.space) >= LARGE
    return len(chain.nodes) > 1 or large or any(_is_slow(node) for node in chain.nodes)


def _is_square(node: Node) -> bool:
    """Whether it is x ** 2, which equals x * x to the last bit and is much slower."""
    if node.op != "pow":
        return False
    exponent = node.inputs[1].host
    return exponent is not None and exponent.size == 1 and exponent.item() == 2


def _is_slow(node: Node) -> bool:
    return node.op == "reduce" or has_part(node)


class ChainRun:
    """A chain over its space: the operands with all axes of it, and the operations."""

    def __init__(self, chain: Chain, values: Sequence[Any]) -> None:
        self.chain = chain
        self.operands: list[Any] = []
        self.sources: list[int] = []  # of each operand, which of the values it is
        self.operations: list[Operation] = []
        self._views = {id(node) for node in chain.nodes if node.op == "view"}
        numbers = {id(node): at for at, node in enumerate(chain.reads)}
        nodes = [node for node in chain.nodes if node.op != "view"]
        inside = {id(node) for node in chain.nodes}
        places: dict[tuple[int, bool], int] = {}
        for node in nodes:
            bare = self._is_bare(node)
            for each in map(self._source, node.inputs):
                if id(each) not in inside and (id(each), bare) not in places:
                    places[id(each), bare] = len(self.operands)
                    at = numbers[id(each)]
                    self.sources.append(at)
                    self.operands.append(self._aligned(np.asarray(values[at]), bare))
        made = {id(node): len(self.operands) + at for at, node in enumerate(nodes)}
        for node in nodes:
            bare = self._is_bare(node)
            reads = tuple(
                made[id(each)] if id(each) in made else places[id(each), bare]
                for each in map(self._source, node.inputs)
            )
            combination = node.attribute[0] if node.op == "reduce" else ""
            inner = self.is_inner(node)
            op, reads = ("square", reads[:1]) if _is_square(node) else (node.op, reads)
            self.operations.append(Operation(op, reads, node.dtype, inner, combination))

    def is_inner(self, node: Node) -> bool:
        """Whether a node has an element for each that is reduced."""
        chain = self.chain
        return bool(chain.axes) and node.op != "reduce" and node.shape == chain.space

    def _source(self, node: Node) -> Node:
        """Return what a view in the chain shows."""
        return node.inputs[0] if id(node) in self._views else node

    def _is_bare(self, node: Node) -> bool:
        """Whether a node lacks the reduced axes, and so do its operands."""
        chain = self.chain
        return bool(chain.axes) and node.op != "reduce" and len(node.shape) < len(chain.space)

    def _aligned(self, value: Any, bare: bool) -> Any:
        space, axes = self.chain.space, self.chain.axes
        rank = len(space) - len(axes) if bare else len(space)
        shape: Shape = (1,) * (rank - value.ndim) + value.shape
        if bare:
            sizes = iter(shape)
            shape = tuple(1 if at in axes else next(sizes) for at in range(len(space)))
        return value.reshape(shape)


def _nest(walk: ChainRun, layout: Layout) -> LoopNest:
    reduced = [axis for axis in (*layout.axes, layout.vector) if axis.reduced]
    operands = tuple(
        Operand(value.dtype, layout.vector.steps[at] > 0, any(axis.steps[at] for axis in reduced))
        for at, value in enumerate(walk.operands, start=1)
    )
    n_reduced = len(layout.axes) - layout.n_kept
    reduces = layout.vector.reduced
    nest = LoopNest(operands, tuple(walk.operations), layout.n_kept, n_reduced, reduces)
    rounds = prod(axis.size for axis in layout.axes if axis.reduced)
    by_rows = not reduces and rounds >= MIN_ROWS and len(stages_of(nest).passes) == 1
    return replace(nest, by_rows=True) if by_rows and not nest.has_inner_result else nest
