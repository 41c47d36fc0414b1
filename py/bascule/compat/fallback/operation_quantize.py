"""Quantizing an array, slab by slab on the device, to the bytes of its blocks."""

from __future__ import annotations

from typing import Any

from bascule.base.dtypes import block_of
from bascule.compat.fallback.operation_work import Axis, Division, Request, Span, Work
from bascule.errors import InputError
from bascule.program.compile import freeze
from bascule.program.graph import Graph
from bascule.weights.quantized import format_of

_RUN = 32


def quantize(request: Request) -> Work:
    """Blocks of tensor (..., C), C a multiple of 32, as uint8 (..., bytes of a row).

    The context has "bits": 4 (q4_1, the default) or 8 (q8_0), or a format's name. Only a slab of
    the floats is on the device at a time; `bascule.WebGPUQuantizer` tells the errors as well.
    """
    tensor = request.floats("tensor", ndims=(1, 2, 3, 4))
    request.need(tensor.shape[-1] % _RUN == 0, f"rows of a multiple of {_RUN}", "tensor")
    dtype = format_of(request.context.get("bits", 4))
    if dtype is None:
        raise InputError(f"{request.where}, context 'bits'", "4 or 8", "None")
    graph = Graph(request.operation.name)
    rows = tensor.reshape(-1, tensor.shape[-1])
    graph.parameter("tensor", rows.shape, dtype=dtype)
    shape = (*tensor.shape[:-1], -1)
    return Work(
        freeze(graph),
        {},
        lambda found: found["tensor"].reshape(shape),
        {"tensor": rows},
    )


def divide_rows(request: Request) -> Division:
    """Quantizing by rows of the tensor."""
    tensor = request.floats("tensor", ndims=(1, 2, 3, 4))
    rows = tensor.reshape(-1, tensor.shape[-1])
    dtype = format_of(request.context.get("bits", 4))
    assert dtype is not None  # `quantize` has checked it
    block = block_of(dtype)
    row_nbytes = tensor.shape[-1] // block.n_elements * block.nbytes

    def piece(spans: tuple[Span, ...]) -> tuple[Request, Any]:
        some = slice(*spans[0])
        return Request(request.operation, {"tensor": rows[some]}, request.context), some

    axis = Axis("progressive_quantization", "rows", len(rows))
    shape = (*tensor.shape[:-1], row_nbytes)
    return Division((axis,), piece, shape, (len(rows), row_nbytes), "u8")
