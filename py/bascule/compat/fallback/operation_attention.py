"""Attention on numpy arrays: softmax(q @ k.T / sqrt(D)) @ v, by the ops that models use."""

from __future__ import annotations

from typing import Any

from bascule.base.arrays import np
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

_NAMES = ("query", "key", "value")


def attention(request: Request) -> Work:
    """Attend from query (..., T, D) to key (..., S, D) and value (..., S, E); returns (..., T, E)
    float32.

    Up to two leading axes are a batch. With `heads` in the context there is at most one, and heads
    are side by side in the last axis. With `causal` the queries are the last T of the S positions,
    and each attends to the keys up to its own.
    """
    heads = request.integer("heads", 0)
    if not heads and request.operation.name == "multi_head_attention":
        expected = "arrays (B, H, T, D), or the number of heads in the context"
        request.require(all(np.ndim(request.inputs[n]) == 4 for n in _NAMES), expected, *_NAMES)
    ndims = (2, 3) if heads else (2, 3, 4)
    q, k, v = (request.floats(name, ndims=ndims) for name in _NAMES)
    same_batch = q.shape[:-2] == k.shape[:-2] == v.shape[:-2] and k.shape[-2] == v.shape[-2]
    expected = "query (..., T, D), key (..., S, D) and value (..., S, E)"
    request.require(same_batch and q.shape[-1] == k.shape[-1], expected, *_NAMES)
    if heads:
        divisible = q.shape[-1] % heads == 0 and v.shape[-1] % heads == 0
        request.require(divisible, f"last axes that {heads} heads divide", *_NAMES)
    shape = (*q.shape[:-1], v.shape[-1])
    causal = request.flag("causal")
    if causal and q.shape[-2] > k.shape[-2]:
        result = f"{q.shape[-2]} queries over {k.shape[-2]} keys"
        raise InputError(request.where, "no more queries than keys where causal", result)
    q, k, v = (_tokens_first(x, heads) for x in (q, k, v))
    return _record(q, k, v, shape, bool(heads), causal)


def divide_attention(request: Request) -> Division:
    """Divide attention by leading axes or by heads, and by queries, with the keys they attend to.

    A head is never divided.
    """
    q, k, v = (request.floats(name, ndims=(2, 3, 4)) for name in _NAMES)
    heads = request.integer("heads", 0)
    shape = (*q.shape[:-1], v.shape[-1])
    before = k.shape[-2] - q.shape[-2]
    causal = request.flag("causal")
    leading = tuple(
        Axis("head_partitioning", "texts" if heads or axis < q.ndim - 3 else "heads", count)
        for axis, count in enumerate(q.shape[:-2])
    )
    side_by_side = (Axis("head_partitioning", "heads", heads),) if heads else ()
    queries = Axis("chunked_attention", "queries", q.shape[-2])

    def piece(spans: tuple[Span, ...]) -> tuple[Request, Any]:
        *outer, (first, end) = spans
        batch = tuple(slice(*span) for span in outer[: len(leading)])
        head_span = outer[len(leading)] if heads else (0, 1)
        n_heads = head_span[1] - head_span[0]
        columns = [
            slice(*(x.shape[-1] // heads * n for n in head_span)) if heads else slice(None)
            for x in (q, k, v)
        ]
        n_keys = before + end if causal else k.shape[-2]
        keys = (*batch, slice(n_keys))
        arrays = {
            "query": q[(*batch, slice(first, end), columns[0])],
            "key": k[(*keys, columns[1])],
            "value": v[(*keys, columns[2])],
        }
        context = {**request.context, **({"heads": n_heads} if heads else {})}
        return (
            Request(request.operation, arrays, context, (*outer, n_keys)),
            (*batch, slice(first, end), columns[2]),
        )

    return Division(
        (*leading, *side_by_side, queries), piece, shape, shape, same_program=not causal
    )


def _tokens_first(x: Floats, heads: int) -> Floats:
    """Reshape to (B, T, H, D)."""
    if heads:
        return x.reshape(-1, x.shape[-2], heads, x.shape[-1] // heads)
    if x.ndim == 4:
        return x.transpose(0, 2, 1, 3)
    return x.reshape(-1, *x.shape[-2:])[:, :, None]


def _record(
    q: Floats, k: Floats, v: Floats, shape: tuple[int, ...], side_by_side: bool, causal: bool
) -> Work:
    """Record the op `dot_product_attention`; D and E are padded with zeros to the larger one.

    Keys and values are weights of the program, so that all pieces of the queries write them once.
    """
    batch, n_queries, heads, size = q.shape
    width = max(size, v.shape[3])
    packed = [_flat(x, width) for x in (q, k, v)]
    graph = Graph("attention_compute")
    result = graph.call(
        "dot_product_attention",
        graph.input("q", packed[0].shape),
        graph.parameter("k", packed[1].shape),
        graph.parameter("v", packed[2].shape),
        None,
        None,
        heads=heads,
        kv_heads=heads,
        causal=causal,
        scale=size**-0.5,
    )

    def finish(y: Array) -> Array:
        y = y.reshape(batch, n_queries, heads, width)[..., : v.shape[3]]
        tokens_first = side_by_side or len(shape) < 4
        return (y if tokens_first else y.transpose(0, 2, 1, 3)).reshape(shape)

    program, finished = single(graph, result, finish)
    return Work(program, {"q": packed[0]}, finished, {"k": packed[1], "v": packed[2]})


def _flat(x: Floats, width: int) -> Floats:
    """Reshape (B, T, H, D) to (B, T, H * width), padded with zeros."""
    if x.shape[3] != width:
        x = np.pad(x, ((0, 0), (0, 0), (0, 0), (0, width - x.shape[3])))
    return np.ascontiguousarray(x.reshape(*x.shape[:2], -1))
