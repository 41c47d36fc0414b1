"""Tiled extraction: what a convolution sees of an image is made and used by bands of its lines."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from bascule.errors import LimitError
from bascule.program.ops import operand, with_operands
from bascule.program.ops.images import windows_of
from bascule.program.program import Call, Program, Value
from bascule.program.rewrites.rewrite import Limits, Taken, rebuilt


def tiled_extraction(program: Program, limits: Limits) -> tuple[Program, Sequence[Taken]]:
    """See `Rewrite`: for `patches` that a linear layer alone reads.

    Their rows exceed the image many times over; in bands only one band of them is there at a time,
    and each goes to its place in the result. Where memory does not even hold a line, bands are
    lines. LimitError where no binding holds one, or the result.
    """
    taken: list[Taken] = []
    for patches, linear in _pairs(program):
        reason, n, lines = _demanded(program, limits, patches, linear)
        if not reason:
            continue
        banded = _with_bands(program, patches, linear, n)
        # The plan of the memory may give the whole a slot that a band would have had.
        while banded.planned_nbytes > limits.memory_nbytes and n < lines:
            n = min(n + -(-n // 8), lines)
            banded = _with_bands(program, patches, linear, n)
        program = banded
        taken.append(Taken("tiled_extraction", reason, n))
    return program, taken


def _pairs(program: Program) -> list[tuple[Call, Call]]:
    """Each `patches` with the linear layer that alone reads it."""
    readers = Counter(o.name for call in program.calls for o in call.operands if o is not None)
    readers.update(v.name for v in program.outputs)
    seen = {call.result.name: call for call in program.calls if call.op == "patches"}
    found: list[tuple[Call, Call]] = []
    for call in program.calls:
        x = call.operands[0]
        patches = seen.get(x.name) if x is not None and call.op == "linear" else None
        if (
            patches is not None
            and operand(call, "residual") is None
            and readers[patches.result.name] == 1
        ):
            found.append((patches, call))
    return found


def _with_bands(program: Program, patches: Call, linear: Call, n: int) -> Program:
    calls: list[Call] = []
    for call in program.calls:
        if call is linear:
            calls += _banded(patches, linear, n)
        elif call is not patches:
            calls.append(call)
    return rebuilt(program, calls)


def _demanded(
    program: Program, limits: Limits, patches: Call, linear: Call
) -> tuple[str, int, int]:
    """The limit that is broken ("": none), into how many bands that calls for, and of how many
    lines.
    """
    x, y = patches.operands[0], linear.result
    assert x is not None
    lines = windows_of(x.limits, dict(patches.attributes)).lines
    a_line, out_line = patches.result.nbytes // lines, y.nbytes // lines
    if max(a_line, y.nbytes) > limits.binding_nbytes:
        what, needs = (y.name, y.nbytes) if y.nbytes > a_line else ("a line of patches", a_line)
        limit = f"a binding holds at most {limits.binding_nbytes:,.0f}"
        raise LimitError(what, f"{needs:,} bytes", limit, hint="Take a smaller image.")
    work = patches.result.nbytes // 4 * y.limits[1]
    # Needed, allowed, left for bands, of a line, and what it is.
    bounds = (
        (
            program.planned_nbytes,
            limits.memory_nbytes,
            limits.memory_nbytes - y.nbytes,  # the whole is there beside a band
            a_line + out_line,
            "bytes of memory",
        ),
        (
            patches.result.nbytes,
            limits.binding_nbytes,
            limits.binding_nbytes,
            a_line,
            "bytes of patches to bind",
        ),
        (work, limits.dispatch_work, limits.dispatch_work, work // lines, "multiply-adds at once"),
    )
    broken = [bound for bound in bounds if bound[0] > bound[1]]
    if not broken:
        return "", 1, lines
    needs, limit, *_, what = broken[0]
    reason = f"{needs:,} {what}, and {limit:,.0f} are allowed"
    return reason, max(_bands(lines, room, each) for _, _, room, each, _ in broken), lines


def _bands(lines: int, room: float, each: int) -> int:
    """As few bands as keep `each` a line within `room`; at most one a line."""
    most = max(1, int(room // each))
    return -(-lines // most)


def _banded(patches: Call, linear: Call, n: int) -> list[Call]:
    """n bands: their patches, their products, and these put in their places."""
    x, y = patches.operands[0], linear.result
    assert x is not None
    windows = windows_of(x.limits, dict(patches.attributes))
    ends = [windows.lines * i // n for i in range(n + 1)]
    calls: list[Call] = []
    onto: Value | None = None
    for index in range(n):
        first, count = ends[index], ends[index + 1] - ends[index]
        rows = count * windows.out_width
        own = {**dict(patches.attributes), "first": windows.first + first, "lines": count}
        band = replace(
            patches,
            result=Value(f"{patches.result.name}.{index}", (rows, windows.cols)),
            attributes=tuple(sorted(own.items())),
        )
        product = replace(
            with_operands(linear, x=band.result),
            result=Value(f"{y.name}.{index}", (rows, y.shape[1])),
        )
        place = (("first", first * windows.out_width), ("whole", y.limits[0]))
        whole = y if index == n - 1 else replace(y, name=f"{y.name}.to{index}")
        calls += [band, product, Call("place_rows", (product.result, onto), whole, place)]
        onto = whole
    return calls
