"""What the graphs of several model families share."""

from __future__ import annotations

from bascule.base.dtypes import DType, block_of
from bascule.program.graph import Graph
from bascule.program.program import Value


def matrix(
    graph: Graph,
    name: str,
    shape: tuple[int, int],
    dtype: DType,
    *tensors: str,
    rows: int = 0,
    first: int = 0,
) -> Value:
    """Declare a matrix stored as `dtype`, or as float32 if its rows are no whole blocks.

    `rows` and `first` as in `Graph.parameter`.
    """
    even = shape[1] % block_of(dtype).n_elements == 0
    kept = dtype if even else "f32"
    return graph.parameter(name, shape, *tensors, dtype=kept, rows=rows, first=first)
