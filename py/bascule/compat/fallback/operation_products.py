"""Matrix products and embedding lookup on numpy arrays."""

from __future__ import annotations

from typing import Any

from bascule.base.arrays import np
from bascule.base.dtypes import DType
from bascule.compat.fallback.operation_work import (
    Axis,
    Division,
    Floats,
    Request,
    Span,
    Work,
    single,
)
from bascule.errors import InputError
from bascule.program.graph import Graph

# A row of quantized weights is a multiple of this long.
_BLOCK = 32


def matmul(request: Request) -> Work:
    """`a @ b + bias`: a (..., K), b (K, N) or weight (N, K), bias (N) -> (..., N) float32."""
    return _product(request, "f32")


def matmul_4bit(request: Request) -> Work:
    """The same with b quantized to blocks of 4 bits (q4_1) on the device."""
    return _product(request, "q4_1")


def _product(request: Request, dtype: DType) -> Work:
    a, weight, bias = _operands(request)
    shape = (*a.shape[:-1], weight.shape[0])
    x = a.reshape(-1, a.shape[-1])
    if dtype != "f32":  # zeros change neither the sums nor a block's scale
        x, weight = _pad_columns(x), _pad_columns(weight)
    graph = Graph(request.operation.name)
    operand = graph.parameter("weight", weight.shape, dtype=dtype)
    weights = {"weight": np.ascontiguousarray(weight)}
    offset = None
    if bias is not None:
        weights["bias"] = bias
        offset = graph.parameter("bias", bias.shape)
    result = graph.call("linear", graph.input("x", x.shape), operand, offset, activation="none")
    program, finish = single(graph, result, lambda y: y.reshape(shape))
    return Work(program, {"x": x}, finish, weights)


def _operands(request: Request) -> tuple[Floats, Floats, Floats | None]:
    """Return a (..., K), weight (N, K) and bias (N)."""
    a = request.floats("a", ndims=(1, 2, 3, 4))
    b = request.optional_floats("b", ndims=(2,))
    weight = request.optional_floats("weight", ndims=(2,))
    if (b is None) == (weight is None):
        raise InputError(
            request.where, "b (K, N) or weight (N, K)", "neither" if b is None else "both"
        )
    weight = b.T if b is not None else weight
    assert weight is not None
    bias = request.optional_floats("bias", ndims=(1,))
    names = [name for name in ("a", "b", "weight", "bias") if request.inputs.get(name) is not None]
    fits = a.shape[-1] == weight.shape[1] and (bias is None or len(bias) == len(weight))
    request.require(fits, "a (..., K), b (K, N) or weight (N, K), bias (N)", *names)
    return a, weight, bias


def divide_product(request: Request) -> Division:
    """Divide a product by columns of b (rows of weight), and by rows of a."""
    a, weight, bias = _operands(request)
    weight = np.ascontiguousarray(weight)  # once for all pieces
    rows = a.reshape(-1, a.shape[-1])

    def piece(spans: tuple[Span, ...]) -> tuple[Request, Any]:
        columns, some_rows = (slice(*span) for span in spans)
        arrays = {"a": rows[some_rows], "weight": weight[columns]}
        if bias is not None:
            arrays["bias"] = bias[columns]
        return Request(request.operation, arrays, request.context, spans[:1]), (some_rows, columns)

    axes = (
        Axis("layer_decomposition", "columns of the product", len(weight)),
        Axis("layer_decomposition", "rows of a", len(rows)),
    )
    return Division(axes, piece, (*a.shape[:-1], len(weight)), (len(rows), len(weight)))


def _pad_columns(x: Floats) -> Floats:
    return np.pad(x, ((0, 0), (0, -x.shape[1] % _BLOCK)))


def embedding_lookup(request: Request) -> Work:
    """`table[ids]`: ids of any shape, table (V, C) -> (..., C) float32."""
    ids, table = request.ids("ids"), request.floats("table", ndims=(2,))
    if ids.min() < 0 or ids.max() >= len(table):
        problem = f"{ids.min()} to {ids.max()}"
        raise InputError(f"{request.where}, input 'ids'", f"0 to {len(table) - 1}", problem)
    graph = Graph(request.operation.name)
    flat = ids.reshape(1, -1).astype(np.uint32)
    result = graph.call(
        "embedding", graph.input("ids", flat.shape, "u32"), graph.parameter("table", table.shape)
    )
    program, finish = single(graph, result, lambda y: y.reshape(*ids.shape, table.shape[1]))
    return Work(program, {"ids": flat}, finish, {"table": table})


def divide_lookup(request: Request) -> Division:
    """Divide a lookup by rows of the table, each piece with the ids in its rows, and by ids."""
    ids, table = request.ids("ids"), request.floats("table", ndims=(2,))
    flat = ids.reshape(-1)

    def piece(spans: tuple[Span, ...]) -> tuple[Request, Any] | None:
        (first, end), id_span = spans
        chunk = flat[slice(*id_span)]
        (indices,) = np.nonzero((chunk >= first) & (chunk < end))
        if not indices.size:
            return None
        # The last id is repeated up to a power of two, so that more pieces are the same program.
        n_missing = (1 << (indices.size - 1).bit_length()) - indices.size
        indices = np.append(indices, np.full(n_missing, indices[-1]))
        arrays = {"ids": chunk[indices] - first, "table": table[first:end]}
        place = indices + id_span[0]
        return Request(request.operation, arrays, request.context, spans[:1]), place

    axes = (
        Axis("chunked_embedding", "rows of the table", len(table)),
        Axis("chunked_embedding", "ids", len(flat)),
    )
    width = table.shape[1]
    return Division(axes, piece, (*ids.shape, width), (len(flat), width), same_program=False)
