"""Stages: a program's calls in groups, each of whose parameters fit a slot of memory together.

A model with streamed weights runs stage by stage, with one or two stages' weights in memory.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from bascule.errors import LimitError
from bascule.program.ops import operands_of
from bascule.program.program import Call, Parameter, Program, Value

# Each parameter is bound separately, and bindings start at multiples of this.
ALIGNMENT = 256


@dataclass(frozen=True, slots=True)
class Stage:
    """The calls from index `first` to `end` - 1; `offsets` places their parameters in a slot."""

    first: int
    end: int
    offsets: Mapping[str, int]


def part_nbytes(programs: Iterable[Program]) -> int:
    """Return the bytes that a part of a streamed matrix may have: those of a layer's largest.

    Embedding tables, and matrices with a row for each row of the largest table (which make logits),
    do not count, unless there is nothing else.
    """
    weights: dict[str, Value] = {}
    tables: dict[str, Value] = {}
    for program in programs:
        for call in program.calls:
            for operand, value in operands_of(call):
                if operand.role in ("weight", "table"):
                    (tables if operand.role == "table" else weights)[value.name] = value
    tallest = max((value.limits[0] for value in tables.values()), default=0)
    layers = [v for v in weights.values() if v.name not in tables and v.limits[0] != tallest]
    return max((v.nbytes for v in layers or [*weights.values(), *tables.values()]), default=1)


def streamed_nbytes(parameters: Iterable[Parameter]) -> dict[str, int]:
    """Return the bytes of each parameter that comes from a file, by name; computed ones stay."""
    return {p.name: p.nbytes for p in parameters if p.computed is None}


def slot_nbytes(programs: Iterable[Program]) -> int:
    """Return the bytes of a slot: the parameters of the call that reads the most."""
    largest = 1
    for program in programs:
        nbytes = streamed_nbytes(program.parameters)
        for call in program.calls:
            largest = max(largest, sum(_aligned(nbytes[name]) for name in _read_by(call, nbytes)))
    return largest


def stages_of(program: Program, max_nbytes: int) -> tuple[Stage, ...]:
    """Return the stages of a program, each as long as a slot of `max_nbytes` allows.

    LimitError if the parameters of one call need more.
    """
    nbytes = streamed_nbytes(program.parameters)
    stages: list[Stage] = []
    first, offsets, used = 0, dict[str, int](), 0
    for index, call in enumerate(program.calls):
        fresh = [name for name in _read_by(call, nbytes) if name not in offsets]
        if offsets and used + sum(_aligned(nbytes[name]) for name in fresh) > max_nbytes:
            stages.append(Stage(first, index, offsets))
            first, offsets, used = index, {}, 0
            fresh = _read_by(call, nbytes)
        for name in fresh:
            offsets[name] = used
            used += _aligned(nbytes[name])
        if used > max_nbytes:
            needs, allowed = f"{used:,} bytes", f"a slot of streamed weights has {max_nbytes:,}"
            raise LimitError(f"the parameters of {call.result.name}", needs, allowed)
    stages.append(Stage(first, len(program.calls), offsets))
    return tuple(stages)


def _read_by(call: Call, streamed: Mapping[str, int]) -> Sequence[str]:
    """Return the names of a call's streamed parameters, each once."""
    return list(dict.fromkeys(o.name for o in call.operands if o and o.name in streamed))


def _aligned(nbytes: int) -> int:
    return -(-nbytes // ALIGNMENT) * ALIGNMENT
