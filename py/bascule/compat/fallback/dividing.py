"""Divide an operation into the fewest pieces that each stay within the limits."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any

from bascule.base.arrays import np
from bascule.compat.fallback.operation_runs import (
    PieceResult,
    device_nbytes,
    limit_share,
    violation_of,
)
from bascule.compat.fallback.operation_work import Array, Division, Request, Span, Work
from bascule.errors import LimitError
from bascule.program.program import Program
from bascule.program.rewrites.rewrite import AppliedRewrite, Limits, Rewrite, fit

# A piece costs about a millisecond besides its work.
_MAX_PIECES = 64
# How many numbers of equal pieces are tried, starting at the one that the device's bytes suggest.
_N_TRIALS = 3
_SMALLER_INPUTS = "Allow more, or give it smaller inputs: it is divided no further."
_SPLIT_MATRICES = "Set enable_layer_processing to divide matrices."

_Bisection = tuple[tuple[Span, ...], tuple[Span, ...]]
# Limit shares within this factor are equal; then the operation's first axis is divided.
_EQUAL_SHARES = 1.01


@dataclass(frozen=True, slots=True)
class Plan:
    """The pieces of an operation by their spans; `division` is None if it runs in one piece."""

    work: Work
    division: Division | None = None
    pieces: tuple[tuple[Span, ...], ...] = ()
    applied: tuple[AppliedRewrite, ...] = ()

    async def run(
        self, start: Callable[[Request, Work], Awaitable[PieceResult]], of: Request
    ) -> Array:
        """Start each piece before awaiting the previous one; return their results as one array."""
        if self.division is None:
            return np.ascontiguousarray(await (await start(of, self.work)).get())
        if self.division.begin is not None:
            result = self.division.begin()
        else:
            dtype = np.uint8 if self.division.dtype == "u8" else np.float32
            result = np.empty(self.division.flat, dtype)
        last: tuple[PieceResult, Any] | None = None
        for spans in self.pieces:
            part = self.division.piece(spans)
            if part is None:
                continue
            piece, index = part
            started = await start(piece, of.operation.record(piece))
            if last is not None:
                result[last[1]] = await last[0].get()
            last = started, index
        if last is not None:
            result[last[1]] = await last[0].get()
        return result.reshape(self.division.shape)


def plan(
    request: Request,
    limits: Limits,
    rewrites: Sequence[Rewrite],
    *,
    split_matrices: bool = True,
    forced_by: str = "",
) -> Plan:
    """Divide an operation until no piece exceeds a limit (`memory_nbytes` bounds all buffers of a
    piece); with a reason in `forced_by` into at least two pieces, if possible.

    LimitError, with what the smallest piece needs, if that is too large.
    """
    work = request.operation.record(request)
    violation = _violation(work.program, limits, rewrites)
    if violation is None and not forced_by:
        return Plan(work)
    planner = _Planner(request, limits, rewrites, split_matrices=split_matrices)
    if planner.division is None:
        if violation is not None:
            raise _with_hint(violation, _SMALLER_INPUTS)
        return Plan(work)
    full = tuple((0, axis.count) for axis in planner.division.axes)
    if violation is None and not planner.bisections(full):
        return Plan(work)
    pieces = planner.equal_pieces(full) if violation is not None else ()
    pieces = pieces or tuple(sorted(planner.bisected(full, at_least_once=violation is None)))
    reason = forced_by
    if violation is not None:
        if limits.memory_nbytes < device_nbytes(work.program) and len(pieces) > _MAX_PIECES:
            n = len(pieces)
            hint = f"Allow more memory: it would take {n} pieces, and {_MAX_PIECES} are the most."
            raise _with_hint(violation, hint)
        reason = f"{violation.limited} needs {violation.needs}, and {violation.limit}"
    applied = tuple(
        AppliedRewrite(axis.strategy, f"{reason}: divided by {axis.items}", n)
        for index, axis in enumerate(planner.division.axes)
        if (n := len({spans[index] for spans in pieces})) > 1
    )
    return Plan(work, planner.division, pieces, applied)


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

    def bisections(self, spans: tuple[Span, ...]) -> list[_Bisection]:
        """Every way to cut a piece in two, those of the operation's first strategy first."""
        assert self.division is not None
        order = self._request.operation.strategies
        ways: list[tuple[int, int]] = []
        for index, axis in enumerate(self.division.axes):
            first, end = spans[index]
            disabled = axis.strategy == "layer_decomposition" and not self._split_matrices
            if end - first > 1 and not disabled:
                ways.append((order.index(axis.strategy), index))
        results: list[_Bisection] = []
        for _, index in sorted(ways):
            first, end = spans[index]
            middle = (first + end) // 2
            before, after = spans[:index], spans[index + 1 :]
            results.append(((*before, (first, middle), *after), (*before, (middle, end), *after)))
        return results

    def bisected(self, spans: tuple[Span, ...], *, at_least_once: bool) -> list[tuple[Span, ...]]:
        """Bisect a piece until its pieces fit."""
        program = self._program(spans)
        if program is None:
            return []
        violation = _violation(program, self._limits, self._rewrites)
        if violation is None and not at_least_once:
            return [spans]
        ways = self.bisections(spans)
        if not ways and violation is not None:
            hint = _SMALLER_INPUTS if self._split_matrices else _SPLIT_MATRICES
            raise _with_hint(violation, hint)
        # The second half is the larger one if they differ: if it does not fit, nothing does.
        first, second = ways[0] if at_least_once else self._best(ways)
        return [
            *self.bisected(second, at_least_once=False),
            *self.bisected(first, at_least_once=False),
        ]

    def equal_pieces(self, full: tuple[Span, ...]) -> tuple[tuple[Span, ...], ...]:
        """Divide one axis into pieces of one length, about as many as the operation exceeds its
        limits times; none if that is not enough.

        One length is one program: the last piece may overlap the one before.
        """
        assert self.division is not None
        program, ways = self._program(full), self.bisections(full)
        if program is None or not ways:
            return ()
        first, _ = self._best(ways)
        axis = next(at for at, span in enumerate(first) if span != full[at])
        count = self.division.axes[axis].count
        fewest = max(2, ceil(min(limit_share(program, self._limits), _MAX_PIECES)))
        lengths = [-(-count // n) for n in range(fewest, fewest + _N_TRIALS)]
        for length in dict.fromkeys([*lengths, max(1, count // fewest)]):
            pieces = _equal_spans(full, axis, count, length)
            # If pieces of one length are one program, one piece is checked for all.
            checked = pieces[:1] if self.division.same_program else pieces
            programs = {id(each): each for each in map(self._program, checked) if each is not None}
            if not any(_violation(p, self._limits, self._rewrites) for p in programs.values()):
                return pieces
        return ()

    def _best(self, ways: Sequence[_Bisection]) -> _Bisection:
        """Return the way with the least limit share, the first of those that are equal."""
        shares = [self._limit_share(way) for way in ways]
        limit = _EQUAL_SHARES * min(shares)
        return next(way for way, share in zip(ways, shares, strict=True) if share <= limit)

    def _limit_share(self, way: _Bisection) -> float:
        programs = [self._program(spans) for spans in way]
        return max(
            limit_share(program, self._limits) for program in programs if program is not None
        )

    def _program(self, spans: tuple[Span, ...]) -> Program | None:
        """The program of a piece, recorded once for pieces of the same shapes."""
        assert self.division is not None
        lengths = tuple((0, end - first) for first, end in spans)
        key = lengths if self.division.same_program else spans
        if key not in self._programs:
            part = self.division.piece(spans)
            self._programs[key] = None if part is None else self._recorded(part[0])
        return self._programs[key]

    def _recorded(self, piece: Request) -> Program:
        shapes = {name: np.shape(array) for name, array in piece.inputs.items()}
        key = repr((shapes, dict(piece.context)))
        if key not in self._by_shapes:
            self._by_shapes[key] = piece.operation.record(piece).program
        return self._by_shapes[key]


def _equal_spans(
    full: tuple[Span, ...], axis: int, count: int, length: int
) -> tuple[tuple[Span, ...], ...]:
    """Return spans of one length over an axis of `count` items, which is no less than that."""
    starts = [min(at, count - length) for at in range(0, count, length)]
    return tuple((*full[:axis], (at, at + length), *full[axis + 1 :]) for at in starts)


def _with_hint(violation: LimitError, hint: str) -> LimitError:
    return LimitError(violation.limited, violation.needs, violation.limit, hint=hint)


def _violation(program: Program, limits: Limits, rewrites: Sequence[Rewrite]) -> LimitError | None:
    """The limit that a program exceeds after it is rewritten, or that no rewrite meets."""
    try:
        fitted, _ = fit(program, limits, rewrites)
    except LimitError as error:
        return error
    return violation_of(fitted, limits)
