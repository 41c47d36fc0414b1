"""Quantize an array on the device, slab by slab, to the bytes of its blocks."""

from __future__ import annotations

from typing import Any

from bascule.base.dtypes import block_of
from bascule.compat.fallback.operation_work import Axis, Division, Request, Span, Work
from bascule.errors import InputError
from bascule.program.compile import freeze
from bascule.program.graph import Graph
from bascule.weights.quantized import format_of

_BLOCK = 32


def quantize(request: Request) -> Work:
    """Quantize tensor (..., C), C a multiple of 32, to blocks as uint8 (..., bytes of a row).

    The context has "bits": 4 (q4_1, the default) or 8 (q8_0), or a format's name. Only a slab of
    the floats is on the device at a time; `bascule.WebGPUQuantizer` also reports the errors.
    """
    tensor = request.floats("tensor", ndims=(1, 2, 3, 4))
    request.require(tensor.shape[-1] % _BLOCK == 0, f"rows of a multiple of {_BLOCK}", "tensor")
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
        lambda blocks: blocks["tensor"].reshape(shape),
        {"tensor": rows},
    )


def divide_rows(request: Request) -> Division:
    """Divide quantizing by rows of the tensor."""
    tensor = request.floats("tensor", ndims=(1, 2, 3, 4))
    rows = tensor.reshape(-1, tensor.shape[-1])
    dtype = format_of(request.context.get("bits", 4))
    assert dtype is not None  # checked in `quantize`
    block = block_of(dtype)
    row_nbytes = tensor.shape[-1] // block.n_elements * block.nbytes

    def piece(spans: tuple[Span, ...]) -> tuple[Request, Any]:
        part = slice(*spans[0])
        return Request(request.operation, {"tensor": rows[part]}, request.context), part

    axis = Axis("progressive_quantization", "rows", len(rows))
    shape = (*tensor.shape[:-1], row_nbytes)
    return Division((axis,), piece, shape, (len(rows), row_nbytes), "u8")
