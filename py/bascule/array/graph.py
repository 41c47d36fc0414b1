"""The lazy graph: nodes that describe an array, until something reads it."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any, cast

from bascule.array.dtypes import DType

if TYPE_CHECKING:
    from bascule.array.store import Memory
    from bascule.base.arrays import Array as Numbers

Shape = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Strided:
    """The elements of a dense base in a view: an offset and a stride per axis, in elements."""

    offset: int
    strides: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Product:
    """The view of a "matmul" on its inputs' memory: x (n, M, K), y (K, N) or (n, K, N).

    `transposed`: y is (N, K) or (n, N, K).
    """

    x: Shape
    y: Shape
    transposed: bool


class Node:
    """One operation on other nodes, its shape and dtype, and its value once it is computed.

    `op` is a row of `rows.ROWS`, or "data" (known numbers), "cast", "bits" (a float's word), "iota"
    (0, 1, 2, ... in row-major order), "gather" (data, flat indices), "view", "reduce", "best",
    "scan", "order" (argsort), "matmul" (`Product`), "fft" (rows, n, sign). `memory` holds its value
    on the device, `host` in numpy.
    """

    __slots__ = (
        "__weakref__", "attribute", "depth", "device", "dtype", "held", "host", "inputs", "memory",
        "op", "shape",
    )  # fmt: skip

    def __init__(
        self,
        device: Any,
        op: str,
        inputs: Sequence[Node],
        shape: Shape,
        dtype: DType,
        attribute: Any = None,
    ) -> None:
        self.device = device  # an ArrayDevice, which computes nodes
        self.op = op
        self.inputs: tuple[Node, ...] = tuple(inputs)
        self.shape = shape
        self.dtype = dtype
        self.attribute = attribute
        self.depth = 1  # of the operations that wait, as many as need one another's result
        for each in inputs:
            if each.depth >= self.depth:
                self.depth = each.depth + 1
        self.held = 0  # arrays that a user may still read
        self.memory: Memory | None = None
        self.host: Numbers | None = None

    def __del__(self) -> None:
        """Free a long chain node by node: the interpreter would nest its calls."""
        waiting = list(self.inputs)
        self.inputs = ()
        while waiting:
            node = waiting.pop()
            if sys.getrefcount(node) <= 2:  # this name and the call's
                waiting += node.inputs
                node.inputs = ()

    @property
    def size(self) -> int:
        """The number of elements."""
        return prod(self.shape)

    @property
    def is_known(self) -> bool:
        """Whether nothing has to be computed for it."""
        return self.memory is not None or self.host is not None

    def settle(self) -> None:
        """Forget how it was computed."""
        self.inputs = ()
        self.depth = 0


def dense(shape: Sequence[int]) -> tuple[int, ...]:
    """Return row-major strides, in elements."""
    strides: list[int] = []
    step = 1
    for size in reversed(shape):
        strides.append(step)
        step *= size
    return tuple(reversed(strides))


def ordered(outputs: Sequence[Node]) -> list[Node]:
    """Return what has to be computed for these, each after its inputs; known nodes are leaves."""
    results: list[Node] = []
    seen: set[int] = set()
    stack: list[Node | None] = [*reversed(outputs)]
    while stack:
        node = stack.pop()
        if node is None:  # the inputs of the next one are done
            results.append(cast("Node", stack.pop()))
        elif id(node) not in seen:
            seen.add(id(node))
            if node.host is not None or node.memory is not None:
                results.append(node)
            else:
                stack += (node, None, *node.inputs)
    return results
