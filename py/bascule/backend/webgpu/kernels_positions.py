"""Rows of the kernel table for what positions add to attention."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import log, prod

from bascule.backend.webgpu.gpu import AdapterInfo
from bascule.backend.webgpu.kernel import Numbers, Variants, make_kernel
from bascule.backend.webgpu.launch import flat, operand
from bascule.program.ops.positions import NUDGE
from bascule.program.program import Call, Sizes


def _relative_bias(call: Call, adapter: AdapterInfo) -> Variants:
    del adapter
    buckets, heads = operand(call, 0).limits
    half, exact = buckets // 2, buckets // 4

    def numbers(sizes: Sizes) -> Numbers:
        return {
            "heads": heads,
            "tokens": call.result.sizes(sizes)[1],
            "half": half,
            "exact": exact,
            "steps": (half - exact) / log(call.whole("max_distance") / exact),
            "nudge": NUDGE,
        }

    lanes = prod(call.result.limits)
    return [lambda: make_kernel(call, "relative_bias", numbers, lambda: flat(lanes, 64))]


def _rope(call: Call, adapter: AdapterInfo) -> Variants:
    del adapter
    x, angles = operand(call, 0), operand(call, 1)

    def numbers(sizes: Sizes) -> Numbers:
        _, tokens, width = shape = x.sizes(sizes)
        return {
            "pairs": prod(shape) // 2,
            "tokens": tokens,
            "width": width,
            "half": call.whole("size") // 2,
            "rows": angles.limits[0],
        }

    lanes = prod(x.limits) // 2
    return [lambda: make_kernel(call, "rope", numbers, lambda: flat(lanes, 64))]


POSITION_ROWS: Mapping[str, Callable[[Call, AdapterInfo], Variants]] = {
    "relative_bias": _relative_bias,
    "rope": _rope,
}
