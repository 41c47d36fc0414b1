"""Rows of the kernel table for ops on signals and recurrent ops."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from math import prod

from bascule.backend.webgpu.gpu import AdapterInfo
from bascule.backend.webgpu.kernel import Numbers, Variants
from bascule.backend.webgpu.launch import (
    by_workgroup,
    elementwise,
    fits,
    flat,
    lane_per_element,
    one_workgroup,
    operand,
)
from bascule.program.program import Call, Sizes

# Loop iterations that lavapipe grants an invocation, including nested ones.
_MAX_ROUNDS = 65_535


def _frames(call: Call, adapter: AdapterInfo) -> Variants:
    count, width = call.result.limits

    def numbers(sizes: Sizes) -> Numbers:
        del sizes  # all of them are known
        samples = operand(call, 0).limits[0]
        params = {"count": count, "width": width, "samples": samples}
        return {**params, "step": call.integer("step"), "pad": call.integer("pad")}

    lanes = [n for n in (64, 256) if fits(adapter, n)]
    return by_workgroup(call, numbers, partial(flat, count * width), lanes)


def _largest(call: Call, adapter: AdapterInfo) -> Variants:
    def numbers(sizes: Sizes) -> Numbers:
        return {"n": prod(operand(call, 0).sizes(sizes))}

    order = (16, 256) if adapter.software else (256, 64, 16)
    lanes = [n for n in order if fits(adapter, n, 4 * n)]
    return by_workgroup(call, numbers, one_workgroup, lanes)


def _magnitude(call: Call, adapter: AdapterInfo) -> Variants:
    del adapter

    def numbers(sizes: Sizes) -> Numbers:
        shape = call.result.sizes(sizes)
        return {"n": prod(shape), "half": shape[-1]}

    return lane_per_element(call, numbers)


def _lstm(call: Call, adapter: AdapterInfo) -> Variants:
    size = call.result.limits[-1] // 2

    def numbers(sizes: Sizes) -> Numbers:
        return {"steps": call.result.sizes(sizes)[0]}

    def rounds(lanes: int) -> int:
        """Return the most loop iterations in one lane."""
        steps, units = call.result.limits[0], -(-size // lanes)
        return 1 + units + steps * (1 + units * (3 + size // 4 + size % 4))

    order = (64, 128, 256, 16) if adapter.software else (256, 128, 64, 16)
    lanes = [n for n in order if fits(adapter, n, 4 * size)]
    useful = [n for n in lanes if n < 2 * size and rounds(n) <= _MAX_ROUNDS] or [max(lanes)]
    return by_workgroup(call, numbers, one_workgroup, useful, consts=(("HIDDEN", size),))


SIGNAL_ROWS: Mapping[str, Callable[[Call, AdapterInfo], Variants]] = {
    "frames": _frames,
    "largest": _largest,
    "magnitude": _magnitude,
    "lstm": _lstm,
    "log10": partial(elementwise, minimum="floor"),
    "limit_range": partial(elementwise, span="span", scale="scale", offset="offset"),
}
