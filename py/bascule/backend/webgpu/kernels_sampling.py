"""Rows of the kernel table that choose the next token."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

from bascule.backend.webgpu.gpu import AdapterInfo
from bascule.backend.webgpu.kernel import Kernel, Numbers, Variants, make_kernel
from bascule.backend.webgpu.launch import fits, operand
from bascule.program.program import Call, Sizes


def _argmax_token(call: Call, adapter: AdapterInfo) -> Variants:
    logits, tokens = operand(call, 0), operand(call, 1)

    def numbers(sizes: Sizes) -> Numbers:
        return {"n": logits.sizes(sizes)[1], "slots": tokens.sizes(sizes)[0]}

    def make(lanes: int) -> Kernel:
        return make_kernel(
            call,
            "argmax_token",
            numbers,
            lambda: (1, 1, 1),
            variant=str(lanes),
            parts=("rank",),
            constants={"WORKGROUP": lanes},
        )

    order = (64, 16, 256) if adapter.software else (256, 128, 64)
    return [partial(make, n) for n in order if fits(adapter, n, 8 * n)]


SAMPLING_ROWS: Mapping[str, Callable[[Call, AdapterInfo], Variants]] = {
    "argmax_token": _argmax_token,
}
