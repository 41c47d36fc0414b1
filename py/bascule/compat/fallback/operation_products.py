"""Products of matrices, embedding lookup and the KV cache on plain arrays."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bascule.base.arrays import np
from bascule.base.dtypes import DType
from bascule.compat.fallback.operation_work import (
    Array,
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

# A row of weights in blocks is a multiple of so many numbers long.
_RUN = 32
# Where a model's sliding context ends, too.
_MOST_POSITIONS = 1 << 20


def matmul(request: Request) -> Work:
    """`a @ b + bias`: a (..., K), b (K, N) or weight (N, K), bias (N) -> (..., N) float32."""
    return _product(request, "f32")


def matmul_4bit(request: Request) -> Work:
    """The same with b in blocks of 4 bits (q4_1), which are made on the way to the device."""
    return _product(request, "q4_1")


def _product(request: Request, dtype: DType) -> Work:
    a, weight, bias = _operands(request)
    shape = (*a.shape[:-1], weight.shape[0])
    x = a.reshape(-1, a.shape[-1])
    if dtype != "f32":  # zeros add nothing to the sums, nor to a block's scale
        x, weight = _whole_runs(x), _whole_runs(weight)
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
    """a (..., K), weight (N, K) and bias (N)."""
    a = request.floats("a", ndims=(1, 2, 3, 4))
    b = request.maybe("b", ndims=(2,))
    weight = request.maybe("weight", ndims=(2,))
    if (b is None) == (weight is None):
        raise InputError(
            request.where, "b (K, N) or weight (N, K)", "neither" if b is None else "both"
        )
    weight = b.T if b is not None else weight
    assert weight is not None
    bias = request.maybe("bias", ndims=(1,))
    names = [name for name in ("a", "b", "weight", "bias") if request.inputs.get(name) is not None]
    fits = a.shape[-1] == weight.shape[1] and (bias is None or len(bias) == len(weight))
    request.need(fits, "a (..., K), b (K, N) or weight (N, K), bias (N)", *names)
    return a, weight, bias


def divide_product(request: Request) -> Division:
    """A product by columns of b (rows of weight), and by rows of a."""
    a, weight, bias = _operands(request)
    weight = np.ascontiguousarray(weight)  # once, not piece by piece
    rows = a.reshape(-1, a.shape[-1])

    def piece(spans: tuple[Span, ...]) -> tuple[Request, Any]:
        columns, some = (slice(*span) for span in spans)
        arrays = {"a": rows[some], "weight": weight[columns]}
        if bias is not None:
            arrays["bias"] = bias[columns]
        return Request(request.operation, arrays, request.context, spans[:1]), (some, columns)

    axes = (
        Axis("layer_decomposition", "columns of the product", len(weight)),
        Axis("layer_decomposition", "rows of a", len(rows)),
    )
    return Division(axes, piece, (*a.shape[:-1], len(weight)), (len(rows), len(weight)))


def _whole_runs(x: Floats) -> Floats:
    return np.pad(x, ((0, 0), (0, -x.shape[1] % _RUN)))


def embedding_lookup(request: Request) -> Work:
    """`table[ids]`: ids of any shape, table (V, C) -> (..., C) float32."""
    ids, table = request.ids("ids"), request.floats("table", ndims=(2,))
    if ids.min() < 0 or ids.max() >= len(table):
        found = f"{ids.min()} to {ids.max()}"
        raise InputError(f"{request.where}, input 'ids'", f"0 to {len(table) - 1}", found)
    graph = Graph(request.operation.name)
    flat = ids.reshape(1, -1).astype(np.uint32)
    result = graph.call(
        "embedding", graph.input("ids", flat.shape, "u32"), graph.parameter("table", table.shape)
    )
    program, finish = single(graph, result, lambda y: y.reshape(*ids.shape, table.shape[1]))
    return Work(program, {"ids": flat}, finish, {"table": table})


def divide_lookup(request: Request) -> Division:
    """A lookup by rows of the table, of which each piece has the ids that it holds, and by ids."""
    ids, table = request.ids("ids"), request.floats("table", ndims=(2,))
    flat = ids.reshape(-1)

    def piece(spans: tuple[Span, ...]) -> tuple[Request, Any] | None:
        (first, end), some = spans
        chunk = flat[slice(*some)]
        (held,) = np.nonzero((chunk >= first) & (chunk < end))
        if not held.size:
            return None
        # Some ids twice, so that pieces of about as many are one program.
        held = np.pad(held, (0, (1 << (held.size - 1).bit_length()) - held.size), mode="edge")
        arrays = {"ids": chunk[held] - first, "table": table[first:end]}
        return Request(request.operation, arrays, request.context, spans[:1]), held + some[0]

    axes = (
        Axis("chunked_embedding", "rows of the table", len(table)),
        Axis("chunked_embedding", "ids", len(flat)),
    )
    width = table.shape[1]
    return Division(axes, piece, (*ids.shape, width), (len(flat), width), alike=False)


def kv_cache_update(request: Request) -> Work:
    """Put key and value (T, ...) into key_cache and value_cache (S, ...) from `position` on.

    Arrays of three axes are (S, G, D): G KV heads, which a partitioned cache divides. Gives both
    caches, as (2, S, ...) float32. A position past the end goes on at the start, as in
    a cache that slides: position p has slot p % S, and p is 2**20 at most.
    """
    names = ("key_cache", "value_cache", "key", "value")
    caches = [request.floats(name, ndims=(2, 3)) for name in names[:2]]
    rows = [request.floats(name, ndims=(2, 3)) for name in names[2:]]
    shape = caches[0].shape
    fits = shape == caches[1].shape and rows[0].shape == rows[1].shape
    fits = fits and rows[0].shape[1:] == shape[1:] and len(rows[0]) <= len(caches[0])
    request.need(fits, "caches (S, ...) and up to S rows key and value (T, ...)", *names)
    slots, tokens = len(caches[0]), len(rows[0])
    position = request.whole("position", 0, most=_MOST_POSITIONS) % max(slots, 1)
    # The op `rope_append` reads heads by fours, and turns nothing by an angle of 0.
    heads, width = shape[1] if len(shape) == 3 else 1, shape[-1]
    size = -(-width // 4) * 4
    no_queries = np.zeros((tokens, heads, size), np.float32)
    packed = [no_queries, *(_wide(r.reshape(-1, heads, width), size) for r in rows)]
    qkv = np.concatenate(packed, axis=1).reshape(tokens, -1)
    angles = np.zeros((257 + (position + tokens) // 256, size), np.float32)
    angles[:, : size // 2] = 1
    graph = Graph(request.operation.name)
    result = graph.call(
        "rope_append",
        graph.input("qkv", qkv.shape),
        graph.state("cache", (slots, 2 * heads * size)),
        graph.input("angles", angles.shape),
        graph.input("position", (1,), "u32"),
        heads=heads,
        kv_heads=heads,
        size=size,
        pairs="halves",
    )

    def finish(found: Mapping[str, Array]) -> Array:
        both = found["cache"].reshape(slots, 2, heads, size)[..., :width]
        return both.swapaxes(0, 1).reshape(2, *shape)

    program, _ = single(graph, result, lambda y: y)
    inputs = {"qkv": qkv, "angles": angles, "position": np.array([position], np.uint32)}
    cache = np.stack([_wide(c.reshape(-1, heads, width), size) for c in caches], axis=1)
    return Work(program, inputs, finish, states={"cache": cache}, kept=("cache",))


def divide_cache(request: Request) -> Division:
    """A cache by its KV heads, or where there is one, by its columns."""
    names = ("key_cache", "value_cache", "key", "value")
    arrays = {name: request.floats(name, ndims=(2, 3)) for name in names}
    shape = arrays["key_cache"].shape
    heads = len(shape) == 3 and shape[1] > 1

    def piece(spans: tuple[Span, ...]) -> tuple[Request, Any]:
        some = (slice(None), slice(*spans[0])) if heads else (..., slice(*spans[0]))
        results = {name: array[some] for name, array in arrays.items()}
        place = (slice(None), *some) if heads else some
        return Request(request.operation, results, request.context), place

    count = shape[1] if heads else shape[-1]
    axis = Axis("partitioned_kv_cache", "heads" if heads else "columns", count)
    return Division((axis,), piece, (2, *shape), (2, *shape))


def _wide(x: Floats, size: int) -> Floats:
    """(n, G, D) as (n, G, size), filled up with zeros."""
    missing = size - x.shape[2]
    return np.pad(x, ((0, 0), (0, 0), (0, missing))) if missing else x
