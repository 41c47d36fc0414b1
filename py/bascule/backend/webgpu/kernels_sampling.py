"""Rows of the kernel table that choose the next token."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from bascule.backend.webgpu.gpu import AdapterInfo
from bascule.backend.webgpu.kernel import Numbers, Variants
from bascule.backend.webgpu.launch import (
    by_workgroup,
    fits,
    lane_per_element,
    one_workgroup,
    operand,
)
from bascule.program.program import Call, Sizes

# Blocks of ids in sample_token: their largest number, and their smallest size.
_BLOCKS = 512
_MIN_BLOCK = 32


def _logits(call: Call, sizes: Sizes) -> dict[str, int]:
    """Return the number of logits, and of slots for tokens."""
    n = operand(call, 0).sizes(sizes)[1]
    return {"n": n, "slots": operand(call, 1).sizes(sizes)[0]}


def _argmax_token(call: Call, adapter: AdapterInfo) -> Variants:
    lanes = [n for n in _orders(adapter) if fits(adapter, n, 8 * n)]
    return by_workgroup(call, lambda s: _logits(call, s), one_workgroup, lanes, parts=("rank",))


def _allowed_token(call: Call, adapter: AdapterInfo) -> Variants:
    def numbers(sizes: Sizes) -> Numbers:
        return {**_logits(call, sizes), "times": call.integer("times")}

    lanes = [n for n in _orders(adapter) if fits(adapter, n, 28 * n)]
    return by_workgroup(call, numbers, one_workgroup, lanes, parts=("rank",))


def _orders(adapter: AdapterInfo) -> tuple[int, ...]:
    return (64, 16, 256) if adapter.software else (256, 128, 64)


def _penalise(call: Call, adapter: AdapterInfo) -> Variants:
    del adapter
    lanes = -(-operand(call, 0).limits[1] // 32)
    return lane_per_element(call, lambda s: _logits(call, s), lanes=lanes, workgroup=16)


def _sample_token(call: Call, adapter: AdapterInfo) -> Variants:
    def numbers(sizes: Sizes) -> Numbers:
        result = _logits(call, sizes)
        return {**result, "block": max(_MIN_BLOCK, -(-result["n"] // _BLOCKS))}

    # A lane leaves sixteen masses and its peaks; a block its peak and its weight.
    order = (16, 32, 64) if adapter.software else (256, 128, 64)
    nbytes = 8 * _BLOCKS + 128
    lanes = [n for n in order if fits(adapter, n, nbytes + 76 * n)]
    parts = ("peaks", "random", "rank", "threshold")
    return by_workgroup(call, numbers, one_workgroup, lanes, parts=parts)


SAMPLING_ROWS: Mapping[str, Callable[[Call, AdapterInfo], Variants]] = {
    "argmax_token": _argmax_token,
    "allowed_token": _allowed_token,
    "penalise": _penalise,
    "sample_token": _sample_token,
}
