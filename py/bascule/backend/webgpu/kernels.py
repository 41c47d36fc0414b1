"""The kernel table: the shaders, parts and constants for a call on an adapter.

One function per op. Each returns the variants that can compute a call, the default first. A variant
makes a `Kernel`: linked text, override constants, the operands in binding order, and how its
parameters and launch follow from the shapes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from math import prod

from bascule.backend.webgpu import kernels_blocks
from bascule.backend.webgpu.gpu import AdapterInfo
from bascule.backend.webgpu.kernel import Kernel, Numbers, Ranking, Variants, make_kernel
from bascule.backend.webgpu.kernels_images import IMAGE_ROWS
from bascule.backend.webgpu.kernels_positions import POSITION_ROWS
from bascule.backend.webgpu.kernels_sampling import SAMPLING_ROWS
from bascule.backend.webgpu.kernels_signal import SIGNAL_ROWS
from bascule.backend.webgpu.kernels_text import TEXT_ROWS
from bascule.backend.webgpu.launch import (
    elementwise,
    fits,
    flat,
    lane_per_element,
    normalise_groups,
    normalise_rows,
    operand,
)
from bascule.program.ops import POOLINGS
from bascule.program.ops.parts import part_of
from bascule.program.program import Call, Sizes

# A linear kernel and its lanes in x and y.
Shape = tuple[str, int, int]

# Workgroup memory for attention_tile's key and value tiles: WebGPU's default limit.
_TILE_NBYTES = 16384
# Rows and columns per lane.
_SIDES = {"linear_block": 8, "linear_tile": 4}
_LINEAR_SHAPES: tuple[Shape, ...] = (
    ("linear_block", 8, 8),
    ("linear_block", 16, 4),
    ("linear_block", 4, 16),
    ("linear_block", 4, 4),
    ("linear_block", 32, 2),
    ("linear_block", 16, 2),
    ("linear_block", 8, 2),
    ("linear_block", 64, 1),
    ("linear_block", 16, 1),
    ("linear_tile", 16, 4),
    ("linear_tile", 16, 16),
)


def candidates(call: Call, adapter: AdapterInfo) -> tuple[Kernel, ...]:
    """Return every kernel that can compute a call, the default first. Pure."""
    return tuple(make() for make in _ROWS[call.op](call, adapter))


def select(call: Call, adapter: AdapterInfo, ranking: Ranking | None = None) -> Kernel:
    """Choose the kernel for a call. Pure; texts are linked once per process."""
    if ranking is not None and ranking.knows(call):
        return ranking.first(call, candidates(call, adapter))
    return _ROWS[call.op](call, adapter)[0]()


def _default_first(default: Shape, others: Sequence[Shape]) -> list[Shape]:
    return [default, *(shape for shape in others if shape != default)]


def _linear(call: Call, adapter: AdapterInfo) -> Variants:
    x, weight = operand(call, 0), operand(call, 1)
    if weight.dtype != "f32":
        return kernels_blocks.linear(call, adapter)
    cols, inner = weight.limits
    rows = prod(x.limits[:-1])

    def numbers(sizes: Sizes) -> Numbers:
        actual = prod(x.sizes(sizes)[:-1])
        return {"rows": actual, "cols": cols, "inner": inner, "inner4": inner // 4}

    bias = "bias_add" if call.operands[2] else "bias_none"
    residual = "residual_add" if call.operands[3] else "residual_none"
    parts = (bias, f"activation_{call.attribute('activation')}", residual)

    def make_any() -> Kernel:
        return make_kernel(call, "linear_any", numbers, lambda: flat(rows * cols, 64), parts=parts)

    def make(shape: Shape) -> Kernel:
        name, lanes_x, lanes_y = shape
        side = _SIDES[name]
        groups = -(-cols // (side * lanes_x)), -(-rows // (side * lanes_y)), 1
        lanes = {"LANES_X": lanes_x, "LANES_Y": lanes_y}
        label = f"{lanes_x}x{lanes_y}"
        return make_kernel(
            call, name, numbers, lambda: groups, variant=label, parts=parts, constants=lanes
        )

    if inner % 4:
        return [make_any]
    shapes = _default_first(_linear_default(rows, adapter), _LINEAR_SHAPES)
    useful = [s for s in shapes[1:] if _linear_fits(s, rows, adapter)]
    return [*(partial(make, shape) for shape in [shapes[0], *useful]), make_any]


def _linear_default(rows: int, adapter: AdapterInfo) -> Shape:
    if adapter.software:
        return "linear_block", 8, 8
    # Few rows: a flat tile wastes fewer lanes on missing rows.
    if rows <= 16 or adapter.limits["maxComputeInvocationsPerWorkgroup"] < 256:
        return "linear_tile", 16, 4
    return "linear_tile", 16, 16


def _linear_fits(shape: Shape, rows: int, adapter: AdapterInfo) -> bool:
    """Whether the device allows that workgroup, and most of its rows exist."""
    name, lanes_x, lanes_y = shape
    side = _SIDES[name]
    tiles_nbytes = side * (lanes_x + lanes_y) * 5 * 16 if name == "linear_tile" else 0
    return (
        fits(adapter, lanes_x * lanes_y, tiles_nbytes)
        and lanes_x <= adapter.limits["maxComputeWorkgroupSizeX"]
        and -(-rows // (side * lanes_y)) <= adapter.limits["maxComputeWorkgroupsPerDimension"]
        and (lanes_y == 1 or side * lanes_y < 4 * rows)
    )


def _layer_norm(call: Call, adapter: AdapterInfo) -> Variants:
    return normalise_rows(call, adapter, ("residual_add" if call.operands[3] else "residual_none",))


def _attention(call: Call, adapter: AdapterInfo) -> Variants:
    qkv, part = operand(call, 0), part_of(call)
    size = qkv.limits[2] // 3 // part.n_kept
    vec4s = -(-size // 4)
    batch_limit, tokens_limit = qkv.limits[:2]

    def numbers(sizes: Sizes) -> Numbers:
        batch, tokens, _ = qkv.sizes(sizes)
        return {
            "batch": batch,
            "tokens": tokens,
            "heads": part.heads,
            "kept": part.n_kept,
            "x_head": part.first_head - part.first_kept,
            "y_head": part.first_head,
            "first_query": part.first_query,
            "queries": part.queries(tokens),
        }

    parts = ("heads_any" if size % 4 else "heads_vec4",)
    consts = (("HEAD_SIZE", size), ("HEAD_VEC4S", vec4s))

    def make(name: str, lanes: int, keys: int = 0) -> Kernel:
        return make_kernel(
            call,
            name,
            numbers,
            lambda: (-(-part.queries(tokens_limit) // lanes), part.n_heads, batch_limit),
            variant=f"{lanes} keys {keys}" if keys else str(lanes),
            parts=parts,
            consts=consts,
            constants={"WORKGROUP": lanes, "KEYS": keys} if keys else {"WORKGROUP": lanes},
        )

    lanes = [partial(make, "attention_lane", n) for n in (16, 4, 8, 32, 64)]
    # Keys and values of a tile share the workgroup's memory.
    max_keys = _TILE_NBYTES // (2 * 16 * vec4s)
    tiles = [
        partial(make, "attention_tile", n, keys)
        for n, keys in dict.fromkeys(
            (n, min(k, max_keys)) for n, k in ((64, 16), (32, 16), (64, 32))
        )
        if keys and fits(adapter, n, 2 * 16 * vec4s * keys)
    ]
    return [*lanes, *tiles] if adapter.software else [*tiles, *lanes]


def _pool(call: Call, adapter: AdapterInfo) -> Variants:
    del adapter
    x = operand(call, 0)

    def numbers(sizes: Sizes) -> Numbers:
        batch, tokens, cols = x.sizes(sizes)
        return {"batch": batch, "tokens": tokens, "cols": cols}

    parts = ("skipped_given" if call.operands[2] else "skipped_none",)
    kind = {"KIND": float(POOLINGS.index(str(call.attribute("kind"))))}
    return lane_per_element(call, numbers, parts=parts, constants=kind)


def _activate(call: Call, adapter: AdapterInfo) -> Variants:
    return elementwise(call, adapter, (f"activation_{call.attribute('kind')}",))


def _repeating(call: Call, adapter: AdapterInfo) -> Variants:
    """The op's own kernel, a lane per element; its second operand is repeated."""
    del adapter
    x, y = call.result, operand(call, 1)

    def numbers(sizes: Sizes) -> Numbers:
        return {"n": prod(x.sizes(sizes)), "period": prod(y.sizes(sizes))}

    return lane_per_element(call, numbers)


_ROWS: dict[str, Callable[[Call, AdapterInfo], Variants]] = {
    "embedding": kernels_blocks.embedding,
    "linear": _linear,
    "gated_linear": kernels_blocks.gated_linear,
    "token_embedding": kernels_blocks.token_embedding,
    "layer_norm": _layer_norm,
    "attention": _attention,
    "pool": _pool,
    "l2_normalise": normalise_groups,
    "softmax": normalise_rows,
    "activate": _activate,
    "add": _repeating,
    "multiply": _repeating,
    **IMAGE_ROWS,
    **POSITION_ROWS,
    **TEXT_ROWS,
    **SAMPLING_ROWS,
    **SIGNAL_ROWS,
}
