"""Rows of the kernel table that choose the next token."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

from bascule.backend.webgpu.gpu import AdapterInfo
from bascule.backend.webgpu.kernel import Kernel, Numbers, Variants, make_kernel
from bascule.backend.webgpu.launch import fits, flat, operand
from bascule.program.program import Call, Sizes

# Of ids, in sample_token: at most so many blocks, of no fewer ids.
_BLOCKS = 512
_LEAST_BLOCK = 32


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


def _allowed_token(call: Call, adapter: AdapterInfo) -> Variants:
    logits, tokens, times = operand(call, 0), operand(call, 1), call.attribute("times")
    assert isinstance(times, int)

    def numbers(sizes: Sizes) -> Numbers:
        return {"n": logits.sizes(sizes)[1], "slots": tokens.sizes(sizes)[0], "times": times}

    def make(lanes: int) -> Kernel:
        return make_kernel(
            call,
            "allowed_token",
            numbers,
            lambda: (1, 1, 1),
            variant=str(lanes),
            parts=("rank",),
            constants={"WORKGROUP": lanes},
        )

    order = (64, 16, 256) if adapter.software else (256, 128, 64)
    return [partial(make, n) for n in order if fits(adapter, n, 28 * n)]


def _penalise(call: Call, adapter: AdapterInfo) -> Variants:
    del adapter
    logits, tokens = operand(call, 0), operand(call, 1)

    def numbers(sizes: Sizes) -> Numbers:
        return {"n": logits.sizes(sizes)[1], "slots": tokens.sizes(sizes)[0]}

    lanes = -(-logits.limits[1] // 32)
    return [lambda: make_kernel(call, "penalise", numbers, lambda: flat(lanes, 16))]


def _sample_token(call: Call, adapter: AdapterInfo) -> Variants:
    logits, tokens = operand(call, 0), operand(call, 1)

    def numbers(sizes: Sizes) -> Numbers:
        n = logits.sizes(sizes)[1]
        block = max(_LEAST_BLOCK, -(-n // _BLOCKS))
        return {"n": n, "block": block, "slots": tokens.sizes(sizes)[0]}

    def make(lanes: int) -> Kernel:
        return make_kernel(
            call,
            "sample_token",
            numbers,
            lambda: (1, 1, 1),
            variant=str(lanes),
            parts=("peaks", "random", "rank", "threshold"),
            constants={"WORKGROUP": lanes},
        )

    # A lane leaves sixteen masses and its peaks; a block its peak and its weight.
    order = (16, 32, 64) if adapter.software else (256, 128, 64)
    nbytes = 8 * _BLOCKS + 128
    return [partial(make, n) for n in order if fits(adapter, n, nbytes + 76 * n)]


SAMPLING_ROWS: Mapping[str, Callable[[Call, AdapterInfo], Variants]] = {
    "argmax_token": _argmax_token,
    "allowed_token": _allowed_token,
    "penalise": _penalise,
    "sample_token": _sample_token,
}
