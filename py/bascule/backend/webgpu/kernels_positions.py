"""Rows of the kernel table for what positions add to attention."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import log, prod

from bascule.backend.webgpu.gpu import AdapterInfo
from bascule.backend.webgpu.kernel import Numbers, Variants
from bascule.backend.webgpu.launch import lane_per_element, operand
from bascule.program.ops.positions import NUDGE
from bascule.program.program import Call, Sizes


def _relative_bias(call: Call, adapter: AdapterInfo) -> Variants:
    del adapter
    buckets, heads = operand(call, 0).limits
    causal = bool(call.attribute("causal"))
    side = buckets if causal else buckets // 2
    exact = side // 2
    part = "first_query_given" if call.operands[1] else "first_query_none"

    def numbers(sizes: Sizes) -> Numbers:
        _, queries, keys = call.result.sizes(sizes)
        return {
            "heads": heads,
            "queries": queries,
            "keys": keys,
            "side": side,
            "exact": exact,
            "causal": int(causal),
            "steps": (side - exact) / log(call.integer("max_distance") / exact),
            "nudge": NUDGE,
        }

    return lane_per_element(call, numbers, parts=(part,))


def _rope(call: Call, adapter: AdapterInfo) -> Variants:
    del adapter
    x, angles = operand(call, 0), operand(call, 1)

    def numbers(sizes: Sizes) -> Numbers:
        _, tokens, width = shape = x.sizes(sizes)
        return {
            "pairs": prod(shape) // 2,
            "tokens": tokens,
            "width": width,
            "half": call.integer("size") // 2,
            "rows": angles.limits[0],
        }

    return lane_per_element(call, numbers, lanes=prod(x.limits) // 2)


POSITION_ROWS: Mapping[str, Callable[[Call, AdapterInfo], Variants]] = {
    "relative_bias": _relative_bias,
    "rope": _rope,
}
