"""Attention on plain arrays: softmax(q @ k.T / sqrt(D)) @ v, as calls of the models' own ops."""

from __future__ import annotations

from bascule.base.arrays import np
from bascule.compat.fallback.operation_work import Array, Chunks, Floats, Request, Work, single
from bascule.errors import InputError
from bascule.program.graph import Graph

_NAMES = ("query", "key", "value")


def attention(request: Request) -> Work:
    """Attend from query (..., T, D) to key (..., S, D) and value (..., S, E), which gives
    (..., T, E) float32.

    Leading axes, up to two, are independent of each other. With `heads` in the context the arrays
    have up to one, and heads lie side by side in the last axis. With `causal` the queries are the
    last T of the S positions, and each meets the keys up to its own.
    """
    heads = request.whole("heads", 0)
    if not heads and request.operation.name == "multi_head_attention":
        told = "arrays (B, H, T, D), or the number of heads in the context"
        request.need(all(np.ndim(request.inputs[n]) == 4 for n in _NAMES), told, *_NAMES)
    ndims = (2, 3) if heads else (2, 3, 4)
    q, k, v = (request.floats(name, ndims=ndims) for name in _NAMES)
    same = q.shape[:-2] == k.shape[:-2] == v.shape[:-2] and k.shape[-2] == v.shape[-2]
    told = "query (..., T, D), key (..., S, D) and value (..., S, E)"
    request.need(same and q.shape[-1] == k.shape[-1], told, *_NAMES)
    if heads:
        ok = q.shape[-1] % heads == 0 and v.shape[-1] % heads == 0
        request.need(ok, f"last axes that {heads} heads divide", *_NAMES)
    shape = (*q.shape[:-1], v.shape[-1])
    q, k, v = (_split(x, heads) for x in (q, k, v))
    if request.flag("causal"):
        if q.shape[2] > k.shape[2]:
            found = f"{q.shape[2]} queries over {k.shape[2]} keys"
            raise InputError(request.where, "no more queries than keys where causal", found)
        return _causal(q, k, v, shape, bool(heads))
    return _all_keys(q, k, v, shape, bool(heads))


def query_chunks(request: Request) -> Chunks:
    """Attention by chunks of queries, each over the keys that it sees; keys stay whole."""
    q, k, v = (request.floats(name, ndims=(2, 3, 4)) for name in _NAMES)
    before = k.shape[-2] - q.shape[-2]
    causal = request.flag("causal")

    def part(first: int, end: int) -> Request:
        seen = before + end if causal else k.shape[-2]
        arrays = {"query": q[..., first:end, :], "key": k[..., :seen, :], "value": v[..., :seen, :]}
        return Request(request.operation, arrays, request.context)

    return Chunks(q.shape[-2], part, -2)


def _split(x: Floats, heads: int) -> Floats:
    """As (B, H, T, D)."""
    if heads:
        batched = x.reshape(-1, x.shape[-2], heads, x.shape[-1] // heads)
        return batched.transpose(0, 2, 1, 3)
    if x.ndim == 3:  # a batch of single heads
        return x[:, None]
    return x[None, None] if x.ndim == 2 else x


def _all_keys(q: Floats, k: Floats, v: Floats, shape: tuple[int, ...], side_by_side: bool) -> Work:
    """By the op `attention`, whose q, k and v have one shape: the shorter are filled up."""
    batch, heads, n_queries, size = q.shape
    n_keys, width = k.shape[2], max(size, v.shape[3])
    tokens = max(n_queries, n_keys)
    packed = np.zeros((batch, tokens, 3, heads, width), np.float32)
    for index, x in enumerate((_rescaled(q, width), k, v)):
        packed[:, : x.shape[2], index, :, : x.shape[3]] = x.transpose(0, 2, 1, 3)
    graph = Graph("attention_compute")
    qkv = graph.input("qkv", (batch, tokens, 3 * heads * width))
    lengths = graph.input("lengths", (batch,), "u32")
    result = graph.call("attention", qkv, lengths, heads=heads)

    def finish(y: Array) -> Array:
        y = y.reshape(batch, tokens, heads, width)[:, :n_queries, :, : v.shape[3]]
        return (y if side_by_side else y.transpose(0, 2, 1, 3)).reshape(shape)

    program, finished = single(graph, result, finish)
    # The filled-up keys are past the length of each row.
    inputs = {
        "qkv": packed.reshape(batch, tokens, -1),
        "lengths": np.full(batch, n_keys, np.uint32),
    }
    return Work(program, inputs, finished)


def _causal(q: Floats, k: Floats, v: Floats, shape: tuple[int, ...], side_by_side: bool) -> Work:
    """By the op `cached_attention` over a cache that holds all keys; rows of a batch are heads."""
    batch, heads, n_queries, size = q.shape
    n_keys = k.shape[2]
    width = -(-max(size, v.shape[3]) // 4) * 4  # the op reads heads by fours
    together = batch * heads
    queries = np.zeros((n_queries, together, width), np.float32)
    queries[:, :, :size] = _tokens_first(_rescaled(q, width))
    cache = np.zeros((n_keys, 2, together, width), np.float32)
    cache[:, 0, :, :size] = _tokens_first(k)
    cache[:, 1, :, : v.shape[3]] = _tokens_first(v)
    graph = Graph("attention_compute")
    result = graph.call(
        "cached_attention",
        graph.input("q", (n_queries, together * width)),
        graph.state("cache", (n_keys, 2 * together * width)),
        graph.input("position", (1,), "u32"),
        heads=together,
        kv_heads=together,
        size=width,
        window=0,
    )

    def finish(y: Array) -> Array:
        y = y.reshape(n_queries, batch, heads, width)[..., : v.shape[3]]
        return y.transpose((1, 0, 2, 3) if side_by_side else (1, 2, 0, 3)).reshape(shape)

    program, finished = single(graph, result, finish)
    position = np.array([n_keys - n_queries], np.uint32)
    inputs = {"q": queries.reshape(n_queries, -1), "position": position}
    return Work(program, inputs, finished, states={"cache": cache.reshape(n_keys, -1)})


def _tokens_first(x: Floats) -> Floats:
    """(B, H, T, D) as (T, B * H, D)."""
    batch, heads, tokens, size = x.shape
    return x.transpose(2, 0, 1, 3).reshape(tokens, batch * heads, size)


def _rescaled(q: Floats, width: int) -> Floats:
    """Queries of which an op that divides by sqrt(width) makes what 1 / sqrt(D) would."""
    size = q.shape[3]
    return q if width == size else q * np.float32((width / size) ** 0.5)
