"""Rows of the kernel table for ops on images."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import prod

from bascule.backend.webgpu.gpu import AdapterInfo
from bascule.backend.webgpu.kernel import Numbers, Variants
from bascule.backend.webgpu.launch import lane_per_element, operand
from bascule.program.ops.images import windows_of
from bascule.program.program import Call, Sizes

_OWN = ("k_width", "stride_y", "stride_x", "pad_y", "pad_x")


def _patches(call: Call, adapter: AdapterInfo) -> Variants:
    del adapter
    x = operand(call, 0)
    windows = windows_of(x.limits, dict(call.attributes))
    _, height, width, channels = x.limits

    def numbers(sizes: Sizes) -> Numbers:
        del sizes  # all of them are known
        return {
            "n": prod(call.result.limits),
            "cols": windows.cols,
            "channels": channels,
            "height": height,
            "width": width,
            "out_height": windows.out_height,
            "out_width": windows.out_width,
            "first": windows.first,
            **{name: call.integer(name) for name in _OWN},
        }

    return lane_per_element(call, numbers)


IMAGE_ROWS: Mapping[str, Callable[[Call, AdapterInfo], Variants]] = {
    "patches": _patches,
}
