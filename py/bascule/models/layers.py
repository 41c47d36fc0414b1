"""What the graphs of several model families share."""

from __future__ import annotations

from bascule.base.dtypes import DType, block_of
from bascule.program.graph import Graph
from bascule.program.program import Value

# Numbers of a row that kernels read at once of float16 and of blocks.
_RUN = 32


def matrix(
    graph: Graph,
    name: str,
    shape: tuple[int, int],
    dtype: DType,
    *tensors: str,
    rows: int = 0,
    first: int = 0,
) -> Value:
    """Declare a matrix stored as `dtype`, or as float32 if its rows are not whole blocks.

    `rows` and `first` as in `Graph.parameter`.
    """
    run = 1 if dtype == "f32" else max(_RUN, block_of(dtype).n_elements)
    even = shape[1] % run == 0
    stored = dtype if even else "f32"
    return graph.parameter(name, shape, *tensors, dtype=stored, rows=rows, first=first)


def conv1d(
    graph: Graph,
    x: Value,
    weight: Value,
    bias: Value | None,
    *,
    width: int,
    stride: int = 1,
    pad: int = 0,
) -> Value:
    """Record a convolution over time: x (C, T), weight (N, C * width) -> (T', N).

    T' = (T + 2 * pad - width) // stride + 1. The weight's rows are those of (N, C, width): a window
    as high as x has its channels in that order.
    """
    channels, length = x.shape
    assert isinstance(channels, int)
    image = graph.reshape(x, (1, channels, length, 1))
    places = {"stride_y": 1, "stride_x": stride, "pad_y": 0, "pad_x": pad, "first": 0, "lines": 0}
    seen = graph.call("patches", image, k_height=channels, k_width=width, **places)
    return graph.call("linear", seen, weight, bias, activation="none")
