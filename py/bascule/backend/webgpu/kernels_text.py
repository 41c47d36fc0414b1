"""Rows of the kernel table for language models: everything between the linear layers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from itertools import accumulate
from math import prod

from bascule.backend.webgpu.gpu import AdapterInfo
from bascule.backend.webgpu.kernel import Kernel, Numbers, Variants, Workgroups, make_kernel
from bascule.backend.webgpu.launch import (
    by_workgroup,
    elementwise,
    fits,
    flat,
    lane_per_element,
    normalise_rows,
    operand,
)
from bascule.program.ops import MAX_AXES, MAX_JOINED
from bascule.program.ops.parts import part_of
from bascule.program.program import Call, Dim, Sizes, Value

# Up to this many queries per KV head each has a workgroup of its own on hardware.
_FEW_ROWS = 16
# Kernels of matmul: rows and columns of the result per lane, and whether there are slots.
_MATMULS = {"matmul": (4, 4, False), "matmul_block": (8, 8, True), "matmul_row": (1, 4, True)}
# Rows of a matrix up to which matmul_row is the default.
_ROWS_ALONE = 3


def _matmul(call: Call, adapter: AdapterInfo) -> Variants:
    x, y = operand(call, 0), operand(call, 1)
    transposed, shared = call.attribute("transposed"), len(y.shape) == 2

    def numbers(sizes: Sizes) -> Numbers:
        *batch, rows, cols = call.result.sizes(sizes)
        inner = x.sizes(sizes)[-1]
        return {
            "batch": prod(batch),
            "rows": rows,
            "cols": cols,
            "inner": inner,
            "y_batch": 0 if shared else inner * cols,
            "y_k": 1 if transposed else cols,
            "y_col": inner if transposed else 1,
        }

    *batch, rows, cols = call.result.limits
    parts = _matmul_parts(x, y, transposed=bool(transposed))

    def make(name: str, workgroup: int) -> Kernel:
        height, width, slots = _MATMULS[name]
        lanes = prod(batch) * -(-rows // height) * -(-cols // width)
        return make_kernel(
            call,
            name,
            numbers,
            lambda: flat(lanes, workgroup),
            variant=str(workgroup),
            parts=parts if slots else (),
            constants={"WORKGROUP": workgroup},
        )

    names = ["matmul_block", "matmul"]
    if rows <= _ROWS_ALONE:
        names = ["matmul_row", *names]
    workgroups = (16, 64) if adapter.software else (64, 16)
    return [partial(make, name, n) for name in names for n in workgroups]


def _matmul_parts(x: Value, y: Value, *, transposed: bool) -> tuple[str, str]:
    """Return how x and y are read: by vec4s if all their rows are multiples of 4."""
    inner, cols = x.shape[-1], y.shape[-1]
    if isinstance(inner, Dim) or inner % 4:
        return "left_any", "right_any"
    if transposed:
        return "left_vec4", "right_columns"
    by_fours = isinstance(cols, int) and cols % 4 == 0
    return "left_vec4", "right_rows" if by_fours else "right_any"


def _dot_product_attention(call: Call, adapter: AdapterInfo) -> Variants:
    q, k = operand(call, 0), operand(call, 1)
    heads, kv_heads = call.integer("heads"), call.integer("kv_heads")
    batch_limit, queries_limit, width = q.limits
    size = width // heads

    def numbers(sizes: Sizes) -> Numbers:
        batch, queries, _ = q.sizes(sizes)
        return {
            "batch": batch,
            "queries": queries,
            "keys": k.sizes(sizes)[1],
            "heads": heads,
            "kv_heads": kv_heads,
            "causal": int(bool(call.attribute("causal"))),
            "window": call.integer("window"),
            "scale": call.number("scale") or size**-0.5,
        }

    def launch(lanes: int) -> Workgroups:
        return -(-queries_limit // lanes), heads, batch_limit

    parts = (
        "key_count_given" if call.operands[3] else "key_count_none",
        "score_bias_add" if call.operands[4] else "score_bias_none",
    )
    lanes, consts = (16, 4, 64) if adapter.software else (64, 16), (("HEAD_SIZE", size),)
    return by_workgroup(call, numbers, launch, lanes, parts=parts, consts=consts)


def _transpose(call: Call, adapter: AdapterInfo) -> Variants:
    del adapter
    x, axes = operand(call, 0), [int(axis) for axis in str(call.attribute("axes"))]
    absent = MAX_AXES - len(axes)

    def numbers(sizes: Sizes) -> Numbers:
        shape = x.sizes(sizes)
        steps = [prod(shape[axis + 1 :]) for axis in axes]
        params: dict[str, int] = {"n": prod(shape)}
        for at, size in enumerate([1] * absent + [shape[axis] for axis in axes]):
            params |= {f"size_{at}": size, f"step_{at}": steps[at - absent] if at >= absent else 0}
        return params

    return lane_per_element(call, numbers)


def _concat(call: Call, adapter: AdapterInfo) -> Variants:
    del adapter
    present = [value for value in call.operands if value is not None]
    n_absent = MAX_JOINED - len(present)
    widths = [*(value.limits[-1] for value in present), *[0] * n_absent]
    ends = dict(zip((f"{name}_end" for name in "abcdefg"), accumulate(widths), strict=True))

    def numbers(sizes: Sizes) -> Numbers:
        return {"rows": prod(call.result.sizes(sizes)[:-1]), **ends}

    def make() -> Kernel:
        kernel = make_kernel(call, "concat", numbers, lambda: flat(lanes, 64))
        return replace(kernel, operands=(*present, *present[:1] * n_absent, call.result))

    lanes = prod(call.result.limits)
    return [make]


def _rope_append(call: Call, adapter: AdapterInfo) -> Variants:
    del adapter
    qkv, cache = operand(call, 0), operand(call, 1)
    size, part = call.integer("size"), part_of(call)

    def numbers(sizes: Sizes) -> Numbers:
        tokens, slots = qkv.sizes(sizes)[0], cache.sizes(sizes)[0]
        return {
            "tokens": tokens,
            "slots": slots,
            "heads": part.heads,
            "kv_heads": part.kv_heads,
            "size": size,
            "first_kept": part.first_kept,
            "kept": part.n_kept,
        }

    lanes = qkv.limits[0] * (part.n_heads + 2 * part.n_kept) * size // 4
    parts = (f"cache_out_{cache.dtype}",)
    adjacent = {"ADJACENT": float(call.attribute("pairs") == "adjacent")}
    return lane_per_element(call, numbers, lanes=lanes, parts=parts, constants=adjacent)


def _kv_append(call: Call, adapter: AdapterInfo) -> Variants:
    del adapter
    kv, cache = operand(call, 0), operand(call, 1)

    def numbers(sizes: Sizes) -> Numbers:
        slots = cache.sizes(sizes)[0]
        return {"tokens": kv.sizes(sizes)[0], "slots": slots, "pairs": kv.limits[1] // 2}

    parts = (f"cache_out_{cache.dtype}",)
    return lane_per_element(call, numbers, lanes=prod(kv.limits) // 2, parts=parts)


def _cached_attention(call: Call, adapter: AdapterInfo) -> Variants:
    q, cache = operand(call, 0), operand(call, 1)
    size, window, part = call.integer("size"), call.integer("window"), part_of(call)
    rows_limit = part.queries(q.limits[0]) * part.sharing
    cap = "cap_tanh" if call.number("softcap") else "cap_none"

    def numbers(sizes: Sizes) -> Numbers:
        tokens, slots = q.sizes(sizes)[0], cache.sizes(sizes)[0]
        return {
            "tokens": tokens,
            "slots": slots,
            "heads": part.heads,
            "kept": part.n_kept,
            "window": window,
            "sharing": part.sharing,
            "x_head": part.first_kv_head - part.first_kept,
            "y_head": part.first_head,
            "first_query": part.first_query,
            "queries": part.queries(tokens),
            "scale": call.number("scale") or size**-0.5,
            "softcap": call.number("softcap"),
        }

    def make(name: str, lanes: int, rows: int = 1, keys: int = 0) -> Kernel:
        constants = {"WORKGROUP": lanes} | ({"ROWS": rows, "KEYS": keys} if keys else {})
        return make_kernel(
            call,
            f"cached_attention_{name}",
            numbers,
            lambda: (-(-rows_limit // rows), part.n_kv_heads, 1),
            variant=f"{lanes} rows {rows} keys {keys}" if keys else str(lanes),
            parts=(f"cache_{cache.dtype}", "rows", cap),
            consts=(("HEAD_SIZE", size), ("HEAD_VEC4S", size // 4)),
            constants=constants,
        )

    def make_blocks(*shapes: tuple[int, int], min_lanes: int) -> Iterator[Callable[[], Kernel]]:
        for rows, keys in shapes:
            quads = rows // 4
            lanes = max(quads * -(-size // 8), min_lanes)
            if fits(adapter, lanes, (keys * quads + lanes) * 16):
                yield partial(make, "block", lanes, rows, keys)

    if adapter.software:
        # Queries and sums stay in registers, in tiles of 16 columns, at most eight.
        tiled = size % 16 == 0 and size <= 128
        groups = [partial(make, "group", n, 4) for n in (8, 4)] if tiled else []
        return [*groups, *make_blocks((8, 32), min_lanes=8)]
    splits = [
        partial(make, "split", n) for n in (64, 32, 128, 16) if fits(adapter, n, n * (4 * size + 8))
    ]
    blocks = [*make_blocks((32, 32), (16, 32), (16, 64), (64, 16), min_lanes=64)]
    # If most rows of a block would be missing, more lanes share a row's keys.
    return [*splits, *blocks] if rows_limit <= _FEW_ROWS else [*blocks, *splits]


TEXT_ROWS: Mapping[str, Callable[[Call, AdapterInfo], Variants]] = {
    "scale": partial(elementwise, by="by"),
    "softcap": partial(elementwise, cap="cap"),
    "matmul": _matmul,
    "concat": _concat,
    "transpose": _transpose,
    "dot_product_attention": _dot_product_attention,
    "rms_norm": normalise_rows,
    "rope_append": _rope_append,
    "kv_append": _kv_append,
    "cached_attention": _cached_attention,
}
