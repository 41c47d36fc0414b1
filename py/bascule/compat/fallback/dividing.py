"""Dividing an operation into as few pieces as keep each of them within the limits."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any

from bascule.base.arrays import np
from bascule.compat.fallback.operation_runs import PieceResult, broken, device_nbytes, strain
from bascule.compat.fallback.operation_work import Array, Division, Request, Span, Work
from bascule.errors import LimitError
from bascule.program.program import Program
from bascule.program.rewrites.rewrite import Limits, Rewrite, Taken, fit

# A piece costs about a millisecond beside its work, and a hundred of them the caller's patience.
_MOST_PIECES = 64
# Numbers of equal pieces that are tried, from the one that the device's bytes ask for on.
_TRIED = 3
# Axes whose halves differ by less are alike; the operation's first one is taken.
_ALIKE = 1.01


@dataclass(frozen=True, slots=True)
class Plan:
    """The pieces of an operation by their spans; `division` is None where it is done at once."""

    work: Work
    division: Division | None = None
    pieces: tuple[tuple[Span, ...], ...] = ()
    taken: tuple[Taken, ...] = ()

    async def joined(
        self, start: Callable[[Request, Work], Awaitable[PieceResult]], of: Request
    ) -> Array:
        """Start each piece before the one before it is waited for; their results as one array."""
        if self.division is None:
            return np.ascontiguousarray(await (await start(of, self.work)).get())
        if self.division.begin is not None:
            whole = self.division.begin()
        else:
            dtype = np.uint8 if self.division.dtype == "u8" else np.float32
            whole = np.empty(self.division.flat, dtype)
        last: tuple[PieceResult, Any] | None = None
        for spans in self.pieces:
            made = self.division.piece(spans)
            if made is None:
                continue
            piece, place = made
            started = await start(piece, of.operation.record(piece))
            if last is not None:
                whole[last[1]] = await last[0].get()
            last = started, place
        if last is not None:
            whole[last[1]] = await last[0].get()
        return whole.reshape(self.division.shape)


def plan(
    request: Request,
    limits: Limits,
    rewrites: Sequence[Rewrite],
    *,
    split_matrices: bool = True,
    wanted: str = "",
) -> Plan:
    """Divide an operation until no piece breaks a limit (`memory_nbytes` bounds all buffers of a
    piece); with a reason that is `wanted`, into two pieces at least where that can be.

    LimitError, with what the smallest piece needs, where none is small enough.
    """
    work = request.operation.record(request)
    result = _broken(work.program, limits, rewrites)
    if not result[0] and not wanted:
        return Plan(work)
    planner = _Planner(request, limits, rewrites, split_matrices=split_matrices)
    if planner.division is None:
        _refuse(result)
        return Plan(work)
    whole = tuple((0, axis.count) for axis in planner.division.axes)
    if not result[0] and not planner.halves(whole):
        return Plan(work)
    pieces = planner.equal(whole) if result[0] else ()
    pieces = pieces or tuple(sorted(planner.leaves(whole, divided=not result[0])))
    if limits.memory_nbytes < device_nbytes(work.program) and len(pieces) > _MOST_PIECES:
        what, needs, allowed = result
        advice = f"Allow more memory: {len(pieces)} pieces would fit, and {_MOST_PIECES} are taken."
        raise LimitError(what, needs, allowed, hint=advice)
    reason = f"{result[0]} needs {result[1]}, and {result[2]}" if result[0] else wanted
    taken = tuple(
        Taken(axis.strategy, f"{reason}: divided by {axis.things}", n)
        for index, axis in enumerate(planner.division.axes)
        if (n := len({spans[index] for spans in pieces})) > 1
    )
    return Plan(work, planner.division, pieces, taken)


# A piece cut in two.
_Halves = tuple[tuple[Span, ...], tuple[Span, ...]]


class _Planner:
    def __init__(
        self,
        request: Request,
        limits: Limits,
        rewrites: Sequence[Rewrite],
        *,
        split_matrices: bool,
    ) -> None:
        self._request, self._limits, self._rewrites = request, limits, rewrites
        self._split_matrices = split_matrices
        self.division = request.operation.divide(request)
        self._programs: dict[tuple[Span, ...], Program | None] = {}
        self._by_shapes: dict[str, Program] = {}

    def halves(self, spans: tuple[Span, ...]) -> list[_Halves]:
        """Every way to cut that piece in two, those of the operation's first strategy first."""
        assert self.division is not None
        order = self._request.operation.strategies
        ways: list[tuple[int, int]] = []
        for index, axis in enumerate(self.division.axes):
            first, end = spans[index]
            barred = axis.strategy == "layer_decomposition" and not self._split_matrices
            if end - first > 1 and not barred:
                ways.append((order.index(axis.strategy), index))
        results: list[_Halves] = []
        for _, index in sorted(ways):
            first, end = spans[index]
            middle = (first + end) // 2
            before, after = spans[:index], spans[index + 1 :]
            results.append(((*before, (first, middle), *after), (*before, (middle, end), *after)))
        return results

    def leaves(self, spans: tuple[Span, ...], *, divided: bool) -> list[tuple[Span, ...]]:
        """The pieces of a piece; `divided` asks for two at least."""
        program = self._program(spans)
        if program is None:
            return []
        result = _broken(program, self._limits, self._rewrites)
        if not result[0] and not divided:
            return [spans]
        ways = self.halves(spans)
        if not ways:
            hint = "" if self._split_matrices else "Set enable_layer_processing to divide matrices."
            _refuse(result, hint)
        # The second half is the larger one where they differ: where it does not fit nothing does.
        first, second = ways[0] if divided else self._best(ways)
        return self.leaves(second, divided=False) + self.leaves(first, divided=False)

    def equal(self, whole: tuple[Span, ...]) -> tuple[tuple[Span, ...], ...]:
        """Return about as many pieces as the whole is too large, all of one length; none where
        dividing one axis is not enough.

        One length is one program: the last piece may begin within the one before.
        """
        assert self.division is not None
        program, ways = self._program(whole), self.halves(whole)
        if program is None or not ways:
            return ()
        first, _ = self._best(ways)
        axis = next(at for at, span in enumerate(first) if span != whole[at])
        count = self.division.axes[axis].count
        least = max(2, ceil(min(strain(program, self._limits), _MOST_PIECES)))
        lengths = [-(-count // n) for n in range(least, least + _TRIED)]
        for length in dict.fromkeys([*lengths, max(1, count // least)]):
            pieces = _equal(whole, axis, count, length)
            # Of pieces of one length one stands for all, where that makes them alike.
            checked = pieces[:1] if self.division.alike else pieces
            programs = {id(each): each for each in map(self._program, checked) if each is not None}
            if not any(_broken(p, self._limits, self._rewrites)[0] for p in programs.values()):
                return pieces
        return ()

    def _best(self, ways: Sequence[_Halves]) -> _Halves:
        """Return the way of the least strain, the first of those that are alike."""
        strains = [self._strain(way) for way in ways]
        return next(w for w, s in zip(ways, strains, strict=True) if s <= _ALIKE * min(strains))

    def _strain(self, way: _Halves) -> float:
        programs = [self._program(spans) for spans in way]
        return max(strain(program, self._limits) for program in programs if program is not None)

    def _program(self, spans: tuple[Span, ...]) -> Program | None:
        """What a piece runs: recorded once for pieces that are alike, or have the same shapes."""
        assert self.division is not None
        lengths = tuple((0, end - first) for first, end in spans)
        key = lengths if self.division.alike else spans
        if key not in self._programs:
            made = self.division.piece(spans)
            self._programs[key] = None if made is None else self._recorded(made[0])
        return self._programs[key]

    def _recorded(self, piece: Request) -> Program:
        shapes = {name: np.shape(array) for name, array in piece.inputs.items()}
        key = repr((shapes, dict(piece.context)))
        if key not in self._by_shapes:
            self._by_shapes[key] = piece.operation.record(piece).program
        return self._by_shapes[key]


def _equal(
    like: tuple[Span, ...], axis: int, count: int, length: int
) -> tuple[tuple[Span, ...], ...]:
    """Return spans of one length over an axis of `count`, which is at least that."""
    starts = [min(at, count - length) for at in range(0, count, length)]
    return tuple((*like[:axis], (at, at + length), *like[axis + 1 :]) for at in starts)


def _broken(program: Program, limits: Limits, rewrites: Sequence[Rewrite]) -> tuple[str, str, str]:
    """What `broken` says of a program once it is rewritten; of one that cannot be, why."""
    try:
        fitted, _ = fit(program, limits, rewrites)
    except LimitError as error:
        return error.limited, error.needs, error.limit
    return broken(fitted, limits)


def _refuse(found: tuple[str, str, str], hint: str = "") -> None:
    what, needs, allowed = found
    if what:
        advice = hint or "Allow more, or give it smaller inputs: it is divided no further."
        raise LimitError(what, needs, allowed, hint=advice)
