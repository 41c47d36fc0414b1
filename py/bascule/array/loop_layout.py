"""The memory layout of a loop's operands: loops over axes, the vectors' axis innermost."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any

from bascule.array.loops import LANES
from bascule.base.arrays import np

if TYPE_CHECKING:
    from bascule.array.dtypes import DType
    from bascule.array.graph import Shape

# How often what varies along a short axis is repeated, at best.
_REPEATS = (64, 32, 16, 8, 4, 2, 1)


@dataclass(frozen=True, slots=True)
class Axis:
    """`steps`: bytes from one element to the next, of the result and of each operand; 0: none."""

    size: int
    reduced: bool
    steps: list[int]


@dataclass(frozen=True, slots=True)
class Layout:
    """The loops' axes from outermost to innermost, kept ones first; the vectors' axis; dense
    memory.

    `back`: the position of the vectors' axis in the result, whose memory has it last; None if last.
    """

    axes: list[Axis]
    vector: Axis
    operands: list[Any]
    result: Any
    back: int | None

    @property
    def n_kept(self) -> int:
        """The number of the result's axes, without the vectors'."""
        return sum(not axis.reduced for axis in self.axes)

    def numbers(self, axes: Sequence[Axis], columns: int) -> list[int]:
        """Return a loop's params before the addresses."""
        return [columns, *(axis.size for axis in axes), *(s for axis in axes for s in axis.steps)]

    def finished(self, shape: Shape) -> Any:
        """Return the computed result in its final shape."""
        if self.back is None:
            return self.result.reshape(shape)
        return np.ascontiguousarray(np.moveaxis(self.result, -1, self.back)).reshape(shape)

    def parts(self, max_elements: int | None) -> Iterator[tuple[Any, list[Any], list[int]]]:
        """Yield result, operands and numbers of each call, of about `max_elements` if given."""
        whole = (self.result, *self.operands)
        cut = self._cut(max_elements) if max_elements else None
        if cut is None:
            yield self.result, self.operands, self.numbers(self.axes, self.vector.size)
            return
        first, step = cut
        for start in range(0, first.size, step):
            stop = min(first.size, start + step)
            if first is self.vector:  # no part is shorter than a vector: it then begins earlier
                start = max(0, min(start, stop - LANES))
            parts = [
                each.reshape(-1)[start * by // each.itemsize : stop * by // each.itemsize]
                if by
                else each
                for each, by in zip(whole, first.steps, strict=True)
            ]
            inside = [Axis(stop - start, False, first.steps), *self.axes[1:]]
            axes, columns = (
                (self.axes, stop - start) if first is self.vector else (inside, self.vector.size)
            )
            yield parts[0], parts[1:], self.numbers(axes, columns)

    def _cut(self, max_elements: int) -> tuple[Axis, int] | None:
        """Return the axis to divide, and its elements per part; None if it is not outermost."""
        first = self.axes[0] if self.axes else self.vector
        if first.reduced:
            return None
        each = prod(axis.size for axis in (*self.axes, self.vector)) // first.size
        slowest = all(
            by in (0, array.nbytes // first.size)
            for array, by in zip((self.result, *self.operands), first.steps, strict=True)
        )
        return (first, max(LANES, max_elements // each)) if slowest else None


def layout_of(
    values: Sequence[Any], space: Shape, over: Sequence[int], end: tuple[DType, bool]
) -> Layout | None:
    """Lay out loops over a `space`; `values` have its axes, of size 1 where they do not vary.

    `over`: the reduced axes. `end`: the result's dtype, and whether it has the reduced axes, too.
    None if no axis is as long as a vector.
    """
    dtype, inner_result = end
    arrays = [_without_repeats(value) for value in values]
    axes = _merged(_axes(arrays, space, over, dtype.itemsize, inner_result))
    while True:
        costs = [
            (_cost(axis, arrays, dtype.itemsize, prod(space)), -axis.size, at)
            for at, axis in enumerate(axes)
            if axis.size >= LANES
        ]
        divided = _divided(axes)
        repeated = _cost_of_repeating(divided)
        if repeated is None or (costs and min(costs)[0] <= repeated):
            break
        arrays, axes = _repeated(arrays, divided)
    if not costs:
        return None
    at = min(costs)[2]
    operands = [_dense(array, axes, k, at) for k, array in enumerate(arrays, start=1)]
    shape = [axis.size for axis in axes if inner_result or not axis.reduced]
    result, back = _result(axes, at, dtype, shape)
    vector = axes.pop(at)
    axes.sort(key=lambda axis: axis.reduced)
    return Layout(axes, vector, operands, result, back)


def _without_repeats(value: Any) -> Any:
    """Return an array without repeated elements."""
    if 0 not in value.strides:
        return value
    return value[tuple(slice(0, 1) if step == 0 else slice(None) for step in value.strides)]


def _axes(
    arrays: Sequence[Any], space: Shape, over: Sequence[int], itemsize: int, inner_result: bool
) -> list[Axis]:
    """Return all axes with more than one element."""
    steps: dict[int, int] = {}
    dense = itemsize
    for at in reversed(range(len(space))):
        steps[at] = dense if inner_result or at not in over else 0
        dense *= space[at] if steps[at] else 1
    axes = [
        Axis(
            space[at], at in over,
            [steps[at], *(a.strides[at] if a.shape[at] > 1 else 0 for a in arrays)],
        )
        for at in range(len(space))
        if space[at] > 1
    ]  # fmt: skip
    return axes


def _merged(axes: Sequence[Axis]) -> list[Axis]:
    """Merge neighbouring axes that are one axis in every array."""
    result: list[Axis] = []
    for axis in axes:
        before = result[-1] if result else None
        if (
            before is not None
            and before.reduced == axis.reduced
            and all(a == b * axis.size for a, b in zip(before.steps, axis.steps, strict=True))
        ):
            result[-1] = Axis(before.size * axis.size, axis.reduced, axis.steps)
        else:
            result.append(axis)
    return result


def _cost(axis: Axis, arrays: Sequence[Any], itemsize: int, size: int) -> int:
    """Return the number of elements to copy for vectors along an axis."""
    copied = sum(
        array.size
        for array, step in zip(arrays, axis.steps[1:], strict=True)
        if step not in (0, array.itemsize)
    )
    return copied + (0 if axis.steps[0] in (0, itemsize) else size)


def _divided(axes: list[Axis]) -> list[Axis]:
    """Divide the second-last axis in two if the last is short.

    What varies along the last is then repeated only as often as the inner one of them is long.
    """
    if len(axes) < 2 or axes[-1].size >= LANES or not axes[-1].size * LANES <= axes[-2].size:
        return axes
    outer, n = axes[-2], next(n for n in _REPEATS if axes[-2].size % n == 0)
    if n == outer.size or n * axes[-1].size < LANES:
        return axes
    parts = [
        Axis(outer.size // n, outer.reduced, [step * n for step in outer.steps]),
        Axis(n, outer.reduced, outer.steps),
    ]
    return [*axes[:-2], *parts, axes[-1]]


def _cost_of_repeating(axes: Sequence[Axis]) -> int | None:
    """Return the elements to copy to merge the last two axes; None unless the last is too short."""
    if len(axes) < 2 or axes[-1].size >= LANES or axes[-1].reduced != axes[-2].reduced:
        return None
    return sum(
        prod(axis.size for axis in axes[:-2] if axis.steps[k]) * axes[-2].size * axes[-1].size
        for k in _split_arrays(axes)
    )


def _split_arrays(axes: Sequence[Axis]) -> list[int]:
    """Return the arrays in which the last two axes are not one."""
    first, last = axes[-2:]
    pairs = enumerate(zip(first.steps, last.steps, strict=True))
    return [k for k, (outside, inside) in pairs if outside != inside * last.size]


def _repeated(arrays: Sequence[Any], axes: list[Axis]) -> tuple[list[Any], list[Axis]]:
    """Copy the operands in which the last two axes are not one, so that they are."""
    result = list(arrays)
    for k in _split_arrays(axes):
        if k == 0:
            continue  # a result is dense
        steps = [axis.steps[k] for axis in axes]
        sizes = [axis.size if step else 1 for axis, step in zip(axes, steps, strict=True)]
        shown = np.lib.stride_tricks.as_strided(arrays[k - 1], sizes, steps, writeable=False)
        copy = np.ascontiguousarray(
            np.broadcast_to(shown, (*sizes[:-2], *(a.size for a in axes[-2:])))
        )
        for axis, step, n in zip(axes, copy.strides, copy.shape, strict=True):
            axis.steps[k] = step if n > 1 else 0
        result[k - 1] = copy
    return result, _merged(axes)


def _dense(array: Any, axes: list[Axis], k: int, vector: int) -> Any:
    """Return the array's memory, dense, with the vectors' axis last if it was elsewhere."""
    if array.size == 1:
        return array
    steps = [axis.steps[k] for axis in axes]
    sizes = [axis.size if step else 1 for axis, step in zip(axes, steps, strict=True)]
    reach = sum((n - 1) * step for n, step in zip(sizes, steps, strict=True)) + array.itemsize
    fits = steps[vector] in (0, array.itemsize) and min(steps, default=0) >= 0
    if fits and reach == array.nbytes:
        order = sorted(range(array.ndim), key=lambda at: -array.strides[at])
        return array if array.flags.c_contiguous else array.transpose(order)
    shown = np.lib.stride_tricks.as_strided(array, sizes, steps, writeable=False)
    result = np.ascontiguousarray(np.moveaxis(shown, vector, -1))
    moved = np.moveaxis(result, -1, vector)
    for at, axis in enumerate(axes):
        axis.steps[k] = moved.strides[at] if sizes[at] > 1 else 0
    return result


def _result(
    axes: list[Axis], vector: int, dtype: DType, shape: list[int]
) -> tuple[Any, int | None]:
    """Allocate the result, the vectors' axis last if necessary; return its final place, too."""
    if axes[vector].steps[0] in (0, dtype.itemsize):
        return np.empty(shape, dtype), None
    mine = [at for at, axis in enumerate(axes) if axis.steps[0]]
    back = mine.index(vector)
    order = [n for at, n in enumerate(shape) if at != back]
    result = np.empty((*order, shape[back]), dtype)
    moved = np.moveaxis(result, -1, back)
    for at, place in enumerate(mine):
        axes[place].steps[0] = moved.strides[at]
    return result, back
